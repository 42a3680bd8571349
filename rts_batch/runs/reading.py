"""The masks of a run for programs: video by video or frame by frame, decoded to arrays, in bounded memory.

::

    import rts_batch

    for video in rts_batch.read_masks("out"):
        for frame in video.frames():
            for object_id, mask in frame.masks().items():   # bool [H, W]
                ...

It reads a run's folder and one that `rts-batch compact` wrote, on disk or in an object store, and needs neither
PyTorch nor Ray.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Generator, Iterable, Iterator
from functools import cached_property

import pyarrow as pa

from rts_batch.errors import ResultsError
from rts_batch.io.results.file import MasksFile, VideoEntry, video_entries
from rts_batch.io.storage import files
from rts_batch.runs.paths import RunPaths
from rts_batch.runs.sources import VideoSources
from rts_batch.runs.video_masks import VideoMasks, listed


class Masks:
    """The masks of a run, of which any part may be finished. Iterating gives one `VideoMasks` after another."""

    def __init__(self, run_folder: str) -> None:
        self.folder = run_folder
        self.sources = VideoSources(run_folder)
        """Where the videos are."""
        self._paths = RunPaths(run_folder)
        self.files = tuple(map(self._paths.masks_file, self._paths.finished()))
        if not self.files:
            raise ResultsError(
                f"{self._paths.masks} holds no masks: no video is finished, or {run_folder} is not a run's folder"
            )

    def __iter__(self) -> Iterator[VideoMasks]:
        return self.videos()

    def videos(
        self, video_ids: Iterable[str] | None = None, *, files: Collection[str] | None = None
    ) -> Iterator[VideoMasks]:
        """The finished videos in order of their files, all of them or some; of `files`, where they are given, alone.

        Raises:
            ResultsError: a file that is no masks file, where some are asked for only if one of them is in no other
                file; or, after the last video, an id that the run does not have.
        """
        wanted = listed("video_ids", video_ids)
        left = None if wanted is None else set(wanted)
        damaged: list[ResultsError] = []
        for uri in self.files if files is None else [uri for uri in self.files if uri in files]:
            passing_over = contextlib.nullcontext() if left is None else _kept(damaged)
            with passing_over, contextlib.closing(self.of_file(uri)) as found:
                for video in found:
                    if left is None or video.video_id in left:
                        yield video
                        if left is not None:
                            left.remove(video.video_id)
            if left is not None and not left:
                return
        if left and damaged:
            raise damaged[0]
        if left:
            names = ", ".join(repr(name) for name in sorted(left)[:5])
            raise ResultsError(f"{self.folder} has no finished video {names}; `rts-batch show` lists those it has")

    def of_file(self, uri: str) -> Generator[VideoMasks]:
        """Yield the videos of one of `files`, which is closed after the last of them.

        Raises:
            ResultsError: it is no masks file.
        """
        file = MasksFile(uri)
        try:
            for entry in video_entries(file, self._paths.index(uri)):
                yield VideoMasks(file, entry, self.sources)
        finally:
            file.close()

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of the finished videos (`VideoTask.key`). Of a run's own folder, no file is opened for that."""
        return frozenset(self._merged if self._merged is not None else self._paths.finished())

    def of_task(self, key: str) -> VideoMasks:
        """Return the video of one of `keys`; no other one's file is looked at.

        Raises:
            ResultsError: a file that is no masks file.
        """
        if self._merged is not None:
            uri, entry = self._merged[key]
            return VideoMasks(MasksFile(uri), entry, self.sources)
        file = MasksFile(self._paths.masks_file(key))
        (entry,) = video_entries(file, "")
        return VideoMasks(file, entry, self.sources)

    @cached_property
    def _merged(self) -> dict[str, tuple[str, VideoEntry]] | None:
        """Of a folder that `rts-batch compact` wrote, each video's file and place in it by key; None of a run's own."""
        if not files.exists(self._paths.index(self.files[0])):
            return None
        return {video.entry.task.get("key", ""): (video.file, video.entry) for video in self}

    def video(self, video_id: str) -> VideoMasks:
        """One video.

        Raises:
            ResultsError: the run has no finished video of this id.
        """
        (found,) = self.videos([video_id])
        return found

    def table(
        self,
        *,
        video_ids: Iterable[str] | None = None,
        object_ids: Iterable[int] | None = None,
        columns: Iterable[str] | None = None,
    ) -> pa.Table:
        """Return the rows of all finished videos and targets, or of some, in memory.

        Args:
            columns: None takes all; carried columns that only some of the files have are null in the others.

        Raises:
            ResultsError: the run has no such video, or one of its files no such column.
        """
        object_ids, columns = listed("object_ids", object_ids), listed("columns", columns)
        parts = [MasksFile(self.files[0]).table(0, 0, columns)]
        for video in self.videos(video_ids):
            if object_ids is None:
                parts += video.tables(columns)
            else:
                parts += [video.table(object_id, columns) for object_id in video.targets if object_id in object_ids]
        return pa.concat_tables(parts, promote_options="default")


@contextlib.contextmanager
def _kept(errors: list[ResultsError]) -> Iterator[None]:
    """Go on after a masks file that cannot be opened."""
    try:
        yield
    except ResultsError as error:
        errors.append(error)


def read_masks(run_folder: str | os.PathLike[str]) -> Masks:
    """Open the masks of a run's folder, or of one that `rts-batch compact` wrote; path or URI.

    Raises:
        ResultsError: there are none.
        StorageError: the folder cannot be listed.
    """
    return Masks(os.fspath(run_folder))
