"""What the network's output tells of a mask's quality, measured where it was computed.

One vector a frame, which is read back with the mask; `quality` makes an estimate of it. The paper has no such measures.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rts_batch.tracking.appearance import PromptLook, likeness_to_prompt
from rts_batch.tracking.maps import above

NEIGHBOURHOOD: Final = 4
"""Cells of the score map around its peak, to each side, in which no second peak is looked for."""


class Signal(IntEnum):
    """Where each measure lies in a vector of signals; the mean feature of the mask's pixels follows at `LENGTH`."""

    SOFT_IOU = 0
    """IoU of the mask with its own probabilities."""
    SOFTER_IOU = 1
    """The same of probabilities at a third of the logits."""
    CONFIDENCE = 2
    """Mean probability inside the mask."""
    STABLE_1 = 3
    """Area above logit 1 over the area above −1."""
    STABLE_3 = 4
    """Area above logit 3 over the area above −3."""
    UNSURE = 5
    """Sum of 4 p (1 − p) over the length of the outline: how many pixels wide the doubt is."""
    SIZE = 6
    """Logarithm of the mask's share of the search region."""
    EDGE = 7
    """Mask pixels on the search region's border over the length of the outline."""
    COMPACT = 8
    """Area over that of the ellipse with the same moments."""
    ROUGH = 9
    """Length of the outline over the root of the area."""
    PEAK = 10
    """Maximum of the score map."""
    SECOND = 11
    """The highest score away from the peak over the peak."""
    OFF_PEAK = 12
    """From the peak to the mask's centre, over the root of the area."""
    SEEN_AT_PEAK = 13
    """Probability around the peak."""
    EMPTY = 14
    """1 where there is no mask."""
    LIKE_PROMPT = 15
    """How much more it looks like the prompt's target than like its background; NaN where no prompt is known."""
    LENGTH = 16


SIGNALS: Final = tuple(signal for signal in Signal if signal is not Signal.LENGTH)


def signals_of(
    logits: Tensor,
    score_map: Tensor,
    features: Tensor,
    prompt: PromptLook | None = None,
) -> Tensor:
    """Measure one target's output in its search region, without a value that the host has to know.

    Args:
        logits: of the mask, `[h, w] float`.
        score_map: s_c, `[h', w'] float`.
        features: x_s, `[C, h / 16, w / 16] float`.
        prompt: what the prompt's frame looks like; None where no prompt is known.

    Returns:
        `[Signal.LENGTH + C] float32`.
    """
    logits, score_map, features = logits.float(), score_map.float(), features.float()
    probabilities, mask = torch.sigmoid(logits), _Mask.of(logits)
    coarse = functional.adaptive_avg_pool2d(probabilities[None], (features.shape[-2], features.shape[-1]))[0]
    measured = _measure_mask(logits, probabilities, mask) | _measure_scores(score_map, mask, coarse)
    measured[Signal.LIKE_PROMPT] = likeness_to_prompt(features, coarse, prompt)
    mean = (features * coarse).sum((1, 2)) / coarse.sum().clamp(min=1e-3)
    return torch.cat([torch.stack([measured[signal].float() for signal in SIGNALS]), mean])


class _Mask(NamedTuple):
    """A mask of 0 and 1, `[h, w] float32`, and what several measures need of it."""

    pixels: Tensor
    rows: Tensor
    """Its pixels in each row, `[h] float32`."""
    columns: Tensor
    area: Tensor
    off_y: Tensor
    """Each row's distance from the mask's mean row, `[h] float32`; from the first one where the mask is empty."""
    off_x: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> _Mask:
        pixels = above(logits)
        rows, columns = pixels.sum(1), pixels.sum(0)
        area = rows.sum()
        off_y, off_x = (_off_centre(profile, area) for profile in (rows, columns))
        return cls(pixels, rows, columns, area, off_y, off_x)


