"""One target's result on its way from the device to the host."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from torch import Tensor

from rts_batch.masks import Box, TrackedFrame
from rts_batch.tracking.merging import LateResult
from rts_batch.tracking.result import Arrival, StepResult, centred_box, target_state

EXACT: Final = 1 << 24
"""Up to here float32 knows every whole number; a mask of 8K may have more pixels."""


class Number(IntEnum):
    """Where each number lies in a result, `[Number.LENGTH] float32`; the kernels write by the same names.

    Of a name that stands for several numbers it is the first: a box is x, y, w, h, a window y0, x0, y1, x1, a place or
    a size y, x.
    """

    SCORE = 0
    PROBABILITY_SUM = 1
    CONFIDENCE_SUM = 2
    AREA = 3
    LOST_MASK = 4
    MASK_TOO_SMALL = 5
    LOST_LOCALISATION = 6
    BOX = 7
    POSITION = 11
    TARGET_SIZE = 13
    WINDOW = 15
    LENGTH = 19


class Reading:
    """A mask and its numbers, copied without waiting; valid is what stood there when it was made.

    Args:
        numbers: `[Number.LENGTH] float32`.
        mask: `[H, W] bool`.
        signals: `signals.signals_of`.
        scores: mask logits, `[H, W] float32`, handed on as they are.
        fallback: the box of a lost mask is the localisation branch's.
    """

    def __init__(self, numbers: Tensor, mask: Tensor, signals: Tensor, scores: Tensor, *, fallback: bool) -> None:
        # Into pinned memory on CUDA.
        self._numbers = numbers.to("cpu", non_blocking=True, copy=True)
        self._mask = mask.to("cpu", non_blocking=True, copy=True)
        self._signals = signals.to("cpu", non_blocking=True, copy=True)
        self._scores = scores
        self._fallback = fallback
        self._arrival = Arrival(numbers.device)

    def frame(self) -> TrackedFrame:
        """The frame of a target that is alone in its video; waits for the device."""
        result = self.scores()
        area, confidence_sum = int(self._numbers[Number.AREA]), float(self._numbers[Number.CONFIDENCE_SUM])
        mask = self._mask.numpy()
        if area >= EXACT:
            area = int(np.count_nonzero(mask))
        return TrackedFrame(
            mask=mask,
            region=result.region,
            box=result.box,
            area=area,
            score=result.score,
            confidence=confidence_sum / area if area else None,
            state=target_state(area, result),
            signals=result.signals,
        )

    def late(self) -> LateResult:
        """`scores`, of which only the map itself is there."""
        return LateResult(self._scores, self.scores)

    def scores(self) -> StepResult:
        """The result before any merging with other targets; the scores are valid until the tracker's next step."""
        self._arrival.wait()
        numbers: list[float] = self._numbers.tolist()
        y0, x0, y1, x1 = (int(value) for value in numbers[Number.WINDOW : Number.WINDOW + 4])
        return StepResult(
            scores=self._scores,
            region=(y0, x0, y1, x1),
            box=self._box(numbers),
            score=numbers[Number.SCORE],
            localised=not numbers[Number.LOST_LOCALISATION],
            mask_too_small=bool(numbers[Number.MASK_TOO_SMALL]),
            probability_sum=numbers[Number.PROBABILITY_SUM],
            signals=tuple(self._signals.tolist()),
        )

    def _box(self, numbers: list[float]) -> Box:
        unusable = numbers[Number.LOST_MASK] or numbers[Number.MASK_TOO_SMALL]
        if unusable and self._fallback:
            position, size = (numbers[first : first + 2] for first in (Number.POSITION, Number.TARGET_SIZE))
            return centred_box(position, size)
        x, y, w, h = numbers[Number.BOX : Number.BOX + 4]
        return (x, y, w, h)
