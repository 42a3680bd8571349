"""Checks the values of a manifest's columns, a whole column at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from rts_batch.errors import ManifestError
from rts_batch.io.results.schema import RESULT_COLUMNS
from rts_batch.io.storage import uris
from rts_batch.manifest.formats import Problem, RawRows
from rts_batch.manifest.marks import check_uri, parse_box, parse_mask, parse_polygon
from rts_batch.manifest.target_names import OBJECT_NAME, number_names, parse_object_id
from rts_batch.manifest.task import Direction, PromptKind
from rts_batch.masks import Box

_MOST = 2**31 - 1
_Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=8192)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class _Column:
    kind: Any
    type: pa.DataType
    expected: str

    def adapter(self) -> TypeAdapter[list[Any]]:
        return TypeAdapter(list[self.kind | None], config=ConfigDict(coerce_numbers_to_str=True))  # type: ignore[name-defined]


_FRAME_INDEX = _Column(
    Annotated[int, Field(ge=0, le=_MOST)], pa.int32(), "a frame index: write a whole number, 0 for the first frame"
)

COLUMNS: Final[dict[str, _Column]] = {
    "video": _Column(Annotated[_Text, AfterValidator(check_uri)], pa.string(), "a path or URI of a video"),
    "video_id": _Column(_Text, pa.string(), "a name without control characters"),
    "object_id": _Column(
        Annotated[
            Annotated[int, Field(ge=1, le=_MOST)] | Annotated[str, Field(pattern=r"^[^\W\d_]")],
            Field(union_mode="left_to_right"),
            BeforeValidator(parse_object_id),
        ],
        pa.int32(),
        "an object id: write a whole number from 1 on, or a name that begins with a letter",
    ),
    "frame": _FRAME_INDEX,
    "time": _Column(Annotated[_Finite, Field(ge=0)], pa.float64(), "a time: write seconds, 0 or more"),
    "start": _FRAME_INDEX,
    "end": _Column(
        Annotated[int, Field(ge=1, le=_MOST)], pa.int32(), "a frame index: write the index after the last frame"
    ),
    "direction": _Column(Direction, pa.string(), "a direction: write forward, backward, both or bidirectional"),
    "prompt_kind": _Column(PromptKind, pa.string(), "a kind of prompt: write correct, annotate or absent"),
    "frames": _Column(Annotated[int, Field(ge=1, le=_MOST)], pa.int32(), "a length: write the number of frames"),
    "box": _Column(Annotated[Box, BeforeValidator(parse_box)], pa.string(), "a box: write x,y,w,h in pixels"),
    "x": _Column(_Finite, pa.float64(), "a number of pixels"),
    "y": _Column(_Finite, pa.float64(), "a number of pixels"),
    "w": _Column(Annotated[_Finite, Field(gt=0)], pa.float64(), "a width: write a number of pixels above 0"),
    "h": _Column(Annotated[_Finite, Field(gt=0)], pa.float64(), "a height: write a number of pixels above 0"),
    "mask": _Column(
        Annotated[_Text, Field(max_length=None), BeforeValidator(parse_mask)],
        pa.string(),
        'a mask: write the path or URI of a PNG, or a COCO RLE as {"size": [height, width], "counts": "…"}',
    ),
    "polygon": _Column(
        Annotated[str, BeforeValidator(parse_polygon)], pa.string(), "a polygon: write x1 y1 x2 y2 … in pixels"
    ),
    "category": _Column(_Text, pa.string(), "a name without control characters"),
}
"""What a manifest may say; every further column is carried into the results."""

WRITTEN_OTHERWISE: Final = ("box", "polygon")
"""Columns that a normalised manifest lacks: it says the same by x, y, w, h and by `mask`."""


@dataclass
class Columns:
    """Checked values by column; a column that the manifest does not have is all None."""

    known: dict[str, list[Any]]
    extras: dict[str, list[Any]]
    extra_types: dict[str, str]
    problems: list[Problem]
    bad: set[int]
    """Indices of the rows with a problem; their wrong values are None here."""


def check_columns(raw: RawRows, uri: str) -> Columns:
    """Check names and values of all columns.

    Raises:
        ManifestError: a column is missing, or has a name that cannot be used.
    """
    _check_names(raw, uri)
    checked = Columns({}, {}, {}, [], set())
    for name, column in COLUMNS.items():
        values = raw.columns.get(name)
        checked.known[name] = (
            [None] * len(raw.lines) if values is None else _check_column(name, column, values, raw, checked)
        )
    for name, values in raw.columns.items():
        if name not in COLUMNS:
            checked.extra_types[name], checked.extras[name] = _check_extra(name, values, raw, checked)
    _take_polygons_as_masks(raw, checked)
    return checked


def _take_polygons_as_masks(raw: RawRows, checked: Columns) -> None:
    """Put the column `polygon` into `mask`, whose values may be polygons, too."""
    masks = checked.known["mask"]
    for row, polygon in enumerate(checked.known.pop("polygon")):
        if polygon is None:
            continue
        if masks[row] is None:
            masks[row] = polygon
        else:
            where = f"{raw.place} {raw.lines[row]}"
            checked.problems.append(Problem(raw.lines[row], f"{where}: a mask and a polygon; give one of the two"))
            checked.bad.add(row)


def number_targets(columns: Columns, uri: str) -> list[str | None]:
    """Give numbers to the targets that have names, carry the names, and return each row's.

    Raises:
        ManifestError: a column of the manifest's own is where the names would go.
    """
    known = columns.known
    known["object_id"], names = number_names(known["video_id"], known["object_id"])
    if any(names):
        if OBJECT_NAME in columns.extras:
            raise ManifestError(
                f"{uri}: the names in object_id are carried as {OBJECT_NAME!r}, and there is a column of that name; "
                "rename or remove it"
            )
        columns.extra_types[OBJECT_NAME], columns.extras[OBJECT_NAME] = "string", list(names)
    return names


_MEANT: Final = {
    "bbox": "to write 'bbox' as 'box' (x,y,w,h in pixels; for corners w is x2 - x1 and h is y2 - y1)",
    "xywh": "to write 'xywh' as 'box'",
    "xyxy": "to write 'xyxy' as 'box' (x,y,w,h in pixels: w is x2 - x1 and h is y2 - y1)",
    "segmentation": "to write 'segmentation' as 'mask' (an RLE or an image) or as 'polygon'",
    **{name: f"to write {name!r} as 'polygon' (x1 y1 x2 y2 … in pixels)" for name in ("polygons", "contour")},
    "points": "to write 'points' as 'polygon' (an outline; clicks are not taken, give a box in their place)",
    "rle": "to write 'rle' as 'mask'",
    "x1": "to write x1, y1, x2, y2 as x, y, w, h (w is x2 - x1 and h is y2 - y1)",
    "xmin": "to write xmin, ymin, xmax, ymax as x, y, w, h (w is xmax - xmin and h is ymax - ymin)",
}
"""What columns of other tools' tables, where a manifest marks no target, were probably meant to be."""

