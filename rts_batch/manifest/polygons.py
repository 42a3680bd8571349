"""Polygons that mark a target: how they may be written, and which pixels of a frame are theirs.

They are filled as COCO's are, by pycocotools, and united: where several overlap the pixels belong to the target, so a
ring within another one makes no hole. Manifests and importers fill theirs alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final

from pycocotools import mask as coco

from rts_batch.manifest.formats import not_json
from rts_batch.masks import Box

Ring = list[float]
"""A closed outline as x, y, x, y, … in pixels: three points or more."""

FARTHEST: Final = 100_000.0
"""Pixels from the picture's corner; filling a polygon takes memory for each pixel of its outline."""

_AS: Final = "write x1 y1 x2 y2 … in pixels, and several polygons of one target as JSON: [[x, y, …], [x, y, …]]"


def parse_rings(value: Any) -> list[Ring]:
    """Read one polygon or several.

    Args:
        value: a list of numbers, of lists of numbers (COCO's), of points [x, y], or of lists of points; as such or as
            JSON. Or a text of numbers between spaces or commas; a semicolon stands between polygons, or between points.

    Raises:
        ValueError: it is none of these, or one of the polygons cannot be.
    """
    if isinstance(value, str):
        value = _of_json(value) if value.lstrip().startswith("[") else _of_text(value)
    if not isinstance(value, list | tuple):
        raise ValueError(_AS)
    if not any(isinstance(part, list | tuple) for part in value):
        return check_rings([value] if value else [])
    if all(_is_point(part) for part in value):
        value = [value]
    return check_rings([_flat(part) for part in value])


def check_rings(rings: Sequence[Any]) -> list[Ring]:
    """Return polygons as lists of floats.

    Raises:
        ValueError: there are none, or one is not three points or more of two numbers each, near the frame.
    """
    if not rings:
        raise ValueError(f"there is no polygon in it; {_AS}")
    return [_checked(ring, f"polygon {place}: " if len(rings) > 1 else "") for place, ring in enumerate(rings, start=1)]


def _checked(ring: Any, which: str) -> Ring:
    if not isinstance(ring, list | tuple) or not all(map(_is_number, ring)):
        raise ValueError(f"{which}it is not a list of numbers; {_AS}")
    if not all(math.isfinite(number) for number in ring):
        raise ValueError(f"{which}one of its numbers is not finite")
    if len(ring) % 2:
        raise ValueError(f"{which}{len(ring)} numbers, an odd count: each point has x and y")
    if len(ring) < 6:
        raise ValueError(f"{which}{len(ring) // 2} points, a polygon has three points or more")
    if max(map(abs, ring)) > FARTHEST:
        raise ValueError(f"{which}a point more than {FARTHEST:,.0f} pixels away is in no frame")
    return [float(number) for number in ring]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _of_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{not_json(text, error)}; {_AS}") from None


def _of_text(text: str) -> list[Any]:
    try:
        parts = [[float(word) for word in re.split(r"[\s,]+", part.strip(" ,\t\r\n"))] for part in text.split(";")]
    except ValueError:
        raise ValueError(_AS) from None
    return parts[0] if len(parts) == 1 else parts


def _is_point(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and not any(isinstance(x, list | tuple) for x in value)


def _flat(ring: Any) -> Any:
    points = isinstance(ring, list | tuple) and ring and all(_is_point(point) for point in ring)
    return [number for point in ring for number in point] if points else ring


def box_around(rings: Sequence[Ring]) -> Box:
    """Return the upright box around polygons."""
    x, y = ([number for ring in rings for number in ring[axis::2]] for axis in (0, 1))
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def fill_rings(rings: Sequence[Ring], height: int, width: int) -> bytes:
    """Return the COCO RLE (compressed counts) of what polygons cover together of a frame, which may be nothing."""
    merged = coco.merge(coco.frPyObjects([list(ring) for ring in rings], height, width))
    counts: bytes = merged["counts"]
    return counts
