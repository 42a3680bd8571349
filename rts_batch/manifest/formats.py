"""From the bytes of a manifest to named columns of raw values, each row with its place in the file."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pyarrow as pa

from rts_batch.errors import ManifestError
from rts_batch.io.storage.parquet import read_parquet

Format = Literal["csv", "jsonl", "parquet"]

FOLDER_KEY: Final = b"rts_batch.folder"
"""Metadata of a normalised manifest: the folder that its relative paths belong to."""

_ENDINGS: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

_SEPARATOR: Final = re.compile(r'"?sep=(.)"?[,;\t ]*\r?\n', re.IGNORECASE)
"""A first line by which a file tells Excel its separator."""

_INDEX: Final = re.compile(r"__index_level_\d+__|Unnamed: 0(\.\d+)*|")
"""What pandas calls an index without a name: in Parquet, in a CSV read back, in a CSV."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    line: int
    text: str


@dataclass
class RawRows:
    """The rows of a manifest by column; None stands for a cell that is empty, blank, null or NaN."""

    format: Format
    columns: dict[str, list[Any]]
    lines: list[int]
    problems: list[Problem] = field(default_factory=list)
    """Lines that are no rows at all."""
    comments: list[int] = field(default_factory=list)
    """Lines that were passed over because they begin with `#` (JSON lines: or `//`)."""
    commented_rows: list[int] = field(default_factory=list)
    """Those of them that have as many cells as a row."""
    types: dict[str, pa.DataType] = field(default_factory=dict)
    """The columns' types, where the format has any."""
    folder: str | None = None
    """The folder that relative paths belong to, where the file says so itself."""

    @property
    def place(self) -> str:
        return "row" if self.format == "parquet" else "line"


def read_rows(data: bytes, uri: str) -> RawRows:
    """Read a manifest's bytes; the name's ending or, failing that, the content says which format it is.

    Raises:
        ManifestError: the file as a whole cannot be read, or its columns' names cannot be used.
    """
    if not data.strip():
        raise ManifestError(f"{uri} is empty: write one row for each target, with at least video and box or mask")
    kind = format_of(data, uri)
    if kind == "parquet":
        rows = _read_parquet(data, uri)
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ManifestError(
                f"{uri}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8"
            ) from None
        if kind == "csv":
            return _read_csv(text, uri)
        rows = _read_jsonl(text, uri)
    rows.columns = {name: [_blank_to_none(value) for value in values] for name, values in rows.columns.items()}
    for name in ("box", "mask", "polygon"):
        if name in rows.columns:
            rows.columns[name] = [_without_nulls(value) for value in rows.columns[name]]
    return rows


def format_of(data: bytes, uri: str) -> Format:
    """Return a manifest's format, by its name's ending or by how it begins."""
    name = uri.split("?")[0].lower()
    for ending, kind in _ENDINGS.items():
        if name.endswith(ending):
            return kind
    if data.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "csv"


