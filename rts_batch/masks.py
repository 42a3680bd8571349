"""Masks as COCO run-length codes, and the boxes that enclose them.

COCO counts the runs of a mask down its columns, beginning with a run of zeros, and packs them into printable ASCII.
pycocotools is the reference of that packing and is used for it. Finding the runs is done here, because a tracker knows
the region outside which its mask is empty, and because pycocotools' reader believes whatever it is given.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from rts_batch.errors import PromptError, ResultsError

__all__ = [
    "MAX_PIXELS",
    "Box",
    "Region",
    "compress_runs",
    "decode_mask_image",
    "decode_rle",
    "encode_rle",
    "mask_box",
    "parse_rle",
]

Box = tuple[float, float, float, float]
"""x, y, w, h in pixels; x and y are those of the upper left corner."""

Region = tuple[int, int, int, int]
"""y0, x0, y1, x1 in pixels, ends exclusive; it may reach beyond the image."""

MAX_PIXELS = 2**28
"""A mask larger than this (16,384 × 16,384) is taken for rubbish, before any memory is spent on it."""

_LONGEST_COUNT = 7
"""Characters of one packed count: 7 × 5 bits hold every difference of two runs below 2³² pixels."""


def encode_rle(mask: NDArray[np.bool_] | NDArray[np.uint8], region: Region | None = None) -> bytes:
    """Packs a mask into COCO's compressed counts, byte for byte what pycocotools writes for it.

    Args:
        mask: [H, W], bool or uint8; every value but zero belongs to the target.
        region: where the mask may be set. Outside it the mask must be empty: those pixels are not looked at.
    """
    height, width = mask.shape
    return compress_runs(_find_runs(mask, region), height, width)


def decode_rle(counts: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Unpacks compressed counts into a mask [height, width].

    Raises:
        ResultsError: the counts are not those of a mask of this size.
    """
    runs = parse_rle(counts, height, width)
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, runs).reshape(width, height)
    mask: NDArray[np.bool_] = cv2.transpose(columns).view(np.bool_)
    return mask


def parse_rle(counts: bytes, height: int, width: int) -> NDArray[np.int64]:
    """Reads compressed counts into the lengths of the runs, [N] int64, those of zeros at the even places.

    Raises:
        ResultsError: a byte that no count has, a count without an end, or runs that do not fill the mask.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ResultsError(f"a mask of {height}×{width} pixels is not one that can be decoded")
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(digits):
        raise ResultsError("the RLE is empty; even an empty mask has one run")
    wrong = np.flatnonzero((digits < 0) | (digits > 63))
    if len(wrong):
        raise ResultsError(f"byte {wrong[0]} of the RLE is {counts[wrong[0]]:#04x}, which no COCO count contains")
    last = np.flatnonzero(digits & 32 == 0)  # the digits that end a count
    if not len(last) or last[-1] != len(digits) - 1:
        raise ResultsError("the RLE breaks off in the middle of a count")
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > _LONGEST_COUNT:
        raise ResultsError(f"count {int(lengths.argmax())} of the RLE is longer than any run can be")

    first = last - lengths + 1
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= ((digits[last] & 16) != 0).astype(np.int64) << (5 * lengths)  # two's complement
    # From the fourth on, a count is packed as its difference from the count before the last.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    # Bounded one by one first, so that the sum cannot overflow into the right answer.
    if values.min() < 0 or values.max() > height * width or values.sum() != height * width:
        raise ResultsError(f"the runs of the RLE do not add up to the {height}×{width} pixels of the mask")
    return values


def compress_runs(runs: NDArray[np.int64], height: int, width: int) -> bytes:
    """Packs runs (at least one, zeros first) as pycocotools does; they must add up to height × width."""
    packed = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    counts: bytes = packed["counts"]
    return counts


def decode_mask_image(data: bytes, object_id: int) -> NDArray[np.bool_]:
    """Reads a mask [H, W] from the bytes of a PNG: grey, black and white, or palette (whose indices count).

    Where all values are 0 and 1, or 0 and 255, whatever is not 0 belongs to the target; otherwise what equals
    `object_id` does.

    Raises:
        PromptError: not a PNG, or one of colours.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PromptError(f"the mask is {image.width}×{image.height} pixels, more than any video has")
            if image.mode in ("RGB", "RGBA", "LA"):
                channels = np.asarray(image.convert("RGB"))
                if (channels != channels[:, :, :1]).any():
                    raise PromptError("the mask is a PNG of colours; write a grey or a palette PNG")
                values = channels[:, :, 0]
            else:
                values = np.asarray(image)  # of a palette image, the indices
    except PromptError:
        raise
    except Exception as error:  # Pillow raises half a dozen kinds for damaged files
        raise PromptError(f"the mask is not a PNG that can be read: {error}") from error
    present = set(np.unique(values).tolist())
    marked: NDArray[np.bool_] = values != 0 if present <= {0, 1} or present <= {0, 255} else values == object_id
    return marked


