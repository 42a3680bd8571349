"""Whether what a mask covers looks like what the prompt covered: features matched cell by cell.

A tracker that has gone over to another object draws a mask as sure of itself as before. What its cells look like is
compared with the prompt's own frame, which no later mistake has touched. The paper has no such measure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

INSIDE: Final = 0.5
"""A cell with at least this share of the target in it is one of the target's."""
OUTSIDE: Final = 0.05
"""A cell with less than this share of the target in it is one of the background's."""
NEIGHBOURS: Final = 3
"""So many of the most similar cells of the prompt's frame count, and a target has at least so many cells."""


@dataclass(frozen=True)
class PromptLook:
    """What a prompt's frame looks like, cell by cell, as later frames are compared with it."""

    mean: Tensor
    """Of its features, `[C, 1] float32`."""
    cells: Tensor
    """Its features less their mean, each of length 1, `[C, h·w] float32`."""
    target: Tensor
    """Which cells are the target's, `[h·w] bool`; none where no prompt is known."""
    background: Tensor
    """Which are the background's, `[h·w] bool`."""

    @classmethod
    def of(cls, features: Tensor, coverage: Tensor) -> PromptLook:
        """Look at a prompt's frame.

        Args:
            features: x_s of its search region, `[C, h, w] float`.
            coverage: the share of each cell that the prompt's mask covers, `[h, w] float32`; all 0 where no prompt is
                known.
        """
        known, covered = features.float().flatten(1), coverage.flatten()
        mean = known.mean(1, keepdim=True)
        least = covered.topk(min(NEIGHBOURS, covered.numel())).values[-1].clamp(max=INSIDE)
        target = (covered >= least) & (covered > 0)
        return cls(mean, functional.normalize(known - mean, dim=0), target, covered < OUTSIDE)

    def take(self, other: PromptLook) -> None:
        """Look like another, in the tensors that there are, which a captured graph reads."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def likeness_to_prompt(features: Tensor, coverage: Tensor, prompt: PromptLook | None) -> Tensor:
    """Return how much more a mask looks like the prompt's target than like its background.

    Args:
        features: x_s of this frame's search region, `[C, h, w] float`.
        coverage: the mask's mean probability in each cell, `[h, w] float32`; what is next to nothing does not count.
        prompt: what the prompt's frame looks like.

    Returns:
        `[] float32`: the mean, over the mask, of each cell's cosine with its nearest cells of the target less that
        with its nearest cells of the background, both from the mean of the prompt's features. NaN without a prompt.
    """
    if prompt is None:
        return features.new_full((), torch.nan, dtype=torch.float32)
    seen, weights = features.float().flatten(1), coverage.flatten()
    weights = torch.where(weights < OUTSIDE, 0.0, weights)
    if weights.device.type == "cpu":  # elsewhere the host does not know how many these are
        seen, weights = seen[:, weights > 0], weights[weights > 0]
    similar = functional.normalize(seen - prompt.mean, dim=0).t() @ prompt.cells
    margin = _nearest(similar, prompt.target) - _nearest(similar, prompt.background)
    mean_margin = (margin * weights).sum() / weights.sum().clamp(min=OUTSIDE)
    return torch.where(prompt.target.any(), mean_margin, torch.nan)


def _nearest(similar: Tensor, which: Tensor) -> Tensor:
    """Return the mean of the highest similarities with the cells that are meant, `[n]` of `[n, m]`; 0 where none is."""
    best = torch.where(which, similar, -torch.inf).topk(min(NEIGHBOURS, similar.shape[1]), dim=1).values
    there = best > -torch.inf
    return torch.where(there, best, 0.0).sum(1) / there.sum(1).clamp(min=1)
