"""The masks of one video of a run: target by target or frame by frame, in bounded memory."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rts_batch.errors import ResultsError, UsageError
from rts_batch.io.results.file import MasksFile, VideoEntry
from rts_batch.io.results.schema import RESULT_COLUMNS, Row
from rts_batch.manifest.target_names import OBJECT_NAME, label_of
from rts_batch.runs.sources import VideoSources

ROWS_IN_MEMORY: Final = 20_000
"""Rows that `VideoMasks.frames` holds at most, roughly 20 to 50 MB."""


_Item = TypeVar("_Item")


def listed(what: str, items: Iterable[_Item] | None) -> list[_Item] | None:
    """Return what is asked for as a list, None being all; raises UsageError on one name or number in its place."""
    if items is None:
        return None
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise UsageError(f"{what} is {items!r}; expected several in a list, {[items]!r} say")
    return list(items)


@dataclass(frozen=True)
class Target:
    """One target of a video; its rows are `rows` of the video from `first_row` on.

    They are one for each frame; of rows that only annotate, one for each frame with a prompt.
    """

    object_id: int
    category: str | None
    first_frame: int
    first_row: int
    rows: int
    name: str | None = None
    """Where the manifest names its targets; see `label`."""

    @property
    def label(self) -> str:
        """The name or, without one, the number."""
        return label_of(self.object_id, self.name)


@dataclass(frozen=True)
class FrameMasks:
    """All targets on one frame of a video."""

    index: int
    """Counted from the video's first frame."""
    rows: tuple[Row, ...]
    """In order of object_id; targets whose first prompt is on a later frame have none."""

    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """Each target's mask, bool [H, W], by object_id; all False where the target is lost.

        What may have been drawn there all the same, which lies elsewhere, is in `rows`.
        """
        return {
            row.object_id: np.zeros((row.height, row.width), np.bool_) if row.state == "lost" else row.mask()
            for row in self.rows
        }


