"""Merges the small masks files of a run into few large ones, elsewhere.

A run of a million short videos has a million files, and listing and opening them takes longer than reading them. The
merged folder is read by the same commands and queries. It is a copy to read from: a run goes on in its own folder.

::

    masks/part-00000.parquet    the rows of many videos, whole videos one after another
    videos/part-00000.parquet   which rows are whose, and what each video's own file said in its metadata
    run.json, manifest.parquet  as in the run's folder
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.errors import UsageError
from rts_batch.io.results.file import INDEX_SCHEMA, LAYOUT
from rts_batch.io.results.schema import masks_writer
from rts_batch.io.storage import files, uris
from rts_batch.io.storage.staging import staged_folder
from rts_batch.runs.paths import RunPaths, part_key
from rts_batch.runs.reading import read_masks
from rts_batch.runs.video_masks import VideoMasks

ROWS_PER_FILE: Final = 1_000_000
"""Roughly 100 to 500 MB."""

ROW_GROUP_ROWS: Final = 2000


@dataclass
class Compaction:
    out: str
    videos: int = 0
    rows: int = 0
    files: int = 0


def compact(run_folder: str, out: str, *, rows_per_file: int = ROWS_PER_FILE) -> Compaction:
    """Merge the finished videos of a run into `out`, which must not exist or be empty.

    Args:
        rows_per_file: rows after which a file is closed; a video is never divided.

    Raises:
        UsageError: `out` is not empty, or lies within the run's masks.
        ResultsError: no masks, or a file in `masks/` that is none of ours.
        StorageError: a folder cannot be read or written.
    """
    if rows_per_file < 1:
        raise UsageError(f"a file cannot hold {rows_per_file} rows")
    paths = RunPaths(run_folder)
    if f"{_plain(out)}/".startswith(f"{_plain(paths.masks)}/"):
        raise UsageError(f"{out} lies within the run's masks/, which compact leaves alone; give another folder")
    masks = read_masks(run_folder)
    compaction = Compaction(out)
    with staged_folder(out) as folder:
        here = RunPaths(str(folder))
        for uri, copy in ((paths.record, here.record), (paths.manifest, here.manifest)):
            if files.exists(uri):
                files.put_bytes(copy, files.read_bytes(uri))
        part: _Part | None = None
        for video in masks:
            if part is not None and (part.rows >= rows_per_file or not part.holds(video)):
                part.close()
                part = None
            if part is None:
                part = _Part(here, part_key(compaction.files), video)
                compaction.files += 1
            part.add(video)
            compaction.videos += 1
            compaction.rows += video.rows_total
        if part is not None:
            part.close()
    return compaction


class _Part:
    """One large file, and the list of its videos."""

    def __init__(self, paths: RunPaths, key: str, first: VideoMasks) -> None:
        self.rows = 0
        self._entries: list[dict[str, Any]] = []
        path = Path(paths.masks_file(key))
        self._index = Path(paths.index(path.name))
        for file in (path, self._index):
            file.parent.mkdir(exist_ok=True)
        self._schema, self._quality = first.schema, first.quality
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        metadata = {"layout": LAYOUT}
        if self._quality is not None:
            metadata["quality"] = json.dumps(self._quality, sort_keys=True, ensure_ascii=False)
        self._writer = masks_writer(path, self._schema, metadata)

    def holds(self, video: VideoMasks) -> bool:
        """Whether the video has the columns of this file, and its estimates come from the same map.

        Columns that are carried from a manifest may change as it grows.
        """
        return bool(video.schema.equals(self._schema)) and video.quality == self._quality

    def add(self, video: VideoMasks) -> None:
        entry = asdict(video.entry)
        entry["task"] = json.dumps(entry["task"], sort_keys=True, ensure_ascii=False)
        self._entries.append({**entry, "first_row": self.rows})
        self.rows += video.rows_total
        for table in video.tables():
            self._waiting.append(table)
            self._waiting_rows += table.num_rows
            if self._waiting_rows >= ROW_GROUP_ROWS:
                for group in self._groups():
                    self._writer.write_table(group)

    def close(self) -> None:
        if self._waiting_rows:
            self._writer.write_table(self._joined())
        self._writer.close()
        index = pa.Table.from_pylist(self._entries, INDEX_SCHEMA)
        pq.write_table(index, self._index, compression="zstd", row_group_size=10_000)

    def _groups(self) -> Iterator[pa.Table]:
        table = self._joined()
        whole = table.num_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS
        for start in range(0, whole, ROW_GROUP_ROWS):
            yield table.slice(start, ROW_GROUP_ROWS)
        self._waiting = [table.slice(whole)]
        self._waiting_rows = table.num_rows - whole

    def _joined(self) -> pa.Table:
        return pa.concat_tables(self._waiting).unify_dictionaries().combine_chunks()


def _plain(uri: str) -> str:
    path = uris.local_path(uri)
    return uri.rstrip("/") if path is None else str(path.resolve())
