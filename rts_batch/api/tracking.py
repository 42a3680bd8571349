"""Tracking in Python, without Ray: `load` a tracker, `track` a video, take each frame's masks.

::

    import rts_batch

    tracker = rts_batch.load("rts-mini")
    for frame in rts_batch.track("clip.mp4", box=(236, 72, 94, 130), tracker=tracker):
        print(frame.index, frame.masks[1].sum())
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rts_batch.api.prompts import (
    BoxNumbers,
    Given,
    Polygon,
    Prompt,
    box_of,
    check,
    check_found,
    check_frames,
    marking_on,
    read_prompts,
    whole,
)
from rts_batch.config import Overlap, ProfileChoice
from rts_batch.errors import PromptError, UsageError
from rts_batch.io.video.frames import FrameRange
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.spool import bring
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.runs.settings import DeviceName, RunSettings
from rts_batch.tracking.scene import Scene
from rts_batch.worker.overlaps import warnings_of
from rts_batch.worker.rts import RtsFactory, RtsTracker
from rts_batch.worker.tracker import TrackerDescription

__all__ = ["Frames", "LoadedModel", "MaskedFrame", "Polygon", "Prompt", "load", "track"]

Frames = str | os.PathLike[str] | Iterable[NDArray[np.uint8] | Image.Image]
"""A path or URI of a video, of a folder or of an archive of pictures; or frames `[H, W, 3] uint8`, RGB, in order, or
Pillow's images of mode RGB."""


@dataclass(frozen=True)
class MaskedFrame:
    """A frame of a video and what has been tracked in it."""

    index: int
    """Counted from the video's first frame."""
    time: float | None
    """Presentation time in seconds; None where the frames have none."""
    image: NDArray[np.uint8]
    """`[H, W, 3]`, RGB."""
    targets: Mapping[int, TrackedFrame]
    """Object id → mask, box, state and scores."""

    @property
    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """Object id → mask, `[H, W] bool`."""
        return {object_id: target.mask for object_id, target in self.targets.items()}


class LoadedModel:
    """Weights in memory, ready for one video after another."""

    def __init__(self, tracker: RtsTracker, description: TrackerDescription) -> None:
        self._tracker = tracker
        self.fingerprint = description.fingerprint
        self.device = description.device
        self.profile = description.profile
        self.takes_boxes = description.boxes
        """Whether a prompt may be a box alone: the weights have a box-to-mask network."""

    def open(self, targets: int = 1) -> Scene:
        """Return an empty scene for one video of so many targets, to be given its frames one by one (`Scene.step`).

        It is a context manager: closed, it leaves its room on the device to others.
        """
        return self._tracker.open(targets)

    def mask_of(self, image: NDArray[np.uint8] | Image.Image, box: BoxNumbers) -> NDArray[np.bool_]:
        """Return the mask `[H, W]` of what a box marks on an image, as a frame of `track` is given; nothing is tracked.

        Raises:
            UsageError: the image is not `[H, W, 3] uint8`, RGB, or the box not four numbers.
            PromptError: it lies outside the image, or the weights make no masks of boxes.
        """
        marking, pixels = Marking(box=box_of(box)), _pixels(image, "the image")
        check(marking, pixels, "the box", boxes=self.takes_boxes)
        with self.open() as scene:
            return scene.annotate(pixels, {1: marking})[1].mask


def load(
    weights: str | os.PathLike[str] = "rts-mini",
    *,
    device: DeviceName = "auto",
    profile: ProfileChoice = "auto",
    overlap: Overlap = "merge",
) -> LoadedModel:
    """Load a tracker by name, path or URI of its weights.

    Args:
        weights: a name such as `rts-mini`, or a file of `rts-batch weights import`.
        device: `auto` takes a GPU where PyTorch finds one.
        profile: precision; `auto` is bfloat16 where the device multiplies it in hardware.
        overlap: `merge` gives each pixel to one target at most, `allow` tracks each target as if it were alone.

    Raises:
        WeightsError: the weights cannot be used.
        SettingsError: a device, profile or overlap that there is not.
        ClusterError: a device that this machine does not have.
    """
    described = RtsFactory.describe(
        RunSettings(weights=os.fspath(weights), device=device, profile=profile, overlap=overlap)
    )
    return LoadedModel(RtsFactory.load(described, threads=torch.get_num_threads()), described)


