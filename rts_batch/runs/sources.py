"""The videos that a run tracked, opened again to be looked at."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rts_batch.errors import ResultsError, StorageError, VideoError
from rts_batch.io.storage import files, uris
from rts_batch.io.storage.parquet import read_parquet
from rts_batch.io.video.opening import FrameRange, FrameSource, VideoInfo, open_video
from rts_batch.manifest.formats import FOLDER_KEY
from rts_batch.runs.paths import RunPaths


class VideoSources:
    """Where the videos of a run's manifest are. The manifest is read when the first video is asked for."""

    def __init__(self, run_folder: str) -> None:
        self._folder = run_folder

    def uri(self, video_id: str) -> str | None:
        """Path or URI of a video; None where the run has no manifest or the manifest no such video."""
        if self._manifest is None:
            return None
        place = pc.index(self._manifest["video_id"], video_id).as_py()
        if place < 0:
            return None
        folder = (self._manifest.schema.metadata or {}).get(FOLDER_KEY)
        return uris.resolve(self._manifest["video"][place].as_py(), folder.decode() if folder else self._folder)

    @property
    def total(self) -> int | None:
        """Videos in the manifest; None where the run has none."""
        return None if self._manifest is None else pc.count_distinct(self._manifest["video_id"]).as_py()

    def targets(self) -> list[tuple[str, int, str | None]] | None:
        """video_id, object_id and category of each row of the manifest, in its order; None where the run has none."""
        uri = RunPaths(self._folder).manifest
        if not files.exists(uri):
            return None
        table = _read(uri, ["video_id", "object_id", "category"])
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def fetch(self, video_id: str, folder: str) -> Path:
        """A video as a local file, in `folder` where it is not one already. Raises StorageError."""
        uri = self.uri(video_id)
        if uri is None:
            raise StorageError(f"the run's manifest does not say where video {video_id!r} is")
        return files.fetch(uri, folder)

    @contextlib.contextmanager
    def open(self, video_id: str, size: tuple[int, int], *, start: int, end: int) -> Iterator[FrameSource]:
        """The frames from `start` to `end` (exclusive) of a video; a remote one is on local disk meanwhile.

        Args:
            video_id: the video.
            size: height and width of its masks in pixels.
            start: the first frame.
            end: the frame after the last.

        Raises:
            StorageError: it cannot be reached.
            VideoError: it cannot be read, or is not the one that was tracked.
        """
        with (
            tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch,
            open_video(str(self.fetch(video_id, scratch)), FrameRange(start, end)) as source,
        ):
            if (source.info.height, source.info.width) != size:
                raise other_size(video_id, source.info, size)
            yield source

    @cached_property
    def _manifest(self) -> pa.Table | None:
        uri = RunPaths(self._folder).manifest
        return _read(uri, ["video_id", "video"]) if files.exists(uri) else None


def other_size(video_id: str, found: VideoInfo, size: tuple[int, int]) -> VideoError:
    """Return the error of a video whose masks, of this height and width, are not of its frames' size."""
    return VideoError(
        f"the source of {video_id!r} has frames of {found.width}×{found.height} pixels, its masks {size[1]}×{size[0]}; "
        "it has changed since it was tracked"
    )


def _read(uri: str, columns: list[str]) -> pa.Table:
    try:
        return read_parquet(uri, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(f"{uri} cannot be read: {error}") from error
