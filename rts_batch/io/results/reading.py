"""Reads the masks of a finished (or half finished) run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rts_batch.errors import ResultsError
from rts_batch.io.results.schema import SCHEMA_VERSION
from rts_batch.io.storage import files, uris
from rts_batch.io.storage.parquet import open_parquet

__all__ = ["open_masks", "read_masks", "read_metadata"]


def open_masks(run_folder: str) -> ds.Dataset:
    """All masks of a run as one pyarrow dataset, to be filtered and read in pieces.

    Raises:
        ResultsError: the run has no finished video, or a file that is not Parquet.
        StorageError: the folder cannot be listed.
    """
    folder = uris.join(run_folder, "masks")
    names = [name for name in files.list_names(folder) if name.endswith(".parquet")]
    if not names:
        raise ResultsError(f"{folder} holds no masks: no video of this run is finished")
    filesystem, root = files.open_filesystem(folder)
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
    condition = None
    for name, values, kind in (("video_id", video_ids, pa.string()), ("object_id", object_ids, pa.int32())):
        if values is not None:
            chosen = pc.field(name).isin(pa.array(values, kind))
            condition = chosen if condition is None else condition & chosen
    dataset = open_masks(run_folder)
    try:
        return dataset.to_table(columns=list(columns) if columns else None, filter=condition)
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"the masks of {run_folder} cannot be read: {error}") from error


def read_metadata(uri: str) -> dict[str, Any]:
    """The file metadata of one masks file: schema_version, package_version, task, weights, profile, frames, fps and
    duration.

    Raises:
        ResultsError: not a masks file of a version that this package knows.
    """
    try:
        with contextlib.closing(open_parquet(uri)) as file:
            raw = file.schema_arrow.metadata or {}
        values: dict[str, Any] = {
            key.decode().removeprefix("rts_batch."): value.decode()
            for key, value in raw.items()
            if key.startswith(b"rts_batch.")
        }
        if values.get("schema_version") != SCHEMA_VERSION:
            version = values.get("schema_version", "none")
            raise ResultsError(f"{uri} has masks table version {version}; this package reads {SCHEMA_VERSION}")
        return values | {name: json.loads(values[name]) for name in ("frames", "fps", "duration", "task")}
    except (pa.ArrowException, OSError, ValueError, KeyError, RecursionError) as error:
        raise ResultsError(f"{uri} is not a masks file: {error}") from error
