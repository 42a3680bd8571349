"""Masks as tools write them (polygons, runs, arrays) made into COCO's compressed RLE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from rts_batch.errors import ResultsError
from rts_batch.manifest.importers.base import Rle
from rts_batch.manifest.polygons import fill_rings, parse_rings
from rts_batch.masks import MAX_PIXELS, decode_rle, encode_rle, parse_rle


def mask_rle(mask: NDArray[Any]) -> Rle | None:
    """The RLE of a mask [H, W]; None where it is empty."""
    mask = np.ascontiguousarray(mask, dtype=bool)
    if not mask.any():
        return None
    return {"size": list(mask.shape), "counts": encode_rle(mask).decode("ascii")}


def polygons_rle(polygons: Sequence[Sequence[float]], width: int, height: int) -> Rle | None:
    """Fill polygons (x, y, x, y … in pixels) as pycocotools does and unite them; None where nothing is left.

    Raises:
        ValueError: a polygon of less than three points, not of pairs of numbers, or far outside.
    """
    width, height = _size(width, height)
    return mask_rle(decode_rle(fill_rings(parse_rings(polygons), height, width), height, width))


def _size(width: Any, height: Any) -> tuple[int, int]:
    """Width and height as whole numbers; raises ValueError where no picture has them."""
    try:
        width, height = int(width), int(height)
    except (TypeError, OverflowError) as error:
        raise ValueError("a size that no picture has") from error
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError("a size that no picture has")
    return width, height


def filled_polygon(points: NDArray[np.float64], width: int, height: int) -> Rle | None:
    """Fill one polygon [N, 2] as YOLO's tools do: corners cut to whole pixels, even-odd, edges included."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask_rle(mask)


def coco_rle(value: Any) -> Rle | None:
    """COCO's RLE, compressed or a list of runs, checked; None where the mask is empty.

    Raises:
        ValueError: it is none.
    """
    try:
        height, width = value["size"]
        width, height = _size(width, height)
        counts = value["counts"]
        if isinstance(counts, list):
            if any(run < 0 for run in counts) or sum(counts) != height * width:
                raise ValueError("runs that do not add up to the mask's size")
            counts = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
        code = counts if isinstance(counts, bytes) else counts.encode("ascii")
        runs = parse_rle(code, height, width)
    except (KeyError, TypeError, AttributeError, UnicodeError, ResultsError) as error:
        raise ValueError(f"no RLE of COCO: {error}") from error
    if not runs[1::2].any():
        return None
    return mask_rle(decode_rle(code, height, width))
