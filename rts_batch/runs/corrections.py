"""`corrections.csv` beside a run: rows of a manifest that put labels right, and the manifest that they make of its own.

The file is a manifest that people may edit, too. Of the page that writes it several may be open, so whoever saves says
which version he has seen, and is refused where the file is another one by now.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rts_batch.errors import ManifestError, RunBusyError, RunFolderError, StaleError
from rts_batch.io.storage import files, uris
from rts_batch.io.storage.parquet import read_parquet
from rts_batch.manifest.columns import COLUMNS, check_columns
from rts_batch.manifest.formats import FOLDER_KEY, read_rows
from rts_batch.manifest.marks import rle_of
from rts_batch.runs.lease import holder_of, only_one_here
from rts_batch.runs.paths import RunPaths, shards_among

__all__ = [
    "Corrections",
    "CorrectionsBook",
    "Place",
    "Row",
    "merge",
    "merged_manifest",
    "place_of",
    "write_rows",
    "written_time",
]

Row = dict[str, Any]
"""A row of a manifest: its columns (`box` as x, y, w, h) and those that it carries; None is not given."""

Place = tuple[str, int, int | None, float | None]
"""video_id, object_id, and frame or time: what one prompt is about."""

_FIRST: Final = ("video", "video_id", "object_id", "frame", "time", "prompt_kind", "x", "y", "w", "h")
_LAST: Final = ("category", "mask")
_ALWAYS: Final = ("video", "video_id", "object_id", "frame", "category", "mask")
"""Columns that are written although no row may have a value in them."""

_OF_A_VIDEO: Final = ("video", "start", "end", "direction", "frames")
_OF_A_PROMPT: Final = ("frame", "time", "x", "y", "w", "h", "mask")


@dataclass(frozen=True)
class Corrections:
    version: str
    """Another one for any other content of the file."""
    rows: tuple[Row, ...]


class CorrectionsBook:
    """The corrections of one run's folder, path or URI."""

    def __init__(self, run_folder: str) -> None:
        self.paths = RunPaths(uris.absolute(run_folder).rstrip("/") or "/")
        self._here = threading.Lock()

    def read(self) -> Corrections:
        """Return what is there; nothing where there is no file.

        Raises:
            ManifestError: a value that no manifest has.
        """
        uri = self.paths.corrections
        if not files.exists(uri):
            return Corrections("none", ())
        data = files.read_bytes(uri)
        return Corrections(hashlib.sha256(data).hexdigest()[:16], tuple(_rows(data, uri)))

    def save(self, version: str, rows: Sequence[Row], removed: Sequence[Place] = ()) -> Corrections:
        """Put rows in the place of those about the same prompts, take some away, and return what is there then.

        Args:
            version: that of the corrections which the change was made of.
            rows: to add, or to replace; a category goes for all rows of its target.
            removed: prompts whose rows go.

        Raises:
            StaleError: the file is of another version by now; nothing is written.
            RunBusyError: a submission is at work on the run.
            ManifestError: a row that no manifest has.
        """
        uri = self.paths.corrections
        with self._here, only_one_here(uri):
            self.refuse_if_busy()
            now = self.read()
            if now.version != version:
                raise StaleError(f"{uri} has been changed meanwhile; read it again and save then")
            kept = {place_of(row): row for row in now.rows}
            for place in removed:
                kept.pop(place, None)
            kept |= {place_of(row): row for row in rows}
            categories = _categories(rows)
            found = [{**row, "category": categories.get(_target(row), row.get("category"))} for row in kept.values()]
            if not found:
                files.delete(uri)
                return self.read()
            data = write_rows(sorted(found, key=_order))
            list(_rows(data, uri))  # what cannot be read again is not written
            files.put_bytes(uri, data)
            return self.read()

    def refuse_if_busy(self) -> None:
        """Raises RunBusyError where a submission, of the whole run or of a shard, is at work on it."""
        for shard in shards_among(files.list_names(self.paths.uri), "lease"):
            holder, process = holder_of(RunPaths(self.paths.uri, shard).lease)
            if holder in ("alive", "unknown"):
                raise RunBusyError(f"{self.paths.uri}: {process} is at work on the run; wait for it, or cancel it")

    def recorded(self) -> pa.Table:
        """Return the run's own manifest.

        Raises:
            RunFolderError: the folder has none, as a compacted one.
        """
        self.require_manifest()
        return read_parquet(self.paths.manifest)

    def require_manifest(self) -> None:
        """Raises RunFolderError where there is nothing that could be corrected."""
        if not files.exists(self.paths.manifest):
            raise RunFolderError(f"{self.paths.uri} has no manifest to correct; give the folder of the run itself")

    def rows_of(self, video_id: str) -> list[Row]:
        """Return the rows of the run's own manifest about one video."""
        recorded = self.recorded()
        return list(recorded.filter(pc.equal(recorded["video_id"], video_id)).to_pylist())

    def pending(self) -> list[Place]:
        """Return what the run's own manifest does not say yet."""
        rows = self.read().rows
        if not rows:
            return []
        recorded = self.recorded()
        known = _about(recorded, {row["video_id"] for row in rows})
        said = {place_of(row): _said(row) for row in known}
        return [place_of(row) for row in rows if said.get(place_of(row)) != _said(row)]


def written_time(rows: Iterable[Row], object_id: int, frame: int, time: float | None) -> float | None:
    """Return by which time the run's rows name a target's prompt on a frame; None where they give the frame itself.

    Args:
        rows: of the run's manifest, about one video.
        object_id: a target that was marked on this frame.
        frame: its index.
        time: when it is shown, in seconds.
    """
    prompts = [row for row in rows if row["object_id"] == object_id]
    times = [row["time"] for row in prompts if row["time"] is not None]
    if time is None or not times or any(row["frame"] == frame for row in prompts):
        return None
    return float(min(times, key=lambda given: abs(given - time)))