def track(
    video: Frames,
    *,
    box: BoxNumbers | None = None,
    mask: NDArray[Any] | None = None,
    polygon: Polygon | None = None,
    prompts: Mapping[int, Mapping[int, Prompt]] | None = None,
    tracker: LoadedModel | str | os.PathLike[str] = "rts-mini",
    start: int = 0,
    end: int | None = None,
) -> Iterator[MaskedFrame]:
    """Track targets through a video and yield its frames with their masks, from the first prompt on.

    Args:
        video: a path, a URI or frames; a file is decoded in a process of its own, frames are taken as they come.
        box: x, y, w, h in pixels of the only target, object 1, on frame `start`.
        mask: the same as a mask, `[H, W]`; with `box`, the mask wins and the box counts for nothing.
        polygon: the same as a polygon, see `Polygon`.
        prompts: in the place of these, frame index → object id → prompt; a later prompt corrects its target.
        tracker: what `load` has returned, or weights to load.
        start: the first frame to read, from 0 on.
        end: the one before which to stop; None is the video's end.

    Raises:
        UsageError: no prompt is given, more than may be, or one that is none or could be two things; or `start` and
            `end` leave no frame, or not a prompt's.
        PromptError: a prompt does not fit its frame, or its frame does not come.
        VideoError, StorageError: the video cannot be read.
    """
    start = whole("start", start, "frames are counted from 0")
    end = None if end is None else whole("end", end, "give the frame before which to stop, or None")
    if start < 0:
        raise UsageError(f"start is {start}; frames are counted from 0, the video's first")
    if end is not None and end <= start:
        raise UsageError(f"start {start} and end {end} leave no frame; end is the one before which to stop")
    wanted = read_prompts(box, mask, polygon, prompts, start)
    check_frames(wanted, start, end)
    model = load(tracker) if isinstance(tracker, str | os.PathLike) else tracker
    return _track(video, wanted, model, start, end)


def _track(
    video: Frames, prompts: dict[int, dict[int, Given]], model: LoadedModel, start: int, end: int | None
) -> Iterator[MaskedFrame]:
    waiting = dict(prompts)
    with model.open(len({object_id for marked in prompts.values() for object_id in marked})) as scene:
        for index, time, image in _frames(video, start, end):
            prompted = waiting.pop(index, {})
            if not prompted and not scene.trackers:
                continue
            where = {object_id: f"frame {index}, object {object_id}" for object_id in prompted}
            marked = {
                object_id: marking_on(given, image, where[object_id], boxes=model.takes_boxes)
                for object_id, given in prompted.items()
            }
            known = set(scene.trackers)
            found = _step(scene, index, image, marked)
            for text in warnings_of(scene.divided, index):
                warnings.warn(text, stacklevel=2)  # of who takes the frames
            for object_id, marking in marked.items():
                if not marking.absent:
                    check_found(found[object_id].area, where[object_id], first=object_id not in known)
            yield MaskedFrame(index, time, image, found)
    if waiting:
        raise PromptError(f"the video has no frame {min(waiting)} between {start} and its end, which a prompt marks")


def _step(scene: Scene, index: int, image: NDArray[np.uint8], marked: Mapping[int, Marking]) -> dict[int, TrackedFrame]:
    try:
        return dict(scene.step(image, marked))
    except PromptError as error:
        raise PromptError(f"frame {index}: {error}") from error


def _frames(video: Frames, start: int, end: int | None) -> Iterator[tuple[int, float | None, NDArray[np.uint8]]]:
    """Yield index, time and image of the wanted frames."""
    if isinstance(video, str | os.PathLike):
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rts-batch-"))
            near = bring(os.fspath(video), Path(folder) / "video")
            decoding = stack.enter_context(DecodingProcess())
            for frame in stack.enter_context(decoding.open(near, FrameRange(start, end), uri=os.fspath(video))):
                yield frame.index, frame.time, frame.image
        return
    try:
        numbered = enumerate(video)
    except TypeError:
        raise UsageError(
            f"the video is a {type(video).__name__}; expected a path, a URI, or frames one after another"
        ) from None
    for index, given in numbered:
        if end is not None and index >= end:
            return
        if index >= start:
            yield index, None, _pixels(given, f"frame {index}")


def _pixels(given: NDArray[np.uint8] | Image.Image, name: str) -> NDArray[np.uint8]:
    try:
        image = np.require(given, requirements="W")  # PyTorch shares the memory, and warns where it may not write
    except ValueError:  # parts of several shapes
        raise UsageError(f"{name} is a {type(given).__name__}; expected [H, W, 3] uint8, RGB") from None
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(f"{name} is {image.dtype} of shape {list(image.shape)}; expected [H, W, 3] uint8, RGB")
    return image
