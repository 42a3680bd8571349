"""Masks: what marks a target, what is found of it, and a mask as COCO run-length code.

COCO counts the runs of a mask down its columns, beginning with a run of zeros, and packs them into printable ASCII.
pycocotools is the reference of that packing and is used for it. Finding the runs is done here, because a tracker knows
the region outside which its mask is empty, and because pycocotools' reader believes whatever it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from rts_batch.errors import ResultsError

Box = tuple[float, float, float, float]
"""x, y, w, h in pixels; x and y are those of the upper left corner."""

Region = tuple[int, int, int, int]
"""y0, x0, y1, x1 in pixels, ends exclusive; it may reach beyond the image."""

State = Literal["prompt", "tracked", "uncertain", "mask_lost", "lost"]
"""`prompt`: the prompt's own mask; `tracked`: mask and localised; `uncertain`: mask, but not localised, too little of
it or of low quality; `mask_lost`: localised without a mask; `lost`: neither, or a mask that is not likely to lie on
the target (it stays as it was drawn)."""

STATES: Final = get_args(State)


@dataclass(frozen=True)
class Marking:
    """How a target is marked on a frame: a mask `[H, W] bool` with at least one pixel, a box, or both.

    With neither it is not in the picture, from this frame until it is marked again.
    """

    mask: NDArray[np.bool_] | None = None
    box: Box | None = None

    @property
    def absent(self) -> bool:
        """Whether it says that the target is not there."""
        return self.mask is None and self.box is None


@dataclass(frozen=True)
class TrackedFrame:
    """One target in one frame."""

    mask: NDArray[np.bool_]
    """`[H, W]`."""
    region: Region
    """Outside it the mask is empty."""
    box: Box | None
    """None where there is neither mask nor localised target."""
    area: int
    """Pixels of the mask."""
    score: float | None
    """Maximum of the score map; None on a prompt's frame."""
    confidence: float | None
    """Mean probability inside the mask; None where it is empty."""
    state: State
    signals: tuple[float, ...] | None = None
    """What `tracking.signals.signals_of` measured; None on a prompt's frame and of trackers that measure nothing."""
    quality: float | None = None
    """Expected IoU of the mask with the truth; None where there is no estimate."""


MAX_PIXELS = 2**28
"""A mask larger than this (16,384 × 16,384) is taken for rubbish, before any memory is spent on it."""

LABEL_PALETTE: Final = bytes(
    sum((label >> (channel + 3 * place) & 1) << (7 - place) for place in range(8))
    for label in range(256)
    for channel in range(3)
)
"""The 256 colours, as R, G, B in turn, of the label images of PASCAL VOC, DAVIS and YouTube-VOS: bits 0, 3, 6 of the
label become the highest bits of red, 1, 4, 7 of green, 2, 5 of blue."""

VOID: Final = 255
"""The label there of pixels of which nothing is known: they may belong to an object or to none."""

CACHED_BYTES = 1 << 18
"""What is looked at at once; it must fit a processor core's cache several times."""

_LONGEST_COUNT = 7
"""Characters of one packed count: 7 × 5 bits hold every difference of two runs below 2³² pixels."""


def encode_rle(mask: NDArray[np.bool_] | NDArray[np.uint8], region: Region | None = None) -> bytes:
    """Pack a mask into COCO's compressed counts, byte for byte what pycocotools writes for it.

    Args:
        mask: [H, W], bool or uint8; every value but zero belongs to the target.
        region: where the mask may be set. Outside it the mask must be empty: those pixels are not looked at.
    """
    height, width = mask.shape
    return compress_runs(_find_runs(mask, region), height, width)


