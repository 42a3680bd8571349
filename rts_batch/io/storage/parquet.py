"""Parquet files read by the calling thread alone.

Arrow's own threads keep what they have read from a moment longer than whoever waits for them. Where that is bytes or a
file of Python's and the interpreter ends in that moment, the process aborts (`terminate called without an active
exception`). `pyarrow.parquet.read_table` has them read; a short command would now and then die of it after its work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.io.storage import files


def open_parquet(source: str | bytes) -> pq.ParquetFile:
    """Open a file by its path or URI, or the bytes of one.

    Raises:
        pa.ArrowException, OSError: it is not there or no Parquet file.
    """
    if isinstance(source, bytes):
        return pq.ParquetFile(pa.BufferReader(source), pre_buffer=False)
    filesystem, path = files.open_filesystem(source)
    return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=False)


def read_parquet(source: str | bytes, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file, or the bytes of one, into memory: all its columns or those named.

    Raises:
        pa.ArrowException, OSError: it is not there, no Parquet file, or lacks a column.
    """
    with contextlib.closing(open_parquet(source)) as file:
        for name in columns or ():
            if name not in file.schema_arrow.names:
                raise pa.ArrowInvalid(f"it has no column {name!r}")
        return file.read(columns=columns, use_threads=False)
