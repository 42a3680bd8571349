"""One target's rows while they arrive: a strand that goes upward, one that goes downward, and how both become one.

Rows wait in memory and then in a spool, a file of Arrow batches: memory stays bounded however long the video is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, Final

import numpy as np
import pyarrow as pa

from rts_batch.io.results.schema import Row, masks_schema
from rts_batch.io.results.seams import Side, from_behind

_SPOOLED: Final = pa.schema(
    [field.with_type(pa.string()) if field.name == "state" else field for field in masks_schema()]
)
"""Rows in the spool; a batch there has no dictionary."""


@dataclass
class Strand:
    """Rows of one target that came one after another in one direction."""

    downward: bool = False
    pending: list[Row] = field(default_factory=list)
    spooled: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each batch in the spool."""

    def flush(self, spool: IO[bytes]) -> None:
        """Move the pending rows to the end of the spool, as one batch."""
        if self.pending:
            columns = zip(*self.pending, strict=True)
            batch = pa.record_batch(
                [pa.array(values, field.type) for values, field in zip(columns, _SPOOLED, strict=True)], _SPOOLED
            )
            data = batch.serialize()
            self.spooled.append((spool.seek(0, 2), data.size))
            spool.write(data)
            self.pending.clear()

    def batches(self, spool: IO[bytes]) -> Iterator[pa.RecordBatch]:
        """Yield the flushed rows in the order of the frames."""
        for offset, size in reversed(self.spooled) if self.downward else self.spooled:
            spool.seek(offset)
            batch = pa.ipc.read_record_batch(pa.py_buffer(spool.read(size)), _SPOOLED)
            yield batch.take(pa.array(range(batch.num_rows - 1, -1, -1))) if self.downward else batch

    def first_frame(self, spool: IO[bytes]) -> int:
        """The first frame of the flushed rows, which leave out no frame."""
        return int(next(self.batches(spool))["frame"][0].as_py())


def woven(upward: Strand, downward: Strand, spool: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of two flushed strands as one, in the order of the frames; of what both have the better row.

    `seams.from_behind` says which one that is.
    """
    if not downward.spooled:
        yield from upward.batches(spool)
        return
    above, below = _side(upward, spool), _side(downward, spool)
    first = downward.first_frame(spool)
    begin, end = upward.first_frame(spool) - first, len(below.fixed)
    from_below = np.zeros(begin + len(above.fixed), np.bool_)
    from_below[:begin] = True  # before the first prompt there is nothing else
    from_below[begin:end] = from_behind(above.part(0, end - begin), below.part(begin, end))
    edges = [0, *(np.flatnonzero(np.diff(from_below)) + 1).tolist(), len(from_below)]
    readers = _Reader(upward.batches(spool)), _Reader(downward.batches(spool))
    for start, stop in pairwise(edges):
        yield from readers[int(from_below[start])].take(first + start, first + stop)


def _side(strand: Strand, spool: IO[bytes]) -> Side:
    """Read what decides between two strands, 9 bytes a row."""
    parts = [Side.of(batch) for batch in strand.batches(spool)]
    return Side(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _Reader:
    """Hands out parts of a strand, each behind the one before; what lies between them is passed over."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._batch: pa.RecordBatch | None = None

    def take(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from frame `start` up to, and without, `stop`."""
        while start < stop:
            batch = self._batch if self._batch is not None else next(self._batches)
            first, end = batch["frame"][0].as_py(), batch["frame"][-1].as_py() + 1
            if end > start:
                yield batch.slice(start - first, min(stop, end) - start)
                start = min(stop, end)
            self._batch = batch if end > start else None
