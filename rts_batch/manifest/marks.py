"""How a row marks its target: the values of `box` and `mask`, and of columns that hold a path or URI."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from rts_batch.errors import ResultsError, StorageError
from rts_batch.io.storage import uris
from rts_batch.masks import MAX_PIXELS, Box, compress_runs, parse_rle

__all__ = ["check_uri", "parse_box", "parse_mask", "rle_of"]


def parse_box(value: Any) -> Box:
    """Reads "x,y,w,h", a JSON list of that, or a list."""
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
    """Returns a path or URI as it is, an RLE as canonical JSON."""
    if isinstance(value, str) and not value.startswith("{"):
        return check_uri(value)
    try:
        rle = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(rle, dict) or set(rle) != {"size", "counts"}:
        raise ValueError("an RLE has exactly the keys size and counts")
    size, counts = rle["size"], rle["counts"]
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise ValueError("its size must be [height, width]")
    height, width = size
    if height * width > MAX_PIXELS:
        raise ValueError("its size is more than any video's")
    if isinstance(counts, str | bytes):
        code = counts.encode() if isinstance(counts, str) else counts
        try:
            runs = parse_rle(code, height, width)
        except ResultsError as error:
            raise ValueError(str(error)) from None
    elif isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts):
        if not counts or sum(counts) != height * width:
            raise ValueError("its counts do not add up to its size")
        runs = np.array(counts, np.int64)
        code = compress_runs(runs, height, width)
    else:
        raise ValueError("its counts must be a string or a list of run lengths")
    if not runs[1::2].any():
        raise ValueError("the mask is empty")
    return json.dumps({"size": [height, width], "counts": code.decode("ascii")}, separators=(",", ":"))


def rle_of(mask: str | None) -> dict[str, Any] | None:
    """The RLE that a checked `mask` value holds, None where it is a path or URI."""
    if mask is None or not mask.startswith("{"):
        return None
    rle: dict[str, Any] = json.loads(mask)
    return rle