def mask_box(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """The tight box x, y, w, h of a mask [H, W] in whole pixels, ends included; None where the mask is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    y0, y1 = int(rows[0]), int(rows[-1])
    columns = np.flatnonzero(mask[y0 : y1 + 1].any(axis=0))
    x0, x1 = int(columns[0]), int(columns[-1])
    return x0, y0, x1 - x0 + 1, y1 - y0 + 1


def _find_runs(mask: NDArray[np.bool_] | NDArray[np.uint8], region: Region | None) -> NDArray[np.int64]:
    height, width = mask.shape
    y0, x0, y1, x1 = region or (0, 0, height, width)
    y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
    pixels = height * width
    if y0 >= y1 or x0 >= x1:
        return np.array([pixels], np.int64)

    crop = np.asarray(mask[y0:y1, x0:x1], np.bool_).view(np.uint8)
    if crop.strides[1] != 1:
        crop = np.ascontiguousarray(crop)
    top, left, bottom, right = _occupied(crop)
    crop = crop[top:bottom, left:right]
    y0, x0, y1, x1 = y0 + top, x0 + left, y0 + bottom, x0 + right
    if y0 >= y1:
        return np.array([pixels], np.int64)
    # Where a column ends before the image does, a zero stands between it and the next: no run crosses it.
    length = y1 - y0 + (y1 - y0 < height)
    columns = np.empty((x1 - x0, length), np.uint8)
    columns[:, -1] = 0
    # OpenCV's transpose is several times faster than NumPy's, and copies as little as possible is what counts here.
    cv2.transpose(crop, dst=columns[:, : y1 - y0])
    flat = columns.reshape(-1)
    changes = _changes(flat)
    if flat[0]:
        changes = np.concatenate([[0], changes])
    if flat[-1]:
        changes = np.concatenate([changes, [flat.size]])
    column, row = np.divmod(changes, length)
    positions = (x0 + column) * height + y0 + row  # a run's end in a separator is the pixel below the region
    runs: NDArray[np.int64] = np.diff(positions[positions < pixels], prepend=0, append=pixels)
    return runs


def _changes(flat: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The places [N] at which a value differs from the one before it, found eight at a time: there are few."""
    differs = np.empty(-(-flat.size // 8) * 8, np.bool_)
    differs[0] = False
    differs[flat.size :] = False
    np.not_equal(flat[1:], flat[:-1], out=differs[1 : flat.size])
    eights = np.flatnonzero(differs.view(np.uint64) != 0)
    within = np.flatnonzero(differs.reshape(-1, 8)[eights])
    places: NDArray[np.int64] = eights[within >> 3] * 8 + (within & 7)
    return places


def _occupied(mask: NDArray[np.uint8]) -> Region:
    """Where a mask of 0 and 1 is set, to eight columns exactly; no rows where it is empty.

    Looks at eight pixels at a time: most of a frame is empty, and this is far cheaper than finding runs in it.
    """
    width = mask.shape[1]
    wide = width // 8 * 8
    words = mask[:, :wide].view(np.uint64)
    used = np.flatnonzero(np.bitwise_or.reduce(words, axis=0))
    rest = bool(mask[:, wide:].any())
    if not len(used) and not rest:
        return 0, 0, 0, 0
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (wide // 8, wide // 8)
    rows = np.bitwise_or.reduce(words[:, first:last], axis=1) != 0
    if rest:
        rows |= mask[:, wide:].any(axis=1)
    lines = np.flatnonzero(rows)
    return int(lines[0]), first * 8, int(lines[-1]) + 1, width if rest else last * 8
