"""The rows of a detector's output, whatever it is written in: CSV, JSON nested or flat, JSON lines, MOTChallenge."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.files import read_json, read_text

Row = dict[str, Any]
"""Values by name in lower case."""

MOT_COLUMNS: Final = ("frame", "track_id", "x", "y", "w", "h", "score", "class")
"""Of MOTChallenge's files, which have no header and count frames from 1."""

_LISTS: Final = (
    "frames", "images", "detections", "objects", "predictions", "annotations", "results", "instances", "boxes"
)  # fmt: skip
"""What JSON calls its lists; any other key of a list is the name of an image."""

_BOX: Final = frozenset(
    ("box", "bbox", "xyxy", "xywh", "cxcywh", "x1", "xmin", "x_min", "cx", "xc", "xcenter")
)  # fmt: skip
"""Names of which a detection has one, unless it has x, or left, and a width."""

PREDICTIONS: Final = "predictions"
"""A name of a list of JSON, and of what its rows have beside what they say."""

_NUMBER: Final = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"
_BETWEEN: Final = r"(?:\s*,\s*|\s+)"
_NUMBERS: Final = re.compile(rf"\s*{_NUMBER}({_BETWEEN}{_NUMBER}){{5,}}\s*")


def read_table(path: Path) -> list[tuple[str, Row]]:
    """Return each row with its place in the file.

    Raises:
        ManifestError: the file is not made of rows.
        StorageError: the file cannot be read.
    """
    if path.suffix.lower() == ".json":
        rows = list(_nested(read_json(path), {}))
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        try:
            data = [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
        except ValueError as error:
            raise ManifestError(f"{path} is no JSON lines: {error}") from error
        rows = list(_nested(data, {}))
    else:
        rows = _of_csv(path)
    if not all(isinstance(row, dict) for row in rows):
        raise ManifestError(f"{path} is no list of detections; it holds one object or row for each")
    return [(f"row {number}", _flat(row)) for number, row in enumerate(rows, start=1)]


def is_mot(path: Path) -> bool:
    """Whether a file is one of MOTChallenge's: six numbers or more a line, between commas or spaces, and no header."""
    if path.suffix.lower() not in (".txt", ".csv"):
        return False
    return bool(_NUMBERS.fullmatch(next((line for line in read_text(path).splitlines() if line.strip()), "")))


def _of_csv(path: Path) -> list[Row]:
    text = read_text(path)
    if is_mot(path):
        lines = filter(None, map(str.strip, text.splitlines()))
        return [dict(zip(MOT_COLUMNS, re.split(_BETWEEN, line), strict=False)) for line in lines]
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    names = [name.strip().casefold() for name in reader.fieldnames or () if name]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ManifestError(f"{path}: the header names column {twice!r} twice")
    return list(reader)


def _nested(data: Any, outer: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the detections, each with what the objects around it say."""
    if isinstance(data, list):
        for item in data:
            yield from _nested(item, outer) if isinstance(item, dict) else [item]
    elif not isinstance(data, dict):
        yield data
    elif (lists := _lists_in(data)) is None:
        yield {**outer, **data}
    else:
        said = {**outer, **{key: value for key, value in data.items() if key not in lists and value != []}}
        for key, value in lists.items():
            where = {PREDICTIONS: True} if key.casefold() == PREDICTIONS else {}
            yield from _nested(value, {**said, **where} if key.casefold() in _LISTS else {**said, "image": key})


def _lists_in(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The lists of detections in an object, empty ones too; None where it is itself a detection.

    Lists beside a box belong to it, key points say, and lists beside those of a known name have none.
    """
    if _has_box({key.strip().casefold() for key in data}):
        return None
    held = {key: value for key, value in data.items() if _holds_objects(value)}
    known = {key: value for key, value in data.items() if key.casefold() in _LISTS and (key in held or value == [])}
    if known:
        return known
    return held if held or all(value == [] for value in data.values()) else None


def _has_box(names: Set[str]) -> bool:
    corner_and_width = not {"x", "left"}.isdisjoint(names) and not {"w", "width"}.isdisjoint(names)
    return corner_and_width or not _BOX.isdisjoint(names)


def _holds_objects(value: Any) -> bool:
    """Whether a value is a list of objects, or an object with such a list of a known name or of nothing but lists."""
    if isinstance(value, dict):
        holders = [key for key, inner in value.items() if _holds_objects(inner)]
        only = all(isinstance(inner, dict | list) for inner in value.values())
        return (only and bool(holders)) or any(key.casefold() in _LISTS for key in holders)
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _flat(row: Mapping[str, Any]) -> Row:
    """A row by names in lower case; a box that is an object of named sides is these."""
    found = {str(key).strip().casefold(): value for key, value in row.items() if key is not None}
    for name in ("box", "bbox"):
        if isinstance(found.get(name), dict):
            found |= {str(key).casefold(): value for key, value in found.pop(name).items()}
    return found