class _CsvLines:
    """The lines of a CSV as `csv.reader` takes them, without those that begin with `#` where a row would begin."""

    def __init__(self, text: str) -> None:
        separator = _SEPARATOR.match(text)
        self.delimiter = separator[1] if separator else ","
        self.number = 1 if separator else 0
        """Of the line given last, from 1."""
        self.row = 0
        """Of the line with which the row in hand begins."""
        self.comments: dict[int, str] = {}
        self._lines = io.StringIO(text[separator.end() :] if separator else text, newline="")
        self._in_row = False

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            self.number += 1
            if not self._in_row and line.lstrip().startswith("#"):
                self.comments[self.number] = line
                continue
            if not self._in_row:
                self._in_row, self.row = True, self.number
            return line
        raise StopIteration

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the first line and the cells of each row."""
        for cells in csv.reader(self, strict=True, delimiter=self.delimiter):
            self._in_row = False
            yield self.row, cells

    def commented_rows(self, cells: int) -> list[int]:
        """Return the comments that would be rows of so many cells."""
        found = []
        for line, text in self.comments.items():
            with contextlib.suppress(csv.Error):
                found += [line for row in csv.reader([text], delimiter=self.delimiter) if len(row) == cells > 1]
        return found


def _read_csv(text: str, uri: str) -> RawRows:
    problems: list[Problem] = []
    lines: list[int] = []
    cells: list[list[str]] = []
    header: list[str] = []
    source = _CsvLines(text)
    limit = csv.field_size_limit(max(len(text), 1))  # a mask's RLE may be longer than the default allows
    try:
        for line, row in source.rows():
            if not any(row):
                continue
            if not header:
                header = [name.strip() for name in row]
                _check_header(header, uri)
                continue
            if len(row) > len(header) and not any(cell.strip() for cell in row[len(header) :]):
                row = row[: len(header)]  # a spreadsheet's empty columns
            if len(row) == len(header):
                lines.append(line)
                cells.append(row)
            else:
                hint = '; a box of four numbers needs quotes: "10,20,30,40"' if len(row) > len(header) else ""
                problems.append(Problem(line, f"line {line}: {len(row)} cells, the header names {len(header)}{hint}"))
    except csv.Error as error:
        line = source.number
        problems.append(Problem(line, f"line {line}: {error}; the lines from here on cannot be read"))
    finally:
        csv.field_size_limit(limit)
    columns = [[cell.strip() or None for cell in column] for column in zip(*cells, strict=True)] or [[] for _ in header]
    return RawRows(
        "csv",
        _named(header, columns, uri),
        lines,
        problems,
        comments=list(source.comments),
        commented_rows=source.commented_rows(len(header)),
    )


def _check_header(header: list[str], uri: str) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ManifestError(f"{uri}: the columns are not separated by commas; save the file as comma-separated CSV")
    for name in header:
        if name and header.count(name) > 1:
            raise ManifestError(f"{uri}: the header names column {name!r} twice")


def _named(header: list[str], columns: list[list[Any]], uri: str) -> dict[str, list[Any]]:
    """Return the columns by name, without the index of a data frame and without empty ones that have no name.

    Raises:
        ManifestError: a column without a name that is neither.
    """
    named = {}
    for place, (name, values) in enumerate(zip(header, columns, strict=True)):
        if _INDEX.fullmatch(name):
            if name.startswith("__index") or (_whole_numbers(values) and (name or place == 0 or not any(values))):
                continue
            if not name:
                raise ManifestError(
                    f"{uri}: column {place + 1} has no name in the header line, and is not the row numbers that a data "
                    "frame writes first; name it, or remove it"
                )
        named[name] = values
    return named


def _whole_numbers(values: list[Any]) -> bool:
    """Whether all values are whole numbers, or not given."""
    return all(value is None or re.fullmatch(r"\d+(\.0)?", str(value)) for value in values)


def _read_jsonl(text: str, uri: str) -> RawRows:
    if text.lstrip().startswith("["):
        raise ManifestError(f"{uri} is one JSON list; write JSON lines: one object on each line, no brackets or commas")
    problems: list[Problem] = []
    lines: list[int] = []
    objects: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    comments: list[int] = []
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        if content.lstrip().startswith(("#", "//")):
            comments.append(line)
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(line, f"line {line}: {not_json(content, error)}; write one object on each line"))
            continue
        if not isinstance(row, dict):
            problems.append(Problem(line, f'line {line}: {_kind(row)}, not a JSON object; write {{"video": …}}'))
            continue
        lines.append(line)
        objects.append(row)
        names.update(dict.fromkeys(row))
    columns = [[row.get(name) for row in objects] for name in names]
    return RawRows("jsonl", _named(list(names), columns, uri), lines, problems, comments=comments)


def not_json(text: str, error: Exception) -> str:
    """Say why a text is not JSON; Python's way of writing a value is known from the quotes."""
    if re.match(r"\s*[\[{(]\s*b?'", text):
        return "not JSON but what Python prints of a value: write it with json.dumps (bytes: .decode() them first)"
    return f"not JSON ({error})"


def _read_parquet(data: bytes, uri: str) -> RawRows:
    try:
        table = read_parquet(data)
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ManifestError(f"{uri} is not a Parquet file that can be read: {error}") from error
    names = table.column_names
    _check_header(names, uri)
    folder = (table.schema.metadata or {}).get(FOLDER_KEY)
    return RawRows(
        "parquet",
        _named(names, columns, uri),
        list(range(1, table.num_rows + 1)),
        types=dict(zip(names, table.schema.types, strict=True)),
        folder=folder.decode(errors="replace") if folder else None,
    )


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _blank_to_none(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _without_nulls(mark: Any) -> Any:
    """A mark without the keys that Arrow fills in where other rows have them; None where it holds nothing."""
    if isinstance(mark, dict):
        mark = {key: value for key, value in mark.items() if value is not None}
    return None if isinstance(mark, dict | list) and not mark else mark


def quoting_of(videos: Iterable[Any]) -> Literal[0, 2]:
    """How a CSV of these videos, one a row, is quoted: a line that begins with # without a quote is a comment."""
    return csv.QUOTE_NONNUMERIC if any(str(name).lstrip().startswith("#") for name in videos) else csv.QUOTE_MINIMAL
