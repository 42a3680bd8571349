"""What a run found, sequence by sequence, whatever files it lies in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rts_batch.errors import ResultsError
from rts_batch.masks import decode_rle
from rts_batch.runs.reading import Masks
from rts_batch.runs.video_masks import VideoMasks

_BOX: Final = ("x", "y", "w", "h")


class Predictions:
    """The masks of a run.

    Args:
        run: its folder, path or URI.

    Raises:
        ResultsError: the run has no finished video, or a file that is no masks file.
        StorageError: the folder cannot be listed.
    """

    def __init__(self, run: str) -> None:
        self._videos: dict[str, VideoMasks] = {}
        init: set[str | None] = set()
        for video in Masks(run):
            self._videos[video.video_id] = video
            for table in video.tables(["init"]) if "init" in video.schema.names else ():
                init.update(table["init"].unique().to_pylist())
        self.weights = tuple(sorted({video.weights for video in self._videos.values()} - {""}))
        """Fingerprints of the weights."""
        self.init = next(iter(init)) if len(init) == 1 else None
        """What the tracker was given, `mask` or `box`, where the manifest said so (`evaluate prepare` does)."""

    @property
    def video_ids(self) -> frozenset[str]:
        """The finished videos."""
        return frozenset(self._videos)

    def boxes(self, video_id: str, *, start: int, frames: int | None) -> NDArray[np.float64]:
        """The boxes [N, 4] of object 1, x, y, w, h in pixels; NaN where there is none.

        Args:
            video_id: a finished video.
            start: index of the first frame.
            frames: how many; None for as many as there are.

        Raises:
            ResultsError: the run has not these frames.
        """
        table = self._rows(video_id, 1, ["frame", *_BOX])
        self._check(table, video_id, 1, start, frames)
        boxes: NDArray[np.float64] = np.stack([table[name].cast(pa.float64()).to_numpy() for name in _BOX], axis=1)
        return boxes[:frames]

    def masks(
        self, video_id: str, object_id: int, *, start: int, wanted: Sequence[int]
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """The masks [H, W] of one object on the wanted frames, in order, each with its frame's index.

        Raises:
            ResultsError: the run does not cover the object from `start` to the last wanted frame.
        """
        table = self._rows(video_id, object_id, ["frame", "height", "width", "rle"])
        self._check(table, video_id, object_id, start, max(wanted, default=start) - start + 1)
        rows = table.take(pa.array([frame - start for frame in wanted], pa.int64()))
        for batch in rows.to_batches(max_chunksize=64):
            for row in batch.to_pylist():
                yield row["frame"], decode_rle(row["rle"], row["height"], row["width"])

    def _rows(self, video_id: str, object_id: int, columns: list[str]) -> pa.Table:
        video = self._videos[video_id]
        with contextlib.closing(video):  # thousands of videos are asked, one after another
            return video.table(object_id, columns)

    def _check(self, table: pa.Table, video_id: str, object_id: int, start: int, frames: int | None) -> None:
        have = table["frame"].to_numpy()
        needed = len(have) if frames is None else frames
        if len(have) < max(needed, 1) or not np.array_equal(have[:needed], np.arange(start, start + needed)):
            covered = f"{len(have)} frames from {have[0]} on" if len(have) else "no frame"
            raise ResultsError(
                f"video {video_id}, object {object_id}: the run covers {covered}, the benchmark needs {needed} from "
                f"{start} on; was the run made from this benchmark's manifest (rts-batch evaluate prepare)?"
            )
