"""The steps of steepest descent in a filter by Triton kernels: what the learners of κ and τ have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import descent
from rts_batch.model.fast.kernels.sizes import blocks, power
from rts_batch.model.learner import MINIMUM_CURVATURE

NUMBERS = 512
"""A block of the filter."""


def filled_of(features: Tensor, filled: Tensor | None) -> Tensor:
    """Return how many of the samples there are, `[1] int64`: all of them where nothing is said."""
    return torch.full((1,), len(features), device=features.device) if filled is None else filled


class FilterSteps:
    """The slope at a filter, `[R, C]`, and the step along it.

    Args:
        shape: R and C.
        reg: λ, `[1] float32`.
        parts: blocks in which the curvature along the slope is summed up.
    """

    def __init__(self, shape: tuple[int, int], reg: Tensor, parts: int) -> None:
        self.reg = reg
        self.slope = torch.empty(shape, dtype=reg.dtype, device=reg.device)
        self.norms = reg.new_empty(blocks(self.slope.numel(), NUMBERS))
        """Of the slope's square, block by block."""
        self.curvatures = reg.new_empty(parts)
        self.counts = (len(self.norms), parts)
        self.sums = {"MINIMUM": MINIMUM_CURVATURE, "NORMS": power(len(self.norms)), "CURVATURES": power(parts)}
        """What every kernel is told that adds the blocks up."""

    def gradient(self, partial: Tensor, rows: Tensor, filled: Tensor | None = None) -> None:
        """Find the slope at a filter of which `partial`, `[shares, R, C]`, add up to the residuals' part of it.

        With `filled`, `[1] int64`, the first so many of them do.
        """
        descent.gradient[(len(self.norms),)](
            *(partial, rows, self.reg, self.slope, self.norms, filled, rows.numel(), len(partial)),
            BLOCK=NUMBERS,
            enable_fp_fusion=True,
        )

    def descend(self, rows: Tensor) -> None:
        """Take the step in a filter, in place."""
        descent.descend[(len(self.norms),)](
            *(rows, self.slope, self.norms, self.curvatures, self.reg, rows.numel(), *self.counts),
            **self.sums,
            BLOCK=NUMBERS,
            enable_fp_fusion=True,
        )
