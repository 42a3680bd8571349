"""The masks table: one Parquet file for each video, written whole, the same bytes for the same rows.

Rows arrive frame by frame, the table is sorted by object and then frame. So rows are spooled to an unlinked file as
Arrow batches of one object each, and `close` reads them back object by object: memory stays bounded however long
the video is, and neither the spool's batches nor an interruption shows in the file.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import rts_batch
from rts_batch.errors import ResultsError
from rts_batch.io import storage
from rts_batch.masks import Box

__all__ = [
    "RESULT_COLUMNS",
    "ResultsSummary",
    "ResultsWriter",
    "masks_schema",
    "open_masks",
    "read_masks",
    "read_metadata",
]

SCHEMA_VERSION: Final = "1"

State = Literal["prompt", "tracked", "uncertain", "mask_lost", "lost"]
ExtraType = Literal["int64", "float64", "bool", "string"]

ROW_GROUP_ROWS: Final = 1000
"""Small enough to read one minute of one target without the rest; smaller ones compress worse."""

SPOOL_BYTES: Final = 8 << 20
"""Codes held in memory before they are written to the spool."""

_STATES: Final = get_args(State)
_STATE_TYPE: Final = pa.dictionary(pa.int8(), pa.string())

_COLUMNS: Final = (
    ("video_id", pa.string(), False),
    ("object_id", pa.int32(), False),
    ("frame", pa.int32(), False),
    ("time", pa.float64(), True),
    ("height", pa.int32(), False),
    ("width", pa.int32(), False),
    ("rle", pa.binary(), False),
    ("x", pa.float32(), True),
    ("y", pa.float32(), True),
    ("w", pa.float32(), True),
    ("h", pa.float32(), True),
    ("area", pa.int32(), False),
    ("score", pa.float32(), True),
    ("confidence", pa.float32(), True),
    ("state", _STATE_TYPE, False),
    ("category", pa.string(), True),
)

RESULT_COLUMNS: Final = tuple(name for name, _, _ in _COLUMNS)
"""The names that every masks table has, in order; a manifest's own columns follow them."""

_EXTRA_TYPES: Final = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}

_PER_ROW: Final = ("object_id", "frame", "time", "rle", "x", "y", "w", "h", "area", "score", "confidence", "state")


def masks_schema(extras: Mapping[str, str] | None = None) -> pa.Schema:
    """The schema of a masks table whose manifest carries the further columns `extras`, name to type.

    Raises:
        ResultsError: a name that the table uses itself, or a type other than int64, float64, bool and string.
    """
    fields = [pa.field(name, kind, nullable) for name, kind, nullable in _COLUMNS]
    for name, kind in (extras or {}).items():
        if name in RESULT_COLUMNS or kind not in _EXTRA_TYPES:
            raise ResultsError(f"column {name!r} of type {kind!r} cannot be carried into the masks table")
        fields.append(pa.field(name, _EXTRA_TYPES[kind]))
    return pa.schema(fields)


@dataclass(frozen=True)
class ResultsSummary:
    """What a finished masks file holds."""

    rows: int
    objects: int
    frames: int
    """Frames of the video that at least one target covers."""
    bytes: int
    states: dict[str, int]
    """Rows in each state; those that do not occur are absent."""


