"""The masks table: one Parquet file for each video, written whole, the same bytes for the same rows.

Rows arrive frame by frame, the table is sorted by object and then frame. So rows are spooled to an unlinked file as
Arrow batches of one object each, and `close` reads them back object by object: memory stays bounded however long
the video is, and neither the spool's batches nor an interruption shows in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.errors import ResultsError, StorageError
from rts_batch.io.results.reading import open_masks, read_masks, read_metadata
from rts_batch.io.results.schema import EXTRA_TYPES, RESULT_COLUMNS, SCHEMA_VERSION, masks_schema
from rts_batch.masks import STATES, Box, State
from rts_batch.version import __version__

__all__ = [
    "EXTRA_TYPES",
    "RESULT_COLUMNS",
    "ResultsSummary",
    "ResultsWriter",
    "masks_schema",
    "open_masks",
    "read_masks",
    "read_metadata",
]

ROW_GROUP_ROWS: Final = 1000
"""Small enough to read a minute of one target without the rest; smaller ones compress worse."""

SPOOL_BYTES: Final = 8 << 20
"""Rows held in memory, roughly, before they are written to the spool."""

_PER_ROW: Final = ("object_id", "frame", "time", "rle", "x", "y", "w", "h", "area", "score", "confidence", "state")

VARIED_COLUMNS: Final = ("frame", "time", "rle", "x", "y", "w", "h", "area", "score", "confidence")
"""Columns whose values hardly repeat, for which a dictionary would be a waste."""


@dataclass(frozen=True)
class ResultsSummary:
    """What a finished masks file holds."""

    rows: int
    objects: int
    frames: int
    """Frames of the video that at least one target covers."""
    bytes: int
    sha256: str
    states: dict[str, int]
    """Rows in each state; those that do not occur are absent."""


Covers = Literal["forward", "backward", "both", "prompts"]
"""The frames on which each target has a row: from a prompt to the video's end, from its start to a prompt, all of them,
or those of prompts alone."""


@dataclass
class _Strand:
    """Rows of one target that came one after another in one direction."""

    pending: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _PER_ROW})
    spooled: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each batch in the spool."""


@dataclass
class _Object:
    """What is known of one target while its rows arrive."""

    category: str | None
    extras: Mapping[str, Any]
    first: int | None = None
    last: int | None = None
    rows: int = 0
    upward: _Strand = field(default_factory=_Strand)
    downward: _Strand = field(default_factory=_Strand)
    """Came last first; its frames all lie before the others."""


