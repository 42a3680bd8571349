"""What a step says of a target: maps on the device, and the frame that is read back from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rts_batch.masks import Box, Region, State, TrackedFrame
from rts_batch.tracking.maps import above


@dataclass(frozen=True)
class StepResult:
    """What one step found, before any merging with other targets. Maps are `[H, W] float32` on the model's device."""

    scores: Tensor
    """Mask logits; ±100 on the first frame."""
    region: Region
    box: Box
    score: float | None
    localised: bool
    mask_too_small: bool
    probability_sum: float
    signals: tuple[float, ...] | None = None
    """`signals.signals_of`; None on a prompt's frame."""


class Arrival:
    """When all is on the host that a device was told to copy there before this was made."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(blocking=True)  # lanes wait in great numbers: none must spin
            self._event.record()

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()


class Pending:
    """A tracked frame that may still be on its way from the device.

    Args:
        read: waits for it.
    """

    def __init__(self, read: Callable[[], TrackedFrame]) -> None:
        self._read: Callable[[], TrackedFrame] | None = read
        self._frame: TrackedFrame | None = None

    @classmethod
    def of(cls, frame: TrackedFrame) -> Pending:
        """A frame that is there."""
        return cls(lambda: frame)

    def read(self) -> TrackedFrame:
        """Wait for the frame, the first time; after that nothing of the device is held."""
        if self._frame is None:
            assert self._read is not None
            self._frame, self._read = self._read(), None
        return self._frame


def centred_box(centre: Sequence[float], size: Sequence[float]) -> Box:
    """Return the box x, y, w, h of a centre and a size, both (y, x)."""
    (y, x), (height, width) = centre, size
    return (x - (width - 1) / 2, y - (height - 1) / 2, width, height)


def prompt_result(mask: Tensor, box: Box, *, too_small: bool) -> StepResult:
    """The result on a prompt's own frame, from its mask `[H, W] float32` of 0 and 1."""
    height, width = mask.shape
    return StepResult(
        scores=(mask - 0.5) * 200,
        region=(0, 0, height, width),
        box=box,
        score=None,
        localised=True,
        mask_too_small=too_small,
        probability_sum=float(mask.sum()),
    )


def tight_box(values: Tensor, window: Region) -> tuple[int, int, int, int] | None:
    """Return the tight box x, y, w, h of what is positive of `values`, `[H, W]`, in `window`; None where none is."""
    y0, x0, y1, x1 = window
    part = above(values[y0:y1, x0:x1])
    rows, columns = (part.sum(axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        return None
    return (x0 + columns[0], y0 + rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)


def target_state(area: int, result: StepResult) -> State:
    """Say what state a target with a mask of `area` pixels is in."""
    if area == 0:
        return "mask_lost" if result.localised else "lost"
    return "tracked" if result.localised and not result.mask_too_small else "uncertain"


def tracked_frame(
    mask: Tensor,
    probabilities: Tensor | None,
    result: StepResult,
    box: Box | None,
    *,
    state: State | None = None,
) -> TrackedFrame:
    """Read a mask, `[H, W] bool`, back and say what state the target is in.

    `probabilities`, `[H, W] float32`, give the confidence; None means a prompt, which is certain.
    """
    y0, x0, y1, x1 = result.region
    read = mask.cpu().numpy()
    area = int(np.count_nonzero(read[y0:y1, x0:x1]))
    confidence: float | None = 1.0
    if probabilities is not None:
        inside = mask[y0:y1, x0:x1].view(torch.uint8).to(probabilities.dtype)  # bool itself is slow to cast
        confidence = float((probabilities[y0:y1, x0:x1] * inside).sum()) / area if area else None
    if state is None:
        state = target_state(area, result)
    return TrackedFrame(
        mask=read,
        region=result.region,
        box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        area=area,
        score=None if state == "prompt" else result.score,
        confidence=confidence if area else None,
        state=state,
        signals=None if state == "prompt" else result.signals,
    )
