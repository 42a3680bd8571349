"""From the bytes of a manifest to named columns of raw values, each row with its place in the file."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pyarrow as pa

from rts_batch.errors import ManifestError
from rts_batch.io.storage.parquet import read_parquet

__all__ = ["FOLDER_KEY", "Format", "Problem", "RawRows", "read_rows"]

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
    types: dict[str, pa.DataType] = field(default_factory=dict)
    """The columns' types, where the format has any."""
    folder: str | None = None
    """The folder that relative paths belong to, where the file says so itself."""

    @property
    def place(self) -> str:
        return "row" if self.format == "parquet" else "line"


def read_rows(data: bytes, uri: str) -> RawRows:
    """Reads a manifest's bytes; the name's ending or, failing that, the content says which format it is.

    Raises:
        ManifestError: the file as a whole cannot be read, or its columns' names cannot be used.
    """
    if not data.strip():
        raise ManifestError(f"{uri} is empty: write one row for each target, with at least video and box or mask")
    kind = _format(data, uri)
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
    return rows


def _format(data: bytes, uri: str) -> Format:
    name = uri.split("?")[0].lower()
    for ending, kind in _ENDINGS.items():
        if name.endswith(ending):
            return kind
    if data.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "csv"


def _read_csv(text: str, uri: str) -> RawRows:
    problems: list[Problem] = []
    lines: list[int] = []
    cells: list[list[str]] = []
    header: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    limit = csv.field_size_limit(max(len(text), 1))  # a mask's RLE may be longer than the default allows
    try:
        header = [name.strip() for name in next((row for row in reader if any(row)), [])]
        _check_header(header, uri)
        before = reader.line_num
        for row in reader:
            line, before = before + 1, reader.line_num
            if len(row) == len(header):
                lines.append(line)
                cells.append(row)
            elif any(row):
                hint = '; a box of four numbers needs quotes: "10,20,30,40"' if len(row) > len(header) else ""
                problems.append(Problem(line, f"line {line}: {len(row)} cells, the header names {len(header)}{hint}"))
    except csv.Error as error:
        line = reader.line_num
        problems.append(Problem(line, f"line {line}: {error}; the lines from here on cannot be read"))
    finally:
        csv.field_size_limit(limit)
    columns = [[cell.strip() or None for cell in column] for column in zip(*cells, strict=True)] or [[] for _ in header]
    return RawRows("csv", dict(zip(header, columns, strict=True)), lines, problems)


def _check_header(header: list[str], uri: str) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ManifestError(f"{uri}: the columns are not separated by commas; save the file as comma-separated CSV")
    for place, name in enumerate(header, 1):
        if not name:
            raise ManifestError(f"{uri}: column {place} has no name in the header line")
        if header.count(name) > 1:
            raise ManifestError(f"{uri}: the header names column {name!r} twice")


def _read_jsonl(text: str, uri: str) -> RawRows:
    if text.lstrip().startswith("["):
        raise ManifestError(f"{uri} is one JSON list; write JSON lines: one object on each line, no brackets or commas")
    problems: list[Problem] = []
    lines: list[int] = []
    objects: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(line, f"line {line}: not JSON ({error}); write one object on each line"))
            continue
        if not isinstance(row, dict):
            problems.append(Problem(line, f'line {line}: {_kind(row)}, not a JSON object; write {{"video": …}}'))
            continue
        lines.append(line)
        objects.append(row)
        names.update(dict.fromkeys(row))
    columns = {name: [row.get(name) for row in objects] for name in names}
    return RawRows("jsonl", columns, lines, problems)


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
        dict(zip(names, columns, strict=True)),
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