def place_of(row: Mapping[str, Any]) -> Place:
    return row["video_id"], row["object_id"], row.get("frame"), row.get("time")


def _target(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["video_id"], row["object_id"]


def _categories(rows: Iterable[Row]) -> dict[tuple[str, int], str]:
    """Of each target the last category that is given."""
    return {_target(row): row["category"] for row in rows if row.get("category") is not None}


def write_rows(rows: Sequence[Row]) -> bytes:
    """Return rows as the CSV of a manifest."""
    others = sorted({name for row in rows for name in row} - {*_FIRST, *_LAST, "box"})
    names = [
        name for name in (*_FIRST, *others, *_LAST) if name in _ALWAYS or any(row.get(name) is not None for row in rows)
    ]
    text = io.StringIO()
    # A line that begins with # without a quote would be taken for a comment.
    hashes = any(str(row.get("video")).lstrip().startswith("#") for row in rows)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if hashes else csv.QUOTE_MINIMAL)
    writer.writerow(names)
    writer.writerows([row.get(name) for name in names] for row in rows)
    return text.getvalue().encode()


def merge(recorded: pa.Table, rows: Sequence[Row], folder: str) -> pa.Table:
    """Return the run's manifest with the corrections in it; where both mark a target on a frame, the correction counts.

    Args:
        recorded: the run's manifest.
        rows: corrections of its videos.
        folder: what relative paths of masks in `rows` are relative to.

    Raises:
        ManifestError: a correction of a video that the run does not have.
    """
    if not rows:
        return recorded
    names = {row["video_id"] for row in rows}
    kept = {place_of(row): row for row in _about(recorded, names)}
    if missing := names - {video_id for video_id, *_ in kept}:
        raise ManifestError(f"the run has no video {sorted(missing)[0]!r}, of which a correction speaks")
    videos = {row["video_id"]: row for row in reversed(kept.values())}
    targets = {_target(row): row for row in reversed(kept.values())}
    categories = _categories(kept.values()) | _categories(rows)
    extras = [name for name in recorded.schema.names if name not in COLUMNS]
    for row in rows:
        video, target = videos[row["video_id"]], targets.get(_target(row), {})
        mask = row.get("mask")
        if mask is not None and rle_of(mask) is None:
            mask = uris.resolve(mask, folder)
        kept[place_of(row)] = {
            **{name: target.get(name) for name in extras},
            **{name: video[name] for name in _OF_A_VIDEO},
            **{name: row.get(name) for name in _OF_A_PROMPT},
            **{name: row[name] for name in ("video_id", "object_id")},
            "mask": mask,
            "prompt_kind": row.get("prompt_kind") or ("annotate" if video["prompt_kind"] == "annotate" else "correct"),
        }
    merged = [{**row, "category": categories.get(_target(row))} for row in kept.values()]
    others = recorded.filter(pc.invert(pc.is_in(recorded["video_id"], pa.array(sorted(names), pa.string()))))
    return pa.concat_tables([others, pa.Table.from_pylist(merged, schema=recorded.schema)])


@contextlib.contextmanager
def merged_manifest(run_folder: str) -> Iterator[str]:
    """The path of a manifest for as long as the context lasts: the run's own with its corrections in it.

    Raises:
        RunFolderError: the folder has no manifest, or no corrections.
        ManifestError: the corrections cannot be used.
    """
    book = CorrectionsBook(run_folder)
    rows = book.read().rows
    if not rows:
        raise RunFolderError(f"{book.paths.uri} has no corrections; make some with rts-batch review --serve")
    recorded = book.recorded()
    merged = merge(recorded, rows, book.paths.uri)
    metadata = dict(recorded.schema.metadata or {})
    metadata.setdefault(FOLDER_KEY, book.paths.uri.encode())
    with tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch:
        path = Path(scratch) / "corrected.parquet"
        pq.write_table(merged.replace_schema_metadata(metadata), path)
        yield str(path)


def _rows(data: bytes, uri: str) -> Iterator[Row]:
    raw = read_rows(data, uri)
    columns = check_columns(raw, uri)
    if problems := [problem.text for problem in sorted([*raw.problems, *columns.problems])]:
        raise ManifestError(f"{uri}: {len(problems)} values cannot be used; correct them", problems)
    table = {**columns.known, **columns.extras}
    for values in zip(*table.values(), strict=True):
        row = dict(zip(table, values, strict=True))
        if (box := row.pop("box")) is not None:
            row |= dict(zip("xywh", box, strict=True))
        row["object_id"] = row["object_id"] or 1
        row["video_id"] = row["video_id"] or uris.without_query(row["video"])
        if row["frame"] is None and row["time"] is None:
            row["frame"] = row["start"] or 0
        yield row


def _about(recorded: pa.Table, video_ids: set[str]) -> list[Row]:
    chosen = pc.is_in(recorded["video_id"], pa.array(sorted(video_ids), pa.string()))
    return list(recorded.filter(chosen).to_pylist())


def _said(row: Row) -> str:
    """What a row says of its prompt, to be compared."""
    kind = "absent" if row.get("prompt_kind") == "absent" else None
    mask = row.get("mask")
    box = None if mask is not None else [row.get(name) for name in "xywh"]
    return json.dumps([kind, mask, box, row.get("category")])


def _order(row: Row) -> tuple[Any, ...]:
    return row["video_id"], row["object_id"], row.get("frame") or 0, row.get("time") or 0.0