CLASS_NAMES: Final = ("class", "class_name", "label", "category_name")
"""What other tools call the category. Such a column is carried like any other."""


def _likely(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _check_names(raw: RawRows, uri: str) -> None:
    seen: dict[str, str] = {}
    for name in raw.columns:
        likely = _likely(name)
        if name not in COLUMNS and likely in COLUMNS:
            raise ManifestError(f"{uri}: column {name!r} is not known; write it as {likely!r}")
        if likely in ("width", "height") and "x" in raw.columns and likely[0] not in raw.columns:
            raise ManifestError(f"{uri}: column {name!r}, as the size of a box, is written {likely[0]!r}")
        if name not in COLUMNS and likely in RESULT_COLUMNS:
            raise ManifestError(
                f"{uri}: column {name!r} would clash with the results' own {likely!r}; rename it, to 'my_{likely}' say"
            )
        if not re.fullmatch(r"[^\x00-\x1f\x7f\ud800-\udfff]+", name) or name != name.strip():
            raise ManifestError(f"{uri}: {name!r} cannot be a column's name")
        if likely in seen:
            raise ManifestError(f"{uri}: columns {seen[likely]!r} and {name!r} differ too little for SQL; rename one")
        seen[likely] = name
    if raw.columns and "video" not in raw.columns:
        comment = f" (line {raw.comments[0]} begins with # and counts as a comment)" if raw.comments else ""
        raise ManifestError(f"{uri} has no column 'video'; its columns are {', '.join(raw.columns)}{comment}")
    marks = {"box", "mask", "polygon", "x"} & set(raw.columns) or "absent" in raw.columns.get("prompt_kind", ())
    if raw.lines and not marks:
        asked = next(
            (f"; did you mean {_MEANT[likely]}?" for name in raw.columns if (likely := _likely(name)) in _MEANT), ""
        )
        raise ManifestError(
            f"{uri} marks no target: it needs a column 'box', 'mask' or 'polygon', or the columns x, y, w and h{asked}"
        )


def _check_column(name: str, column: _Column, values: list[Any], raw: RawRows, checked: Columns) -> list[Any]:
    report = _reporter(name, values, raw, checked)
    if name not in ("box", "mask", "polygon") and bool in set(map(type, values)):  # pydantic takes True for 1
        for row, value in enumerate(values):
            if isinstance(value, bool):
                report(row, f"is not {column.expected}")
        values = [None if isinstance(value, bool) else value for value in values]
    if name == "video":
        for row, value in enumerate(values):
            if value is None:
                report(row, f"is not {column.expected}")
    adapter = column.adapter()
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        wrong = {int(item["loc"][0]): item for item in error.errors(include_url=False, include_input=False)}
    for row, item in wrong.items():
        reason = f" ({item['ctx']['error']})" if item["type"] == "value_error" else ""
        report(row, f"is not {column.expected}{reason}")
    return adapter.validate_python([None if row in wrong else value for row, value in enumerate(values)])


_KINDS: Final = {bool: "true/false", int: "numbers", float: "numbers", str: "text"}

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def _check_extra(name: str, values: list[Any], raw: RawRows, checked: Columns) -> tuple[str, list[Any]]:
    """The type of a carried column and its values in that type."""
    if raw.format == "csv":
        return _type_of_text(values)
    report = _reporter(name, values, raw, checked)
    kind = next((_KINDS[type(value)] for value in values if type(value) in _KINDS), None)
    kept: list[Any] = []
    for row, value in enumerate(values):
        found = _KINDS.get(type(value))
        if value is not None and (found is None or found != kind):
            what = found or f"of type {type(value).__name__}"
            where = f" in a column of {kind}" if found else ", which no result can carry"
            report(row, f"is {what}{where}; write only numbers, only text or only true/false")
        elif value is not None and not _storable(value):
            report(row, "cannot be stored: whole numbers have 64 bits and text is Unicode; write it as plain text")
        else:
            kept.append(value)
            continue
        kept.append(None)
    if kind is None:
        return _declared(name, raw), kept
    if kind != "numbers":
        return "string" if kind == "text" else "bool", kept
    if any(isinstance(value, float) for value in kept):
        return "float64", [None if value is None else float(value) for value in kept]
    return "int64", kept


def _type_of_text(values: list[str | None]) -> tuple[str, list[Any]]:
    """Cells of a CSV: numbers or true/false where every cell is one, text otherwise (`007` is text)."""
    present = [value for value in values if value is not None]
    convert: Callable[[str], Any]
    if present and all(value in ("true", "false", "True", "False", "TRUE", "FALSE") for value in present):
        kind, convert = "bool", lambda text: text.lower() == "true"
    elif present and all(_INTEGER.fullmatch(value) and len(value) <= 20 and _storable(int(value)) for value in present):
        kind, convert = "int64", int
    elif present and all(_NUMBER.fullmatch(value) and math.isfinite(float(value)) for value in present):
        kind, convert = "float64", float
    else:
        kind, convert = "string", str
    return kind, [None if value is None else convert(value) for value in values]


def _declared(name: str, raw: RawRows) -> str:
    """The type of a column without a value: the one that the file's format declares, if any."""
    declared = raw.types.get(name, pa.string())
    if pa.types.is_boolean(declared):
        return "bool"
    if pa.types.is_integer(declared):
        return "int64"
    return "float64" if pa.types.is_floating(declared) else "string"


def _storable(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)
    return True


def _reporter(name: str, values: list[Any], raw: RawRows, checked: Columns) -> Callable[[int, str], None]:
    def report(row: int, text: str) -> None:
        line = raw.lines[row]
        value = values[row]
        if name in ("video", "mask") and isinstance(value, str):
            value = uris.safe_uri(value)
        shown = "an empty cell" if value is None else repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "…"
        checked.problems.append(Problem(line, f"{raw.place} {line}, column {name}: {shown} {text}"))
        checked.bad.add(row)

    return report
