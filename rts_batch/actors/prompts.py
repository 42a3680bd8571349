"""A video's prompts as the tracker takes them: masks read, sizes checked, each due on its own frame.

Everything that can be known without the prompt's frame is checked as soon as the video is open, so that a wrong mask
does not show after an hour of tracking.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import PromptError, ResultsError, StorageError
from rts_batch.io import storage
from rts_batch.io.video import Frame, VideoInfo
from rts_batch.manifest import Prompt, Target, VideoTask
from rts_batch.masks import Box, decode_mask_image, decode_rle

BOX_NEEDS_STA = (
    "a box needs an STA network to become a mask, and these weights have none; give a mask, or weights with an STA "
    "network (rts-batch weights import RTS --sta STA -o FILE)"
)


@dataclass(frozen=True, kw_only=True)
class ReadyPrompt:
    """A prompt that fits its video: either a mask [H, W] bool with at least one pixel, or a box in pixels."""

    mask: NDArray[np.bool_] | None = None
    box: Box | None = None


class PromptBook:
    """The prompts of one video, one for each target.

    Args:
        task: The video with its targets.
        info: The opened video.
        boxes: Whether the tracker can start from a box.

    Raises:
        PromptError: A prompt that cannot fit this video. The message names video, target, frame and remedy.
        StorageError: A mask that cannot be read.
    """

    def __init__(self, task: VideoTask, info: VideoInfo, *, boxes: bool) -> None:
        self._task = task
        self._info = info
        self._boxes = boxes
        self._waiting = {target.object_id: (target.prompts[0], self._ready(target)) for target in task.targets}
        self.warnings: list[str] = []

    @property
    def started(self) -> tuple[int, ...]:
        """Ids of the targets whose prompts have been taken out."""
        return tuple(target.object_id for target in self._task.targets if target.object_id not in self._waiting)

    def forget(self, started: Iterable[int]) -> None:
        """Takes out the prompts of targets that an earlier attempt has started."""
        for object_id in started:
            self._waiting.pop(object_id, None)

    def due(self, frame: Frame) -> dict[int, ReadyPrompt]:
        """Takes out the prompts of this frame. Where masks overlap, the lower object id keeps the pixels."""
        due = {
            object_id: ready
            for object_id, (prompt, ready) in sorted(self._waiting.items())
            if self._is_due(object_id, prompt, frame)
        }
        for object_id in due:
            del self._waiting[object_id]
        return self._without_overlap(due, frame.index)

    def check_end(self, frames: int) -> None:
        """Raises PromptError where a prompt's frame never came; `frames` is one past the last frame's index."""
        for object_id, (prompt, _) in self._waiting.items():
            raise self._error(
                object_id,
                prompt,
                f"lies past the video's end: it has {frames} frames (0 to {frames - 1})"
                + ("" if self._task.end is None else f" before `end` {self._task.end}"),
            )

    def _ready(self, target: Target) -> ReadyPrompt:
        """Reads and checks one target's prompt."""
        prompt = target.prompts[0]
        task = self._task
        if prompt.frame is not None and prompt.frame < task.start:
            raise self._error(target.object_id, prompt, f"lies before the video's `start` {task.start}")
        if prompt.frame is not None and task.end is not None and prompt.frame >= task.end:
            raise self._error(target.object_id, prompt, f"lies at or past the video's `end` {task.end}")
        if prompt.mask_uri is None and prompt.mask_rle is None:
            return ReadyPrompt(box=self._checked_box(target.object_id, prompt))
        try:
            mask = read_mask(prompt, target.object_id)
        except (PromptError, StorageError) as error:
            transient = isinstance(error, StorageError) and error.transient
            if transient:
                raise
            raise self._error(target.object_id, prompt, f"cannot be read: {error}") from error
        size, expected = mask.shape, (self._info.height, self._info.width)
        if size != expected:
            raise self._error(
                target.object_id,
                prompt,
                f"has {size[1]}×{size[0]} pixels, but the video's frames have {expected[1]}×{expected[0]}; "
                "give the mask at the video's own size",
            )
        if not mask.any():
            raise self._error(
                target.object_id,
                prompt,
                f"is empty: no pixel belongs to object {target.object_id}; mark the target, or choose another frame",
            )
        return ReadyPrompt(mask=mask)

    def _checked_box(self, object_id: int, prompt: Prompt) -> Box:
        if prompt.box is None:
            raise self._error(object_id, prompt, "has neither a mask nor a box")
        if not self._boxes:
            raise self._error(object_id, prompt, f"cannot be used: {BOX_NEEDS_STA}")
        x, y, w, h = prompt.box
        if x >= self._info.width or y >= self._info.height or x + w <= 0 or y + h <= 0:
            raise self._error(
                object_id,
                prompt,
                f"lies outside the frame: x {x:g}, y {y:g}, w {w:g}, h {h:g} in a frame of "
                f"{self._info.width}×{self._info.height} pixels; a box is x, y of its upper left corner, w, h",
            )
        return prompt.box

    def _is_due(self, object_id: int, prompt: Prompt, frame: Frame) -> bool:
        if prompt.time is None:
            return frame.index == (prompt.frame or 0)
        if frame.time is None:
            raise self._error(object_id, prompt, "gives a time, but the frames of this video have none; give `frame`")
        # The frame that is nearest in time; times written with few digits must not miss it.
        half_a_frame = 0.5 / self._info.fps if self._info.fps else 0.0
        return frame.time >= prompt.time - half_a_frame

    def _without_overlap(self, due: dict[int, ReadyPrompt], frame: int) -> dict[int, ReadyPrompt]:
        taken: NDArray[np.bool_] | None = None
        result = {}
        for object_id, ready in due.items():
            if ready.mask is not None:
                mask = ready.mask
                if taken is not None and (taken & mask).any():
                    overlap = int((taken & mask).sum())
                    mask = mask & ~taken
                    self.warnings.append(
                        f"frame {frame}: {overlap} pixels of object {object_id}'s mask belong to a lower object id too"
                    )
                    if not mask.any():
                        raise PromptError(
                            f"video {self._task.video_id}, object {object_id}, frame {frame}: the mask lies wholly "
                            "inside those of lower object ids; separate the masks"
                        )
                    ready = ReadyPrompt(mask=mask)
                taken = mask if taken is None else taken | mask
            result[object_id] = ready
        return result

    def _error(self, object_id: int, prompt: Prompt, what: str) -> PromptError:
        where = f"time {prompt.time:g} s" if prompt.time is not None else f"frame {prompt.frame or 0}"
        kind = "mask" if prompt.mask_uri is not None or prompt.mask_rle is not None else "box"
        return PromptError(f"video {self._task.video_id}, object {object_id}, {where}: the {kind} prompt {what}")


def read_mask(prompt: Prompt, object_id: int) -> NDArray[np.bool_]:
    """Returns the prompt's mask [H, W] bool, from its RLE or its image.

    Raises:
        PromptError: What is there is not a mask.
        StorageError: The image cannot be fetched.
    """
    if prompt.mask_rle is not None:
        height, width = prompt.mask_rle["size"]
        try:
            return decode_rle(prompt.mask_rle["counts"].encode(), height, width)
        except ResultsError as error:
            raise PromptError(str(error)) from error
    assert prompt.mask_uri is not None
    data = storage.read_bytes(prompt.mask_uri)
    try:
        return decode_mask_image(data, object_id)
    except PromptError as error:
        raise PromptError(f"{storage.safe_uri(prompt.mask_uri)}: {error}") from error