def decode_rle(counts: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Unpack compressed counts into a mask [height, width].

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
    """Read compressed counts into the lengths of the runs, [N] int64, those of zeros at the even places.

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
    """Pack runs (at least one, zeros first) as pycocotools does; they must add up to height × width."""
    packed = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    counts: bytes = packed["counts"]
    return counts


def mask_box(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """The tight box x, y, w, h of a mask [H, W] in whole pixels, ends included; None where the mask is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    y0, y1 = int(rows[0]), int(rows[-1])
    columns = np.flatnonzero(mask[y0 : y1 + 1].any(axis=0))
    x0, x1 = int(columns[0]), int(columns[-1])
    return x0, y0, x1 - x0 + 1, y1 - y0 + 1


def jaccard(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """The intersection over the union of two masks, `[H, W] bool`; 1 where both are empty."""
    union = np.count_nonzero(found | true)
    return np.count_nonzero(found & true) / union if union else 1.0


def smaller_on_top(masks: Mapping[int, NDArray[np.bool_]]) -> dict[int, NDArray[np.bool_]]:
    """Divide the pixels that several targets' masks share: the smaller mask lies on top and keeps them.

    Args:
        masks: object id → mask [H, W], all of one size. Of masks with equally many pixels the lower id lies on top.

    Returns:
        Object id → what its mask keeps; the same array where it loses nothing.
    """
    covered: NDArray[np.bool_] | None = None
    kept: dict[int, NDArray[np.bool_]] = {}
    for object_id in sorted(masks, key=lambda key: (int(masks[key].sum()), key)):
        mask = masks[object_id]
        kept[object_id] = mask if covered is None or not (covered & mask).any() else mask & ~covered
        covered = mask if covered is None else covered | mask
    return dict(sorted(kept.items()))


def lost_pixels(masks: Mapping[int, NDArray[np.bool_]], kept: Mapping[int, NDArray[np.bool_]]) -> dict[int, int]:
    """Return object id → pixels that its mask [H, W] has lost to others on top, of those in `kept` that lost any."""
    lost = {object_id: int(masks[object_id].sum()) - int(left.sum()) for object_id, left in kept.items()}
    return {object_id: pixels for object_id, pixels in lost.items() if pixels}


def _find_runs(mask: NDArray[np.bool_] | NDArray[np.uint8], region: Region | None) -> NDArray[np.int64]:
    height, width = mask.shape
    y0, x0, y1, x1 = region or (0, 0, height, width)
    y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
    pixels = height * width
    if y0 >= y1 or x0 >= x1:
        return np.array([pixels], np.int64)
    crop = np.asarray(mask[y0:y1, x0:x1], np.bool_).view(np.uint8)
    full_height = y1 - y0 == height
    rows, columns = _changes(crop, full_height=full_height)
    positions = (x0 + columns) * height + y0 + rows
    if full_height and crop[-1, -1]:  # the end of the last column, which no other one follows
        positions = np.append(positions, x1 * height)
    positions.sort()
    if len(positions) and positions[-1] == pixels:
        positions = positions[:-1]
    runs: NDArray[np.int64] = np.diff(positions, prepend=0, append=pixels)
    return runs


def _changes(mask: NDArray[np.uint8], *, full_height: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where a mask of 0 and 1 differs from the pixel before it, down the columns: rows [N] and columns [N], unordered.

    Above and below the mask is nothing; with `full_height`, above a column is the end of the column before it.

    Rows are compared with rows as they lie in memory, eight pixels at a time. Turning the mask round first, as a search
    down its columns would need, costs more than finding and sorting the changes, which are few.
    """
    height, width = mask.shape
    words = -(-width // 8)
    at_once = max(1, min(height, CACHED_BYTES // (8 * words)))
    differences = np.zeros((at_once, 8 * words), np.uint8)
    differ = np.empty((at_once, words), np.bool_)
    places: list[NDArray[np.int64]] = []
    values: list[NDArray[np.uint64]] = []

    def note(first: int, rows: int) -> None:
        eights = differences[:rows].view(np.uint64)
        found = np.flatnonzero(np.not_equal(eights, 0, out=differ[:rows]))
        places.append(found + first * words)
        values.append(eights.reshape(-1)[found])

    for first in range(0, height, at_once):
        last = min(first + at_once, height)
        begin = max(first, 1)
        out = differences[begin - first : last - first, :width]
        np.bitwise_xor(mask[begin:last], mask[begin - 1 : last - 1], out=out)
        if first == 0:
            differences[0, :width] = mask[0]
            if full_height:
                differences[0, 1:width] ^= mask[-1, :-1]
        note(first, last - first)
    if not full_height:
        differences[0, :width] = mask[-1]
        note(height, 1)
    inside = np.flatnonzero(np.concatenate(values).view(np.bool_))
    place = np.concatenate(places)[inside >> 3]
    rows = place // words
    return rows, (place - rows * words) * 8 + (inside & 7)
