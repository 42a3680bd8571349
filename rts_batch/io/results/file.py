"""One masks file, read row group by row group: of one video as a run writes it, or of many as `compact` does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.errors import ResultsError
from rts_batch.io.results.schema import QUALITY, RESULT_COLUMNS, SCHEMA_VERSION
from rts_batch.io.storage.parquet import open_parquet

LAYOUT: Final = "compacted"
"""`rts_batch.layout` in the file metadata of a file that holds many videos."""

CACHED_GROUPS: Final = 4
"""Row groups kept, each with the columns of one way of reading: sizes, targets, rows."""

INDEX_SCHEMA: Final = pa.schema(
    [
        pa.field("video_id", pa.string(), False),
        pa.field("first_row", pa.int64(), False),
        pa.field("rows", pa.int64(), False),
        pa.field("frames", pa.int64(), False),
        pa.field("fps", pa.float64()),
        pa.field("duration", pa.float64()),
        pa.field("task", pa.string(), False),
        pa.field("weights", pa.string(), False),
        pa.field("profile", pa.string(), False),
    ]
)


@dataclass(frozen=True)
class VideoEntry:
    """Where a video's rows are, and what its masks file says of it."""

    video_id: str
    first_row: int
    rows: int
    frames: int
    """The index after the video's last frame."""
    fps: float | None
    duration: float | None
    task: dict[str, Any]
    """The video's part of the manifest: `uri`, `key`, `start`, `end`, `direction`, `objects`."""
    weights: str
    profile: str


class MasksFile:
    """A Parquet file of masks. It opens itself when it is read, also again after `close`.

    Raises:
        ResultsError: not a masks file of a version that this package knows, or a damaged one.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._metadata: dict[str, str] = {}
        self._schema = pa.schema([])
        self._has_quality = False
        self._file: pq.ParquetFile | None = None
        self._starts = np.zeros(1, np.int64)
        self._cached: dict[tuple[int, tuple[str, ...] | None], pa.Table] = {}

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says under `rts_batch.…`, by what follows that (docs/results.md)."""
        self._open()
        return self._metadata

    @property
    def schema(self) -> pa.Schema:
        """The columns, the manifest's carried ones included."""
        self._open()
        return self._schema

    @property
    def rows(self) -> int:
        self._open()
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, and in another process: it opens the file for itself."""
        return {**vars(self), "_file": None, "_cached": {}}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._cached.clear()

    def tables(self, first: int, stop: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows from `first` to `stop` (exclusive), one table for each row group; None: all columns."""
        missing = [name for name in columns or () if name not in self.schema.names]
        if missing:
            raise ResultsError(f"{self.uri} has no column {', '.join(missing)}; it has {', '.join(self.schema.names)}")
        group = int(np.searchsorted(self._starts, first, side="right")) - 1
        while first < stop:
            start, end = int(self._starts[group]), min(int(self._starts[group + 1]), stop)
            yield self._group(group, columns).slice(first - start, end - first)
            first, group = end, group + 1

    def table(self, first: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows from `first` to `stop` (exclusive) as one table."""
        parts = list(self.tables(first, stop, columns))
        if parts:
            return pa.concat_tables(parts)
        return self.schema.empty_table().select(self.schema.names if columns is None else list(columns))

    def _group(self, group: int, columns: Sequence[str] | None) -> pa.Table:
        wanted = (group, None if columns is None else tuple(columns))
        if wanted not in self._cached:  # short videos of a compacted file share row groups
            if len(self._cached) >= CACHED_GROUPS:
                del self._cached[next(iter(self._cached))]
            names = self.schema.names if columns is None else list(columns)
            file = self._open()
            stored = [name for name in names if name != QUALITY.name or self._has_quality]
            with self._errors():
                table = file.read_row_group(group, columns=stored, use_threads=False)
                if len(stored) < len(names):
                    rows = file.metadata.row_group(group).num_rows
                    table = table.add_column(names.index(QUALITY.name), QUALITY, pa.nulls(rows, QUALITY.type))
                self._cached[wanted] = table
        return self._cached[wanted]

    def _open(self) -> pq.ParquetFile:
        if self._file is None:
            with self._errors():
                file = open_parquet(self.uri)
                raw = file.schema_arrow.metadata or {}
                self._metadata = {
                    key.decode().removeprefix("rts_batch."): value.decode()
                    for key, value in raw.items()
                    if key.startswith(b"rts_batch.")
                }
            self._check(file)
            self._schema = file.schema_arrow.remove_metadata()
            self._has_quality = QUALITY.name in self._schema.names and self._schema.field(QUALITY.name).equals(QUALITY)
            if not self._has_quality:
                self._schema = _with_quality(self._schema)
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            self._starts = np.cumsum([0, *sizes])
            self._file = file
        return self._file

    def _check(self, file: pq.ParquetFile) -> None:
        version = self._metadata.get("schema_version")
        if version is None:
            raise ResultsError(f"{self.uri} is not a masks file of rts-batch; masks/ must hold nothing else")
        if version != SCHEMA_VERSION:
            raise ResultsError(f"{self.uri} has masks table version {version}; this package reads {SCHEMA_VERSION}")
        missing = [name for name in RESULT_COLUMNS if name not in file.schema_arrow.names and name != QUALITY.name]
        if missing:
            raise ResultsError(f"{self.uri} is not a masks file: it has no column {', '.join(missing)}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ResultsError(f"{self.uri} is not a masks file: {error}") from error


def _with_quality(schema: pa.Schema) -> pa.Schema:
    """The columns of an earlier version's file as those of now; a carried column of that name is not read."""
    if QUALITY.name in schema.names:
        schema = schema.remove(schema.get_field_index(QUALITY.name))
    return schema.insert(RESULT_COLUMNS.index(QUALITY.name), QUALITY)


def video_entries(file: MasksFile, index: str) -> Iterator[VideoEntry]:
    """The videos of one masks file in order of its rows; `index` is the file that lists those of a compacted one."""
    rows = file.rows
    if file.metadata.get("layout") == LAYOUT:
        yield from _indexed(file, index)
        return
    try:
        task = json.loads(file.metadata["task"])
        video_id = task.get("video_id")
        if video_id is None:  # a writer that was told no task
            video_id = next(file.tables(0, 1, ["video_id"]))["video_id"][0].as_py() if rows else ""
        yield VideoEntry(
            video_id=video_id,
            first_row=0,
            rows=rows,
            task=task,
            weights=file.metadata.get("weights", ""),
            profile=file.metadata.get("profile", ""),
            **{name: json.loads(file.metadata[name]) for name in ("frames", "fps", "duration")},
        )
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ResultsError(f"{file.uri} is not a masks file: its metadata is damaged ({error!r})") from error


def _indexed(file: MasksFile, uri: str) -> Iterator[VideoEntry]:
    try:
        with contextlib.closing(open_parquet(uri)) as index:
            for batch in index.iter_batches(batch_size=1000, use_threads=False):
                for row in batch.to_pylist():
                    yield VideoEntry(**{**row, "task": json.loads(row["task"])})
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ResultsError(f"{uri} does not say which videos {file.uri} holds: {error}") from error
