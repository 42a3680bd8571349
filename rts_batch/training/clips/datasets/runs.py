"""The masks of this pipeline's own runs, filtered by score and state: pseudo-labels for the next model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rts_batch.errors import ResultsError, TrainingError
from rts_batch.io.storage import files, uris
from rts_batch.io.video.opening import FrameRange, open_video
from rts_batch.manifest import Target, read_manifest
from rts_batch.masks import Box
from rts_batch.runs.paths import RunPaths
from rts_batch.runs.reading import read_masks
from rts_batch.runs.video_masks import VideoMasks
from rts_batch.training.clips.datasets.base import MINIMUM_VISIBLE_PIXELS, AnnotatedFrame, Memory, annotated


@dataclass(frozen=True)
class MaskFilter:
    """Which rows of a run are good enough to train on."""

    states: tuple[str, ...] | None = ("prompt", "tracked")
    """None keeps every state with a mask."""
    minimum_score: float | None = None
    """Of the target's score map; prompts have none and pass."""
    minimum_confidence: float | None = None
    """Mean probability inside the mask."""
    minimum_quality: float | None = None
    """Expected IoU; prompts have none and pass, what has no estimate does not."""
    minimum_area: int = MINIMUM_VISIBLE_PIXELS + 1

    def keeps(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return for each row whether it passes."""
        kept: NDArray[np.bool_] = rows["area"].to_numpy() >= self.minimum_area
        if self.states is not None:
            states = rows["state"].cast(pa.string()).to_pylist()
            kept &= np.array([state in self.states for state in states], dtype=bool)
        for column, minimum in (("score", self.minimum_score), ("confidence", self.minimum_confidence)):
            if minimum is not None:
                values = rows[column].to_numpy(zero_copy_only=False).astype(np.float64)
                kept &= np.isnan(values) | (values >= minimum)
        if self.minimum_quality is not None:
            prompts = np.array([state == "prompt" for state in rows["state"].cast(pa.string()).to_pylist()], dtype=bool)
            kept &= prompts | (rows["quality"].to_numpy() >= self.minimum_quality)
        return kept


@dataclass(frozen=True)
class _Target:
    video_id: str
    uri: str
    key: str
    object_id: int
    boxes: Mapping[int, Box]
    """By frame, those that the manifest gives."""


class RunMasks:
    """The finished videos of a run, one sequence a target. A frame's place is its index in the video.

    Args:
        folder: of the run, or one that `rts-batch compact` wrote; path or URI.
        keep: the rows to use.
        boxes: `mask`: the tight box of the mask; `prompt`: the box that the manifest gives on that frame, and only
            frames that have one (for runs made with `prompt_kind=annotate` from annotated boxes).

    Raises:
        TrainingError: no video of the run is finished.
        ManifestError, StorageError: the folder cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: MaskFilter = MaskFilter(),
        boxes: Literal["mask", "prompt"] = "mask",
    ) -> None:
        self.folder, self.keep, self.name = str(folder), keep, "run"
        self._boxes = boxes
        self._usable: Memory[NDArray[np.bool_]] = Memory()
        tasks = read_manifest(RunPaths(self.folder).manifest).tasks
        nothing = TrainingError(f"{folder}: none of the {len(tasks)} videos of this run is finished")
        try:
            self._masks = read_masks(self.folder)
        except ResultsError as error:
            raise nothing from error
        self.targets = [
            _Target(task.video_id, task.uri, task.key, target.object_id, _boxes_of(target))
            for task in tasks
            if task.key in self._masks.keys
            for target in task.targets
        ]
        if not self.targets:
            raise nothing

    def __len__(self) -> int:
        return len(self.targets)

    def label(self, index: int) -> str:
        target = self.targets[index]
        return f"{self.name}: video {target.video_id}, object {target.object_id}"

    def find(self, video_id: str) -> int:
        """Return the sequence of the first target of a video; raise `TrainingError` where the run has none."""
        index = self._by_video.get(video_id)
        if index is None:
            raise TrainingError(f"{self.folder} has no finished video {video_id!r}")
        return index

    def visible(self, index: int) -> NDArray[np.bool_]:
        return self._usable.get(index, lambda: self._read_usable(index))

    def read(self, index: int, frames: Sequence[int]) -> list[AnnotatedFrame]:
        target = self.targets[index]
        images = read_video_frames(target.uri, frames)
        masks = self.masks(index, frames)
        boxes = target.boxes if self._boxes == "prompt" else {}
        return [
            annotated(images[frame], mask, boxes.get(frame), f"{self.label(index)}, frame {frame}")
            for frame, mask in zip(frames, masks, strict=True)
        ]

    def masks(self, index: int, frames: Sequence[int]) -> list[NDArray[np.bool_]]:
        """Return masks `[H, W]` of a target, without filter.

        Raises:
            TrainingError: a frame has no row, or the masks file cannot be read.
        """
        with self._open(index) as video:
            rows = {row.frame: row for row in video.rows_at(frames, [self.targets[index].object_id])}
            missing = sorted(set(frames) - rows.keys())
            if missing:
                raise TrainingError(f"{self.label(index)}: no mask on frame {missing[0]}")
            masks = {frame: row.mask() for frame, row in rows.items()}
        return [masks[frame] for frame in frames]

    @contextlib.contextmanager
    def _open(self, index: int) -> Iterator[VideoMasks]:
        try:
            with contextlib.closing(self._masks.of_task(self.targets[index].key)) as video:
                yield video
        except ResultsError as error:  # what is wrong with one sequence is stepped over
            raise TrainingError(f"{self.label(index)}: its masks cannot be read ({error})") from error

    @cached_property
    def _by_video(self) -> dict[str, int]:
        return {target.video_id: index for index, target in reversed(list(enumerate(self.targets)))}

    def _read_usable(self, index: int) -> NDArray[np.bool_]:
        target = self.targets[index]
        with self._open(index) as video:
            rows = video.table(target.object_id, ["frame", "area", "state", "score", "confidence", "quality"])
        frames = rows["frame"].to_numpy()
        usable = np.zeros(int(frames.max(initial=-1)) + 1, dtype=bool)
        usable[frames] = self.keep.keeps(rows)
        if self._boxes == "prompt":
            usable &= np.isin(np.arange(len(usable)), list(target.boxes))
        return usable


def _boxes_of(target: Target) -> dict[int, Box]:
    return {
        prompt.frame: prompt.box for prompt in target.prompts if prompt.box is not None and prompt.frame is not None
    }


def read_video_frames(uri: str, frames: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Decode a video from the first to the last of `frames`: by index, `[H, W, 3] uint8` RGB.

    A remote one is fetched for the call.

    Raises:
        VideoError, StorageError: it cannot be read.
        TrainingError: it ends earlier.
    """
    wanted = set(frames)
    with tempfile.TemporaryDirectory() as spool:
        path = files.fetch(uri, spool)
        with open_video(str(path), FrameRange(min(wanted), max(wanted) + 1)) as source:
            found = {frame.index: frame.image for frame in source if frame.index in wanted}
    if len(found) < len(wanted):
        raise TrainingError(f"{uris.safe_uri(uri)} has no frame {min(wanted - set(found))}")
    return found