class ResultsWriter:
    """Writes the masks table of one video to a local path.

    ::

        with ResultsWriter(path, video_id="a", height=480, width=854, targets={1: ("cat", {})}) as writer:
            writer.add(1, frame=0, time=0.0, rle=b"…", box=(1, 2, 3, 4), area=12, score=None, confidence=0.9,
                       state="prompt")
            summary = writer.close(frames=1)

    Leaving the block without `close` (an exception, say) leaves no file behind.

    Args:
        path: where the file goes; it exists after `close` only.
        video_id: the task's id.
        height: of the frames and masks, in pixels.
        width: of the frames and masks, in pixels.
        targets: for each object id its category and the values of its carried columns.
        extras: the carried columns, name to type (`int64`, `float64`, `bool` or `string`).
        task: the manifest's fields of this video, for the file's metadata.
        weights: fingerprint of the weights.
        profile: the precision profile that the masks were computed with.
        covers: on which frames each target has a row.
        start: of the video, where `covers` reaches down to it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        video_id: str,
        height: int,
        width: int,
        targets: Mapping[int, tuple[str | None, Mapping[str, Any]]],
        extras: Mapping[str, str] | None = None,
        task: Mapping[str, Any] | None = None,
        weights: str = "",
        profile: str = "",
        covers: Covers = "forward",
        start: int = 0,
    ) -> None:
        self.path = Path(path)
        self.rows = 0
        self._covers = covers
        self._start = start
        self._constants = {"video_id": video_id, "height": height, "width": width}
        self._schema = masks_schema(extras)
        self._spool_schema = pa.schema(
            [pa.field("state", pa.int8()) if name == "state" else self._schema.field(name) for name in _PER_ROW]
        )
        self._objects = {key: _Object(category, values) for key, (category, values) in sorted(targets.items())}
        self._states: Counter[str] = Counter()
        self._pending_bytes = 0
        self._metadata = {
            "schema_version": SCHEMA_VERSION,
            "package_version": __version__,
            "task": json.dumps(dict(task or {}), sort_keys=True, ensure_ascii=False),
            "weights": weights,
            "profile": profile,
        }
        if not targets:
            raise ResultsError(f"{self.path}: a video without a target has no masks table")
        with self._disk_errors():
            # Without a name from the start, so that not even a killed process leaves it behind.
            self._spool = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def add(
        self,
        object_id: int,
        *,
        frame: int,
        time: float | None,
        rle: bytes,
        box: Box | None,
        area: int,
        score: float | None,
        confidence: float | None,
        state: State,
    ) -> None:
        """Adds one target on one frame.

        A target's frames come one after another without a gap, upwards from its first row and downwards from it; where
        the table covers prompts alone, upwards with gaps. Different targets may be mixed in any way.

        Raises:
            ResultsError: a target that was not announced, a frame out of turn, or a state that does not exist.
        """
        target = self._objects.get(object_id)
        if target is None:
            raise ResultsError(f"object {object_id} is no target of this video")
        downward = self._covers in ("backward", "both") and target.first is not None and frame == target.first - 1
        if frame < 0 or not (downward or self._follows(frame, target.last)):
            due = 0 if target.last is None else target.last + 1
            raise ResultsError(f"object {object_id}: frame {frame} came where frame {due} was due")
        if state not in STATES:
            raise ResultsError(f"object {object_id}, frame {frame}: {state!r} is not one of {', '.join(STATES)}")
        x, y, w, h = box or (None, None, None, None)
        values = (object_id, frame, time, rle, x, y, w, h, area, score, confidence, STATES.index(state))
        strand = target.downward if downward else target.upward
        for name, value in zip(_PER_ROW, values, strict=True):
            strand.pending[name].append(value)
        if target.first is None or downward:
            target.first = frame
        if not downward:
            target.last = frame
        target.rows += 1
        self.rows += 1
        self._states[state] += 1
        self._pending_bytes += len(rle) + 600
        if self._pending_bytes > SPOOL_BYTES:
            self._flush()

    def close(self, *, frames: int, fps: float | None = None, duration: float | None = None) -> ResultsSummary:
        """Writes the file, reads its footer back and checks it.

        Args:
            frames: the video's length as decoded (the index after its last frame); every target has rows up to there.
            fps: average frames per second, for the metadata.
            duration: of the video in seconds, for the metadata.

        Raises:
            ResultsError: a target without rows or whose rows stop early, or a file that is not as long as it should be.
        """
        for object_id, target in self._objects.items():
            if target.first is None:
                raise ResultsError(f"object {object_id} has rows up to no frame; the video ends with {frames - 1}")
            if self._covers in ("forward", "both") and target.last != frames - 1:
                raise ResultsError(
                    f"object {object_id} has rows up to frame {target.last}; the video ends with {frames - 1}"
                )
            if self._covers in ("backward", "both") and target.first != self._start:
                raise ResultsError(
                    f"object {object_id} has rows from frame {target.first} on; the video starts with {self._start}"
                )
        self._metadata |= {"frames": str(frames), "fps": json.dumps(fps), "duration": json.dumps(duration)}
        self._flush()
        try:
            with self._disk_errors():
                self._write()
                written = pq.read_metadata(self.path).num_rows
            if written != self.rows:
                raise ResultsError(f"{self.path} holds {written} rows instead of {self.rows}")
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            self._spool.close()
        return ResultsSummary(
            rows=self.rows,
            objects=len(self._objects),
            frames=max(target.rows for target in self._objects.values()),
            bytes=self.path.stat().st_size,
            sha256=hashlib.sha256(self.path.read_bytes()).hexdigest(),
            states={state: self._states[state] for state in STATES if self._states[state]},
        )

    def _flush(self) -> None:
        """Moves the pending rows to the spool, one batch for each object that has any."""
        for strand in (strand for target in self._objects.values() for strand in (target.downward, target.upward)):
            if strand.pending["frame"]:
                batch = pa.RecordBatch.from_pydict(strand.pending, schema=self._spool_schema)
                data = batch.serialize()
                with self._disk_errors():
                    strand.spooled.append((self._spool.tell(), data.size))
                    self._spool.write(data)
                for values in strand.pending.values():
                    values.clear()
        self._pending_bytes = 0

    def _follows(self, frame: int, last: int | None) -> bool:
        if last is None:
            return True
        return frame > last if self._covers == "prompts" else frame == last + 1

    def _write(self) -> None:
        metadata = {f"rts_batch.{key}": value for key, value in self._metadata.items()}
        schema = self._schema.with_metadata(metadata)
        with pq.ParquetWriter(
            self.path,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=[name for name in schema.names if name not in VARIED_COLUMNS],
            write_statistics=[name for name in schema.names if name != "rle"],
        ) as writer:
            for table in self._row_groups(schema):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)

    def _row_groups(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """The whole table in order, cut into row groups that do not depend on how the rows were spooled."""
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for target in self._objects.values():
            for batch in self._batches(target):
                waiting.append(self._complete(batch, target, schema))
                rows += batch.num_rows
                while rows >= ROW_GROUP_ROWS:
                    table = pa.Table.from_batches(waiting, schema)
                    yield table.slice(0, ROW_GROUP_ROWS).combine_chunks()
                    waiting = table.slice(ROW_GROUP_ROWS).to_batches()
                    rows -= ROW_GROUP_ROWS
        if rows:
            yield pa.Table.from_batches(waiting, schema).combine_chunks()

    def _batches(self, target: _Object) -> Iterator[pa.RecordBatch]:
        """A target's rows in the order of the frames, as they were spooled."""
        for place in reversed(target.downward.spooled):
            batch = self._read_batch(*place)
            yield batch.take(pa.array(range(batch.num_rows - 1, -1, -1)))
        for place in target.upward.spooled:
            yield self._read_batch(*place)

    def _read_batch(self, offset: int, size: int) -> pa.RecordBatch:
        self._spool.seek(offset)
        return pa.ipc.read_record_batch(pa.py_buffer(self._spool.read(size)), self._spool_schema)

    def _complete(self, batch: pa.RecordBatch, target: _Object, schema: pa.Schema) -> pa.RecordBatch:
        """Adds the columns that are the same on all rows of a target."""
        constants = {**self._constants, "category": target.category, **target.extras}
        columns: dict[str, pa.Array] = dict(zip(_PER_ROW, batch.columns, strict=True))
        # The whole dictionary each time, so that the file does not depend on which state came first.
        columns["state"] = pa.DictionaryArray.from_arrays(columns["state"], pa.array(STATES))
        for column in schema:
            if column.name not in columns:
                columns[column.name] = pa.repeat(pa.scalar(constants.get(column.name), column.type), batch.num_rows)
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error}", transient=True) from error