def _off_centre(profile: Tensor, area: Tensor) -> Tensor:
    places = torch.arange(len(profile), dtype=torch.float32, device=profile.device)
    return places - (profile * places).sum() / area.clamp(min=1)


def _measure_mask(logits: Tensor, probabilities: Tensor, found: _Mask) -> dict[Signal, Tensor]:
    """How sure the mask is of itself, and its shape; both maps `[h, w] float32`."""
    mask, area = found.pixels, found.area
    some = area.clamp(min=1)
    outline = _changes(mask[1:], mask[:-1]) + _changes(mask[:, 1:], mask[:, :-1])
    edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    length = (outline + edge).clamp(min=1)
    var_y = (found.rows * found.off_y.square()).sum() / some
    var_x = (found.columns * found.off_x.square()).sum() / some
    cov = ((mask * found.off_x).sum(1) * found.off_y).sum() / some
    shared = (probabilities * mask).sum()
    softer = torch.sigmoid(logits / 3)
    return {
        Signal.SOFT_IOU: _soft_iou(probabilities, shared, some),
        Signal.SOFTER_IOU: _soft_iou(softer, (softer * mask).sum(), some),
        Signal.CONFIDENCE: shared / some,
        Signal.STABLE_1: above(logits, 1).sum() / above(logits, -1).sum().clamp(min=1),
        Signal.STABLE_3: above(logits, 3).sum() / above(logits, -3).sum().clamp(min=1),
        Signal.UNSURE: 4 * (probabilities * (1 - probabilities)).sum() / length,
        Signal.SIZE: torch.log(some / mask.numel()),
        Signal.EDGE: edge / length,
        Signal.COMPACT: area / (4 * math.pi * (var_y * var_x - cov.square()).clamp(min=0.01).sqrt()),
        Signal.ROUGH: length / some.sqrt(),
        Signal.EMPTY: (area == 0).float(),
    }


def _changes(values: Tensor, others: Tensor) -> Tensor:
    """Count the places at which two maps of 0 and 1 differ, `[] float32`."""
    return torch.ne(values, others, out=torch.empty_like(values)).sum()


def _measure_scores(score_map: Tensor, mask: _Mask, coarse: Tensor) -> dict[Signal, Tensor]:
    """Whether the localisation branch agrees; `coarse` are the probabilities on the features' grid."""
    down, across = score_map.shape
    scores = score_map.flatten()
    place = scores.argmax(0, keepdim=True)
    peak = scores.gather(0, place)[0]
    row, column = torch.div(place, across, rounding_mode="floor")[0], torch.remainder(place, across)[0]
    rows, columns = (torch.arange(size, device=scores.device) for size in (down, across))
    near = ((rows - row).abs() <= NEIGHBOURHOOD)[:, None] & ((columns - column).abs() <= NEIGHBOURHOOD)
    height, width = mask.pixels.shape
    off_y, off_x = row * (height / (down - 1)) + mask.off_y[0], column * (width / (across - 1)) + mask.off_x[0]
    # A cell of the score map lies between cells of its branch's features; of those here, `reach` to each side count.
    reach = round(coarse.shape[0] / (down - 1))
    around = functional.avg_pool2d(coarse[None], 2 * reach, reach, reach, ceil_mode=True, count_include_pad=False)[0]
    return {
        Signal.PEAK: peak,
        Signal.SECOND: torch.where(near, 0.0, score_map).amax() / peak.clamp(min=0.05),
        Signal.OFF_PEAK: torch.hypot(off_y, off_x) / mask.area.clamp(min=1).sqrt(),
        Signal.SEEN_AT_PEAK: around.flatten().gather(0, place)[0],
    }


def _soft_iou(probabilities: Tensor, shared: Tensor, area: Tensor) -> Tensor:
    """Return the IoU of a mask of `area` with probabilities, of which `shared` lie inside it, `[] float32`."""
    return shared / (area + (probabilities.sum() - shared).clamp(min=0))