@dataclass
class _Object:
    """What is known of one target while its rows arrive."""

    category: str | None
    extras: Mapping[str, Any]
    next_frame: int | None = None
    rows: int = 0
    pending: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _PER_ROW})
    spooled: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each batch in the spool."""


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
    ) -> None:
        self.path = Path(path)
        self.rows = 0
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
            "package_version": rts_batch.__version__,
            "task": json.dumps(dict(task or {}), sort_keys=True, ensure_ascii=False),
            "weights": weights,
            "profile": profile,
        }
        self._spool = tempfile.TemporaryFile(prefix="rts-batch-masks-", dir=self.path.parent)  # noqa: SIM115

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

        A target's frames come one after another, without a gap; different targets may be mixed in any way.

        Raises:
            ResultsError: a target that was not announced, a frame out of turn, or a state that does not exist.
        """
        target = self._objects.get(object_id)
        if target is None:
            raise ResultsError(f"object {object_id} is no target of this video")
        if frame < 0 or frame != (frame if target.next_frame is None else target.next_frame):
            raise ResultsError(f"object {object_id}: frame {frame} came where frame {target.next_frame} was due")
        if state not in _STATES:
            raise ResultsError(f"object {object_id}, frame {frame}: {state!r} is not one of {', '.join(_STATES)}")
        x, y, w, h = box or (None, None, None, None)
        values = (object_id, frame, time, rle, x, y, w, h, area, score, confidence, _STATES.index(state))
        for name, value in zip(_PER_ROW, values, strict=True):
            target.pending[name].append(value)
        target.next_frame = frame + 1
        target.rows += 1
        self.rows += 1
        self._states[state] += 1
        self._pending_bytes += len(rle) + 200
        if self._pending_bytes > SPOOL_BYTES:
            self._flush()

    def close(self, *, frames: int, fps: float | None = None, duration: float | None = None) -> ResultsSummary:
        """Writes the file, reads its footer back and checks it.

        Args:
            frames: the video's length in frames as decoded, so that every target's last row is frame `frames - 1`.
            fps: average frames per second, for the metadata.
            duration: of the video in seconds, for the metadata.

        Raises:
            ResultsError: a target without rows or whose rows stop early, or a file that is not as long as it should be.
        """
        for object_id, target in self._objects.items():
            if target.next_frame != frames:
                reached = "no frame" if target.next_frame is None else f"frame {target.next_frame - 1}"
                raise ResultsError(f"object {object_id} has rows up to {reached}; the video ends with {frames - 1}")
        self._flush()
        self._metadata |= {"frames": str(frames), "fps": json.dumps(fps), "duration": json.dumps(duration)}
        try:
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
            states={state: self._states[state] for state in _STATES if self._states[state]},
        )

    def _flush(self) -> None:
        """Moves the pending rows to the spool, one batch for each object that has any."""
        for target in self._objects.values():
            if target.pending["frame"]:
                batch = pa.RecordBatch.from_pydict(target.pending, schema=self._spool_schema)
                data = batch.serialize()
                target.spooled.append((self._spool.tell(), data.size))
                self._spool.write(data)
                for values in target.pending.values():
                    values.clear()
        self._pending_bytes = 0

    def _write(self) -> None:
        metadata = {f"rts_batch.{key}": value for key, value in self._metadata.items()}
        schema = self._schema.with_metadata(metadata)
        names = [name for name in schema.names if name not in ("rle", "frame", "time", "x", "y", "w", "h", "area")]
        with pq.ParquetWriter(
            self.path,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=[name for name in names if name not in ("score", "confidence")],
            write_statistics=[name for name in schema.names if name != "rle"],
        ) as writer:
            for table in self._row_groups(schema):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)

    def _row_groups(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """The whole table in order, cut into row groups that do not depend on how the rows were spooled."""
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for target in self._objects.values():
            for offset, size in target.spooled:
                self._spool.seek(offset)
                batch = pa.ipc.read_record_batch(pa.py_buffer(self._spool.read(size)), self._spool_schema)
                waiting.append(self._complete(batch, target, schema))
                rows += batch.num_rows
                while rows >= ROW_GROUP_ROWS:
                    table = pa.Table.from_batches(waiting, schema)
                    yield table.slice(0, ROW_GROUP_ROWS).combine_chunks()
                    waiting = table.slice(ROW_GROUP_ROWS).to_batches()
                    rows -= ROW_GROUP_ROWS
        if rows:
            yield pa.Table.from_batches(waiting, schema).combine_chunks()

    def _complete(self, batch: pa.RecordBatch, target: _Object, schema: pa.Schema) -> pa.RecordBatch:
        """Adds the columns that are the same on all rows of a target."""
        constants = {**self._constants, "category": target.category, **target.extras}
        columns: dict[str, pa.Array] = dict(zip(_PER_ROW, batch.columns, strict=True))
        # The whole dictionary each time, so that the file does not depend on which state came first.
        columns["state"] = pa.DictionaryArray.from_arrays(columns["state"], pa.array(_STATES))
        for column in schema:
            if column.name not in columns:
                columns[column.name] = pa.repeat(pa.scalar(constants.get(column.name), column.type), batch.num_rows)
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def open_masks(run_folder: str) -> ds.Dataset:
    """All masks of a run as one pyarrow dataset, to be filtered and read in pieces.

    Raises:
        ResultsError: the run has no finished video, or a file that is not Parquet.
        StorageError: the folder cannot be listed.
    """
    folder = storage.join(run_folder, "masks")
    names = [name for name in storage.list_names(folder) if name.endswith(".parquet")]
    if not names:
        raise ResultsError(f"{folder} holds no masks: no video of this run is finished")
    filesystem, root = storage.open_filesystem(folder)
    try:
        return ds.dataset([f"{root.rstrip('/')}/{name}" for name in names], format="parquet", filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"{folder} cannot be read as Parquet: {error}") from error


def read_masks(
    run_folder: str,
    *,
    video_ids: Sequence[str] | None = None,
    object_ids: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Reads a run's masks into memory, all of them or those of some videos and targets.

    Decode a mask with `rts_batch.masks.decode_rle(row["rle"], row["height"], row["width"])`.

    Raises:
        ResultsError: no finished video, an unknown column, or a file that is not Parquet.
    """
    wanted = [
        pc.field(name).isin(list(values))
        for name, values in (("video_id", video_ids), ("object_id", object_ids))
        if values is not None
    ]
    condition = None
    for part in wanted:
        condition = part if condition is None else condition & part
    dataset = open_masks(run_folder)
    try:
        return dataset.to_table(columns=list(columns) if columns else None, filter=condition)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ResultsError(f"the masks of {run_folder} cannot be read: {error}") from error


def read_metadata(uri: str) -> dict[str, Any]:
    """The file metadata of one masks file: schema_version, package_version, task, weights, profile, frames, fps and
    duration.

    Raises:
        ResultsError: not a masks file of a version that this package knows.
    """
    filesystem, path = storage.open_filesystem(uri)
    try:
        with contextlib.closing(pq.ParquetFile(path, filesystem=filesystem)) as file:
            raw = file.schema_arrow.metadata or {}
        values = {
            key.decode().removeprefix("rts_batch."): value.decode()
            for key, value in raw.items()
            if key.startswith(b"rts_batch.")
        }
        if values.get("schema_version") != SCHEMA_VERSION:
            raise ResultsError(
                f"{uri} has masks table version {values.get('schema_version')}; this package reads {SCHEMA_VERSION}"
            )
        parsed: dict[str, Any] = {**values, "frames": int(values["frames"])}
        for name in ("task", "fps", "duration"):
            parsed[name] = json.loads(values[name])
        if parsed["fps"] is not None and not math.isfinite(parsed["fps"]):
            raise ResultsError(f"{uri}: fps is {parsed['fps']}")
    except ResultsError:
        raise
    except Exception as error:
        raise ResultsError(f"{uri} is not a masks file: {error}") from error
    return parsed
