"""The masks table: one Parquet file for each video, written whole, the same bytes for the same rows.

Rows arrive frame by frame, the table is sorted by object and then frame. So rows are spooled to an unlinked file as
Arrow batches of one object each, and `close` reads them back object by object: memory stays bounded however long
the video is, and neither the spool's batches nor an interruption shows in the file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rts_batch.errors import ResultsError, StorageError
from rts_batch.io.results.schema import RESULT_COLUMNS, Row, absent_rows, masks_schema, masks_writer
from rts_batch.io.results.strands import Strand, woven
from rts_batch.io.storage.digest import sha256_of
from rts_batch.masks import STATES

ROW_GROUP_ROWS: Final = 1000
"""Small enough to read a minute of one target without the rest; smaller ones compress worse."""

SPOOL_BYTES: Final = 8 << 20
"""Rows held in memory, roughly, before they are written to the spool."""


@dataclass(frozen=True)
class WrittenMasks:
    """What a finished masks file holds."""

    rows: int
    sha256: str
    states: dict[str, int]
    """Rows in each state that occurs, without those of targets that a person has said to be absent."""


Covers = Literal["forward", "backward", "both", "bidirectional", "prompts"]
"""The frames on which each target has a row: from a prompt to the video's end, from its start to a prompt, all of them
(once, or those up to the last prompt twice), or those of prompts alone."""


@dataclass
class _Object:
    """What is known of one target while its rows arrive."""

    extras: Mapping[str, Any]
    first: int | None = None
    last: int | None = None
    lowest: int | None = None
    """The last one that came downward."""
    upward: Strand = field(default_factory=Strand)
    downward: Strand = field(default_factory=lambda: Strand(downward=True))
    """Came last first; its frames all lie before the others, unless the table covers both directions."""

    @property
    def down_to(self) -> int | None:
        """The frame below which the next one that comes downward lies."""
        return self.first if self.lowest is None else self.lowest


class ResultsWriter:
    """Writes the masks table of one video to a local path.

    ::

        with ResultsWriter(path, targets={1: {"split": "train"}}, extras={"split": "string"}) as writer:
            writer.add(Row(video_id="a", object_id=1, frame=0, …))
            summary = writer.close(frames=1)

    Leaving the block without `close` (an exception, say) leaves no file behind.

    Args:
        path: where the file goes; it exists after `close` only.
        targets: for each object id the values of its carried columns.
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
        targets: Mapping[int, Mapping[str, Any]],
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
        self._schema = masks_schema(extras)
        self._objects = {object_id: _Object(values) for object_id, values in sorted(targets.items())}
        self._states: Counter[str] = Counter()
        self._pending_bytes = 0
        self._metadata = {
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

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, row: Row) -> None:
        """Add one target on one frame.

        A target's frames come one after another without a gap, upwards from its first row and downwards from it; where
        the table covers prompts alone, upwards with gaps; where it is bidirectional, downwards from any frame that is
        there already. Different targets may be mixed in any way.

        Raises:
            ResultsError: a target that was not announced, a frame out of turn, or a state that does not exist.
        """
        target, frame = self._objects.get(row.object_id), row.frame
        if target is None:
            raise ResultsError(f"object {row.object_id} is no target of this video")
        downward = self._goes_down(frame, target)
        if frame < 0 or not (downward or self._follows(frame, target.last)):
            due = 0 if target.last is None else target.last + 1
            raise ResultsError(f"object {row.object_id}: frame {frame} came where frame {due} was due")
        if row.state not in STATES:
            raise ResultsError(
                f"object {row.object_id}, frame {frame}: {row.state!r} is not one of {', '.join(STATES)}"
            )
        (target.downward if downward else target.upward).pending.append(row)
        if downward:
            target.lowest = frame
        else:
            target.last = frame
        if target.first is None or frame < target.first or not downward:
            self.rows += 1
        target.first = frame if target.first is None else min(frame, target.first)
        self._pending_bytes += len(row.rle) + 600
        if self._pending_bytes > SPOOL_BYTES:
            self._flush()

    def close(
        self,
        *,
        frames: int,
        fps: float | None = None,
        duration: float | None = None,
        quality: Mapping[str, Any] | None = None,
    ) -> WrittenMasks:
        """Write the file, read its footer back and check it.

        Args:
            frames: the video's length as decoded (the index after its last frame); every target has rows up to there.
            fps: average frames per second, for the metadata.
            duration: of the video in seconds, for the metadata.
            quality: how the column was estimated, for the metadata.

        Raises:
            ResultsError: a target without rows or whose rows stop early, or a file that is not as long as it should be.
        """
        for object_id, target in self._objects.items():
            if target.first is None:
                raise ResultsError(f"object {object_id} has rows up to no frame; the video ends with {frames - 1}")
            if self._covers in ("forward", "both", "bidirectional") and target.last != frames - 1:
                raise ResultsError(
                    f"object {object_id} has rows up to frame {target.last}; the video ends with {frames - 1}"
                )
            if self._covers in ("backward", "both", "bidirectional") and target.down_to != self._start:
                raise ResultsError(
                    f"object {object_id} has rows from frame {target.down_to} on; the video starts with {self._start}"
                )
        self._metadata |= {"frames": str(frames), "fps": json.dumps(fps), "duration": json.dumps(duration)}
        if quality is not None:
            self._metadata["quality"] = json.dumps(dict(quality), sort_keys=True, ensure_ascii=False)
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
        return WrittenMasks(
            rows=self.rows,
            sha256=sha256_of(str(self.path)),
            states={state: self._states[state] for state in STATES if self._states[state]},
        )

    def _flush(self) -> None:
        """Move the pending rows to the spool, one batch for each object that has any."""
        for strand in (strand for target in self._objects.values() for strand in (target.downward, target.upward)):
            with self._disk_errors():
                strand.flush(self._spool)
        self._pending_bytes = 0

    def _goes_down(self, frame: int, target: _Object) -> bool:
        if target.last is None or self._covers in ("forward", "prompts"):
            return False
        if target.lowest is None and self._covers == "bidirectional":
            return frame <= target.last
        return target.down_to is not None and frame == target.down_to - 1

    def _follows(self, frame: int, last: int | None) -> bool:
        if last is None:
            return True
        return frame > last if self._covers == "prompts" else frame == last + 1

    def _write(self) -> None:
        with masks_writer(self.path, self._schema, self._metadata) as writer:
            for table in self._row_groups():
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)

    def _row_groups(self) -> Iterator[pa.Table]:
        """The whole table in order, cut into row groups that do not depend on how the rows were spooled."""
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for target in self._objects.values():
            for batch in self._batches(target):
                self._count(batch)
                waiting.append(self._complete(batch, target))
                rows += batch.num_rows
                while rows >= ROW_GROUP_ROWS:
                    table = pa.Table.from_batches(waiting, self._schema)
                    yield table.slice(0, ROW_GROUP_ROWS).combine_chunks()
                    waiting = table.slice(ROW_GROUP_ROWS).to_batches()
                    rows -= ROW_GROUP_ROWS
        if rows:
            yield pa.Table.from_batches(waiting, self._schema).combine_chunks()

    def _batches(self, target: _Object) -> Iterator[pa.RecordBatch]:
        if self._covers == "bidirectional":
            return woven(target.upward, target.downward, self._spool)
        return itertools.chain(target.downward.batches(self._spool), target.upward.batches(self._spool))

    def _count(self, batch: pa.RecordBatch) -> None:
        # Where a person has said that nothing is to be found nobody has lost it.
        for counted in pc.value_counts(batch["state"].filter(pa.array(~absent_rows(batch)))).to_pylist():
            self._states[counted["values"]] += counted["counts"]

    def _complete(self, batch: pa.RecordBatch, target: _Object) -> pa.RecordBatch:
        """Add the carried columns, which are the same on all rows of a target."""
        columns: dict[str, pa.Array] = dict(zip(RESULT_COLUMNS, batch.columns, strict=True))
        # The whole dictionary each time, so that the file does not depend on which state came first.
        places = pc.index_in(columns["state"], pa.array(STATES)).cast(pa.int8())
        columns["state"] = pa.DictionaryArray.from_arrays(places, pa.array(STATES))
        for column in self._schema:
            if column.name not in columns:
                columns[column.name] = pa.repeat(pa.scalar(target.extras.get(column.name), column.type), batch.num_rows)
        return pa.record_batch([columns[name] for name in self._schema.names], self._schema)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error}", transient=True) from error
