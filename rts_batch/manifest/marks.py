"""How a row marks its target: the values of `box` and `mask`, and of columns that hold a path or URI."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import numpy as np

from rts_batch.errors import ResultsError, StorageError
from rts_batch.io.storage import uris
from rts_batch.manifest.boxes import is_impossible
from rts_batch.manifest.formats import not_json
from rts_batch.manifest.polygons import box_around, fill_rings, parse_rings
from rts_batch.masks import MAX_PIXELS, Box, compress_runs, parse_rle

_POLYGON: Final = re.compile(r"[\[(][-+\[\](){}\d.,e\s]+[\])]|\[\s*\{.*\}\s*\]|(multi)?polygon\s*\(.*\)", re.I | re.S)
"""A list of numbers or of objects, in JSON or as Python prints it, and well-known text."""

_EMBEDDED: Final = re.compile(r"data:|iVBORw0KGgo")
"""How a picture begins that is written as text: as an address of its own, or a PNG in base64."""

_KAGGLE: Final = re.compile(r"\d+(\s+\d+)+")

POLYGON: Final = "a list of points is no mask; if it is a polygon, write it in the column polygon"


def parse_box(value: Any) -> Box:
    """Read "x,y,w,h", a JSON list of that, or a list."""
    if isinstance(value, str):
        bracketed = value[:1] + value[-1:] in ("[]", "()")
        value = (value[1:-1] if bracketed else value).split(",")
    if not isinstance(value, list | tuple) or len(value) != 4 or any(isinstance(number, bool) for number in value):
        raise ValueError("expected four numbers")
    try:
        x, y, w, h = (float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("expected four numbers") from None
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError("expected finite numbers")
    if w <= 0 or h <= 0:
        raise ValueError("its width and height must be above 0")
    return x, y, w, h


def check_uri(value: str) -> str:
    try:
        uris.check_uri(value)
    except StorageError as error:
        raise ValueError(str(error)) from None
    return value


def parse_mask(value: Any) -> str:
    """Return a path or URI as it is, an RLE as canonical JSON.

    Polygons with the size of their frame become an RLE; without it they stay what they are.
    """
    if isinstance(value, str) and not value.startswith("{"):
        if _POLYGON.fullmatch(value):
            raise ValueError(POLYGON)
        if _EMBEDDED.match(value):
            raise ValueError("a picture is no text here; save it as a file and write its path")
        if _KAGGLE.fullmatch(value):
            raise ValueError("a row of numbers, as Kaggle's starts and lengths, is no mask; make COCO's RLE of them")
        return check_uri(value)
    if isinstance(value, list | tuple):
        raise ValueError(POLYGON)
    try:
        drawing = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(not_json(value, error)) from None
    if isinstance(drawing, dict) and set(drawing) == {"polygons"}:
        return parse_polygon(drawing["polygons"])
    if not isinstance(drawing, dict) or set(drawing) not in ({"size", "counts"}, {"size", "polygons"}):
        raise ValueError("an RLE has exactly the keys size and counts, polygons have size and polygons")
    height, width = _parse_size(drawing["size"])
    if "polygons" in drawing:
        code = fill_rings(parse_rings(drawing["polygons"]), height, width)
    else:
        code = _parse_counts(drawing["counts"], height, width)
    try:
        runs = parse_rle(code, height, width)
    except ResultsError as error:
        raise ValueError(str(error)) from None
    if not runs[1::2].any():
        raise ValueError("the mask is empty")
    return json.dumps({"size": [height, width], "counts": code.decode("ascii")}, separators=(",", ":"))


def parse_polygon(value: Any) -> str:
    """Return polygons, which are filled when the frame's size is known, as canonical JSON of a `mask`."""
    rings = parse_rings(value)
    if is_impossible(box := box_around(rings)):
        raise ValueError(
            f"it is {box[2]:g} wide and {box[3]:g} high, less than a pixel; multiply fractions by the frame's width "
            "and height"
        )
    written = [[int(number) if number.is_integer() else number for number in ring] for ring in rings]
    return json.dumps({"polygons": written}, separators=(",", ":"))


def _parse_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, list) or len(size) != 2 or not all(_is_whole(side) and side >= 1 for side in size):
        raise ValueError("its size must be [height, width]")
    height, width = map(int, size)
    if height * width > MAX_PIXELS:
        raise ValueError("its size is more than any video's")
    return height, width


def _parse_counts(counts: Any, height: int, width: int) -> bytes:
    """Return counts, compressed already or a list of runs, as compressed ones."""
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str):
        if re.fullmatch(r"b'.*'|b\".*\"", counts, re.DOTALL):
            raise ValueError("its counts are what Python prints of bytes: .decode() them before they are written")
        return counts.encode()
    if not isinstance(counts, list) or not all(_is_whole(run) and run >= 0 for run in counts):
        raise ValueError("its counts must be a string or a list of run lengths")
    if not counts or sum(counts) != height * width:
        raise ValueError("its counts do not add up to its size")
    return compress_runs(np.array(counts, np.int64), height, width)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def drawing_of(mask: str | None) -> dict[str, Any] | None:
    """What a checked `mask` value draws itself: an RLE, or `polygons`; None where it is a path or URI."""
    if mask is None or not mask.startswith("{"):
        return None
    drawing: dict[str, Any] = json.loads(mask)
    return drawing