class VideoMasks:
    """The masks of one finished video. Nothing is read before it is asked for."""

    def __init__(self, file: MasksFile, entry: VideoEntry, sources: VideoSources) -> None:
        self._file = file
        self.entry = entry
        """Everything that the file's metadata says of the video."""
        self._sources = sources
        self.file = file.uri
        self.video_id = entry.video_id
        self.key: str | None = entry.task.get("key")
        self.rows_total = entry.rows
        self.frames_total = entry.frames
        """The index after the video's last frame."""
        self.fps = entry.fps
        self.duration = entry.duration
        self.weights = entry.weights
        self.profile = entry.profile

    @property
    def quality(self) -> dict[str, Any] | None:
        """Which map estimated the quality, what it was fitted on, its threshold; None where the file does not say."""
        text = self._file.metadata.get("quality")
        return None if text is None else dict(json.loads(text))

    @property
    def uri(self) -> str | None:
        """Where the video is, path or URI; None where the folder's manifest does not say."""
        return self._sources.uri(self.video_id)

    @property
    def schema(self) -> pa.Schema:
        """Of `tables`, the manifest's carried columns included."""
        return self._file.schema

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels; 0, 0 without rows."""
        for table in self.tables(["height", "width"]):
            return table["height"][0].as_py(), table["width"][0].as_py()
        return 0, 0

    @cached_property
    def targets(self) -> dict[int, Target]:
        """The video's targets by object_id, in the order of the rows.

        Raises:
            ResultsError: the rows are not sorted by object and frame, so the file is not as a run wrote it.
        """
        found: dict[int, Target] = {}
        row = 0
        named = [OBJECT_NAME] if OBJECT_NAME in self.schema.names else []
        for table in self.tables(["object_id", "frame", "category", *named]):
            ids = table["object_id"].to_numpy()
            starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
            for start, stop in itertools.pairwise([*starts.tolist(), len(ids)]):
                object_id = int(ids[start])
                known = found.get(object_id)
                if known is None:
                    category, frame = (table[name][start].as_py() for name in ("category", "frame"))
                    name = table[OBJECT_NAME][start].as_py() if named else None
                    known = Target(object_id, category, frame, row + start, 0, None if name is None else str(name))
                elif known.first_row + known.rows != row + start:
                    raise ResultsError(
                        f"{self.file}: the rows of object {object_id} are not together; it was rewritten"
                    )
                found[object_id] = replace(known, rows=known.rows + stop - start)
            row += len(ids)
        return found

    def tables(self, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
        """The rows as Arrow tables of bounded size, sorted by object and frame."""
        columns = listed("columns", columns)
        first = self.entry.first_row
        return self._file.tables(first, first + self.entry.rows, columns)

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[Target, pa.Table]]:
        """Yield the rows as tables of one target each, of bounded size; a target's tables come one after another."""
        targets = iter(self.targets.values())
        left = 0
        for table in self.tables(columns):
            row = 0
            while row < table.num_rows:
                if not left:
                    target = next(targets)
                    left = target.rows
                piece = table.slice(row, left)
                yield target, piece
                row, left = row + piece.num_rows, left - piece.num_rows

    def table(self, object_id: int, columns: Iterable[str] | None = None) -> pa.Table:
        """All rows of one target in memory, sorted by frame; none where the video does not have it."""
        columns = listed("columns", columns)
        target = self.targets.get(object_id)
        first = self.entry.first_row + (target.first_row if target else 0)
        return self._file.table(first, first + (target.rows if target else 0), columns)

    def rows(self, object_ids: Iterable[int] | None = None) -> Iterator[Row]:
        """The rows sorted by object and frame, of all targets or of some."""
        object_ids = listed("object_ids", object_ids)
        if object_ids is None:
            yield from self._rows(0, self.entry.rows)
            return
        for target in self.targets.values():
            if target.object_id in object_ids:
                yield from self._rows(target.first_row, target.first_row + target.rows)

    def frames(self, object_ids: Iterable[int] | None = None) -> Iterator[FrameMasks]:
        """The frames in order, each with its targets: those from the first prompt on, to the video's end."""
        object_ids = listed("object_ids", object_ids)
        chosen = [target for target in self.targets.values() if object_ids is None or target.object_id in object_ids]
        place = attrgetter("frame", "object_id")
        ordered: Iterator[Row]
        if sum(target.rows for target in chosen) <= ROWS_IN_MEMORY:
            ordered = iter(sorted(self.rows(object_ids), key=place))
        else:
            at_once = max(50, ROWS_IN_MEMORY // len(chosen))
            ordered = heapq.merge(*(self._in_pieces(target, at_once) for target in chosen), key=place)
        for index, rows in itertools.groupby(ordered, key=attrgetter("frame")):
            yield FrameMasks(index, tuple(rows))

    def rows_at(self, frames: Collection[int], object_ids: Collection[int] | None = None) -> Iterator[Row]:
        """Yield the rows on some frames, sorted by object and frame, of all targets or of some.

        Of a row group that holds none of them, only the frames are read.
        """
        first = 0
        for table in self.tables(["object_id", "frame"]):
            chosen = np.isin(table["frame"].to_numpy(), list(frames))
            if object_ids is not None:
                chosen &= np.isin(table["object_id"].to_numpy(), list(object_ids))
            for row in (first + np.flatnonzero(chosen)).tolist():
                yield from self._rows(row, row + 1)
            first += table.num_rows

    def close(self) -> None:
        """Close the file, which opens itself again when it is read."""
        self._file.close()

    def _in_pieces(self, target: Target, at_once: int) -> Iterator[Row]:
        """One target's rows; of a row group no more than `at_once` rows outlive the reading of it."""
        stop = target.first_row + target.rows
        for first in range(target.first_row, stop, at_once):
            yield from list(self._rows(first, min(first + at_once, stop)))

    def _rows(self, first: int, stop: int) -> Iterator[Row]:
        offset = self.entry.first_row
        for table in self._file.tables(offset + first, offset + stop, RESULT_COLUMNS):
            columns = [table[name].to_pylist() for name in RESULT_COLUMNS]
            yield from map(Row._make, zip(*columns, strict=True))
            del columns, table  # or two row groups would be in memory while the next one is read
