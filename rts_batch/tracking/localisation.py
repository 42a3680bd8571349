"""From a score map to a position and a state (paper §3.4; spec rts-tracker §9.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.tracking.region import SearchRegion

Flag = Literal["normal", "hard_negative", "uncertain", "not_found"]


@dataclass(frozen=True)
class Localisation:
    """The instance branch's answer for one frame."""

    flag: Flag
    score: float
    """Maximum of the score map."""
    displacement: Tensor
    """(y, x) of the peak from the search region's centre in image pixels, `[2] float32`."""


def localise(
    score_map: Tensor, region: SearchRegion, position: Tensor, target_size: Tensor, config: TrackerConfig
) -> Localisation:
    """Find the highest peak, look for a second one outside its neighbourhood and decide between them.

    With the published thresholds a second peak never counts, so the flag is `normal` or `not_found`.

    Args:
        score_map: s_c, `[h, w] float32`; one larger than the feature map in each axis.
        region: the frame's search region.
        position: the branch's target position (y, x) before this frame, image pixels.
        target_size: its target size (h, w), image pixels.
        config: thresholds.
    """
    scores = score_map.detach().cpu().numpy()
    grid = torch.tensor([scores.shape[0] - 1, scores.shape[1] - 1], dtype=torch.float32)
    cell = torch.tensor(region.crop_size, dtype=torch.float32) / grid  # crop pixels a cell
    scale = region.scale

    peak, place = _highest(scores)
    first = place - grid / 2
    if peak < config.not_found_threshold:
        return Localisation("not_found", peak, first * cell * scale)

    second_peak, second_place = _highest(_without_neighbourhood(scores, place, target_size / scale / cell, config))
    second = second_place - grid / 2
    if second_peak > config.distractor_threshold * peak:
        previous = (position - region.position) / (cell * scale)
        reach = config.displacement_scale * float(np.sqrt(scores.size)) / 2
        first_near, second_near = ((d - previous).norm() < reach for d in (first, second))
        if first_near and not second_near:
            return Localisation("hard_negative", peak, first * cell * scale)
        if second_near and not first_near:
            return Localisation("hard_negative", peak, second * cell * scale)
        return Localisation("uncertain", peak, first * cell * scale)
    if second_peak > config.hard_negative_threshold * peak and second_peak > config.not_found_threshold:
        return Localisation("hard_negative", peak, first * cell * scale)
    return Localisation("normal", peak, first * cell * scale)


def _highest(scores: NDArray[np.float32]) -> tuple[float, Tensor]:
    """Return the maximum and its (row, column); of equal values the smallest column, then row, wins."""
    rows = scores.argmax(axis=0)
    column = int(scores.max(axis=0).argmax())
    return float(scores[rows[column], column]), torch.tensor([float(rows[column]), float(column)])


def _without_neighbourhood(
    scores: NDArray[np.float32], place: Tensor, target_cells: Tensor, config: TrackerConfig
) -> NDArray[np.float32]:
    """Return a copy with the target's neighbourhood around `place` set to zero."""
    remaining = scores.copy()
    extent = config.target_neighbourhood_scale * target_cells
    window = []
    for axis, length in enumerate(scores.shape):
        start = max(round(float(place[axis] - extent[axis] / 2)), 0)
        end = min(round(float(place[axis] + extent[axis] / 2 + 1)), length)
        window.append(slice(start, max(end, start)))
    remaining[window[0], window[1]] = 0
    return remaining
