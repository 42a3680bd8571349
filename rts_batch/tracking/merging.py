"""Targets of one video that were tracked apart, merged on the device and read together, whenever somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.masks import TrackedFrame
from rts_batch.tracking.result import Arrival, StepResult, target_state

BACKGROUND_LIMIT = 1e-7


class LateResult(NamedTuple):
    """What one step found, of which the host may know nothing yet."""

    scores: Tensor
    """As in `StepResult`; valid until the tracker's next step."""
    read: Callable[[], StepResult]
    """Waits for the rest."""

    @classmethod
    def of(cls, result: StepResult) -> LateResult:
        """A result that is there."""
        return cls(result.scores, lambda: result)


def soft_aggregation(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Merge targets that were tracked independently.

    Args:
        scores: mask logits, `[K, H, W] float32`.

    Returns:
        Labels `[H, W] int64` (0 is background, k the k-th target; of equal probabilities the first wins) and
        probabilities `[K, H, W] float32`.
    """
    foreground = torch.sigmoid(scores)
    background = (1 - foreground).prod(0, keepdim=True).clamp(BACKGROUND_LIMIT, 1 - BACKGROUND_LIMIT)
    odds = torch.cat([torch.log(background / (1 - background)), scores])
    probabilities = torch.softmax(odds, dim=0)
    return probabilities.argmax(0), probabilities[1:]


class Measured:
    """Merged targets on their way from the device: masks, `[K, H, W] bool`, and `measure_labels`' measures."""

    def __init__(self, masks: Tensor, measures: Tensor) -> None:
        self._masks = masks.to("cpu", non_blocking=True)
        self._measures = measures.to("cpu", non_blocking=True)
        self._arrival = Arrival(masks.device)

    def read(self, place: int) -> tuple[NDArray[np.bool_], list[float]]:
        """Return a target's mask and its measures; waits for the device."""
        self._arrival.wait()
        return self._masks[place].numpy(), self._measures[place].tolist()


def measure_labels(labels: Tensor, probabilities: Tensor) -> Measured:
    """Measure merged targets and send them to the host, in two transfers for all of them.

    Args:
        labels: `[H, W] int64`.
        probabilities: `[K, H, W] float32`.

    Returns:
        Masks, `[K, H, W] bool`, and for each target its pixels, the sum of its probabilities inside its mask, and the
        mask's tight box x, y, w, h, which means nothing where the mask is empty.
    """
    height, width = labels.shape
    places = torch.arange(1, len(probabilities) + 1, device=labels.device)
    masks = labels == places[:, None, None]
    rows, columns = masks.any(2).byte(), masks.any(1).byte()
    top, left = rows.argmax(1), columns.argmax(1)
    heights = height - rows.flip(1).argmax(1) - top
    widths = width - columns.flip(1).argmax(1) - left
    sums = (masks.sum((1, 2)), (probabilities * masks).sum((1, 2)))
    measures = torch.stack([values.double() for values in (*sums, left, top, widths, heights)], dim=1)
    return Measured(masks, measures)


def merged_frame(measured: Measured, place: int, read: Callable[[], StepResult], *, prompted: bool) -> TrackedFrame:
    """Read a target's frame; `place` is its own among those merged, `read` waits for what was found of it alone."""
    result = read()
    mask, (area, probability_sum, *box) = measured.read(place)
    confidence = 1.0 if prompted else probability_sum / area if area else None
    return TrackedFrame(
        mask=mask,
        region=result.region,
        box=(box[0], box[1], box[2], box[3]) if area else None,
        area=int(area),
        score=None if prompted else result.score,
        confidence=confidence if area else None,
        state="prompt" if prompted else target_state(int(area), result),
        signals=None if prompted else result.signals,
    )
