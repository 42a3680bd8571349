"""A manifest that is written row by row while somebody marks targets, and that people may edit, too.

Several may have it open, so whoever saves says which version he has seen, and is refused where the file is another one
by now.
"""

from __future__ import annotations

import csv
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rts_batch.errors import ManifestError, StaleError
from rts_batch.io.storage import files, uris
from rts_batch.manifest.columns import check_columns
from rts_batch.manifest.formats import quoting_of, read_rows
from rts_batch.manifest.target_names import OBJECT_NAME, Numbers, number_names
from rts_batch.runs.lease import only_one_here

Row = dict[str, Any]
"""A row of a manifest: its columns (`box` as x, y, w, h) and those that it carries; None is not given."""

Place = tuple[str, int, int | None, float | None]
"""video_id, object_id, and frame or time: what one prompt is about."""

OF_A_VIDEO: Final = ("video", "start", "end", "direction", "frames")
"""Columns on which all rows of a video agree."""

_FIRST: Final = ("video", "video_id", "object_id", "frame", "time", "prompt_kind", "x", "y", "w", "h")
_LAST: Final = ("category", "mask")
_ALWAYS: Final = ("video", "video_id", "object_id", "frame", "category", "mask")
"""Columns that are written although no row may have a value in them."""


@dataclass(frozen=True)
class SavedRows:
    version: str
    """Another one for any other content of the file."""
    rows: tuple[Row, ...]


class RowsFile:
    """The rows of a CSV at a path or URI; it need not exist yet."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._here = threading.Lock()

    def read(self) -> SavedRows:
        """Return what is there; nothing where there is no file.

        Raises:
            ManifestError: a value that no manifest has.
        """
        if not files.exists(self.uri):
            return SavedRows("none", ())
        data = files.read_bytes(self.uri)
        return SavedRows(hashlib.sha256(data).hexdigest()[:16], tuple(_rows(data, self.uri, self.numbers)))

    def save(self, version: str, rows: Sequence[Row], removed: Sequence[Place] = ()) -> SavedRows:
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
        uri = self.uri
        with self._here, only_one_here(uri):
            self.refuse_if_busy()
            now = self.read()
            if now.version != version:
                raise StaleError(f"{uri} has been changed meanwhile; read it again and save then")
            kept = {place_of(row): row for row in now.rows}
            for place in removed:
                kept.pop(place, None)
            kept |= {place_of(row): row for row in rows}
            categories = categories_of(rows)
            found = [{**row, "category": categories.get(target_of(row), row.get("category"))} for row in kept.values()]
            if not found:
                files.delete(uri)
                return self.read()
            data = write_rows(sorted(found, key=_order))
            list(_rows(data, uri, self.numbers))  # what cannot be read again is not written
            files.put_bytes(uri, data)
            return self.read()

    def refuse_if_busy(self) -> None:
        """Raise RunBusyError where nothing may be saved now."""

    def numbers(self) -> Numbers:
        """Return the numbers that names of targets stand for elsewhere."""
        return {}

    def rows_of(self, video_id: str) -> list[Row]:
        """Return what is said of a video beside what is saved here."""
        return []

    def pending(self) -> list[Place]:
        """Return which of the saved rows have to be tracked."""
        return []


def place_of(row: Mapping[str, Any]) -> Place:
    return row["video_id"], row["object_id"], row.get("frame"), row.get("time")


def target_of(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["video_id"], row["object_id"]


def categories_of(rows: Iterable[Row]) -> dict[tuple[str, int], str]:
    """Of each target the last category that is given."""
    return {target_of(row): row["category"] for row in rows if row.get("category") is not None}


def write_rows(rows: Sequence[Row]) -> bytes:
    """Return rows as the CSV of a manifest."""
    others = sorted({name for row in rows for name in row} - {*_FIRST, *_LAST, "box"})
    names = [
        name for name in (*_FIRST, *others, *_LAST) if name in _ALWAYS or any(row.get(name) is not None for row in rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=quoting_of(row.get("video") for row in rows))
    writer.writerow(names)
    writer.writerows([row.get(name) for name in names] for row in rows)
    return text.getvalue().encode()


def _rows(data: bytes, uri: str, numbers: Callable[[], Numbers]) -> Iterator[Row]:
    raw = read_rows(data, uri)
    columns = check_columns(raw, uri)
    if problems := [problem.text for problem in sorted([*raw.problems, *columns.problems])]:
        raise ManifestError(f"{uri}: {len(problems)} values cannot be used; correct them", problems)
    known = columns.known
    videos = [name or uris.without_query(video) for name, video in zip(known["video_id"], known["video"], strict=True)]
    known["object_id"], names = number_names(videos, [number or 1 for number in known["object_id"]], numbers)
    table = {**known, **columns.extras}
    if any(names):
        carried = table.get(OBJECT_NAME, [None] * len(names))
        table[OBJECT_NAME] = [name or other for name, other in zip(names, carried, strict=True)]
    for values in zip(*table.values(), strict=True):
        row = dict(zip(table, values, strict=True))
        if (box := row.pop("box")) is not None:
            row |= dict(zip("xywh", box, strict=True))
        row["video_id"] = row["video_id"] or uris.without_query(row["video"])
        if row["frame"] is None and row["time"] is None:
            row["frame"] = row["start"] or 0
        yield row


def _order(row: Row) -> tuple[Any, ...]:
    return row["video_id"], row["object_id"], row.get("frame") or 0, row.get("time") or 0.0
