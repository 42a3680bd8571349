"""Triton kernels that cut: the crop out of the frame, and the last mask as it lies in a crop."""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.common import bytes_of, floats, number, source_of, wholes
from rts_batch.tracking.gpu.kernels.offsets import (
    FIELD_FLAGS,
    FIELD_FORCED,
    FIELD_FRAME,
    FIELD_INSIDE,
    FIELD_LENGTH,
    FIELD_PLACES,
    FIELD_PREPARES,
    FIELD_PREVIOUS,
    FIELD_SEGMENTATION,
    FIELD_STORES,
    FIELD_VALUES,
    FIELD_WIDTH,
    FLAG_LOST_LOCALISATION,
    FLAG_LOST_MASK,
    KEPT_GATE,
    PLACE_COUNT,
    PLACE_FIRST,
    PLACE_INNER,
    PLACE_OFFSET,
    PLACE_STRIDE,
    VALUE_PLACEMENT,
)


@triton.jit
def _pixel(cell, first, inner, stride, offset):
    return (tl.minimum(tl.maximum(first + cell, 0.0), inner - 1) * stride + offset).to(tl.int32)


@triton.jit
def _seen(entry, row, column, valid, width, CROP_HEIGHT: tl.constexpr):
    """`region.sample_mask` of some pixels of the crop."""
    previous = floats(entry, FIELD_PREVIOUS)
    places, held = wholes(entry, FIELD_PLACES), bytes_of(entry, FIELD_INSIDE)
    column += CROP_HEIGHT
    y, x = tl.load(places + row, mask=valid, other=0), tl.load(places + column, mask=valid, other=0)
    inside = (tl.load(held + row, mask=valid, other=0) != 0) & (tl.load(held + column, mask=valid, other=0) != 0)
    return tl.where(inside, tl.load(previous + y * width + x, mask=valid, other=0.0), 0.0)


@triton.jit
def cut(
    table, crops, previous_crops,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, PREVIOUS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`region.sample_image` of every pixel of the crop, and the last mask in it, to the network's places."""
    number_of_place = tl.program_id(1)
    entry = table + number_of_place * FIELD_LENGTH
    if tl.load(entry + FIELD_PREPARES) == 0:
        return
    frame = tl.load(entry + FIELD_FRAME).to(tl.pointer_type(tl.uint8))
    placement, width = floats(entry, FIELD_VALUES) + VALUE_PLACEMENT, number(entry, FIELD_WIDTH)
    crop = crops + number_of_place * 3 * CROP_HEIGHT * CROP_WIDTH
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < CROP_HEIGHT * CROP_WIDTH
    row, column = at // CROP_WIDTH, at % CROP_WIDTH
    count_y, count_x = tl.load(placement + PLACE_COUNT), tl.load(placement + PLACE_COUNT + 1)
    stride = tl.load(placement + PLACE_STRIDE)
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    top, bottom, down = source_of(row.to(tl.float32), tl.div_rn(count_y, crop_height), count_y)
    left, right, across = source_of(column.to(tl.float32), tl.div_rn(count_x, crop_width), count_x)
    first_y, offset_y, inner_y = (
        tl.load(placement + PLACE_FIRST),
        tl.load(placement + PLACE_OFFSET),
        tl.load(placement + PLACE_INNER),
    )
    first_x, offset_x, inner_x = (
        tl.load(placement + PLACE_FIRST + 1),
        tl.load(placement + PLACE_OFFSET + 1),
        tl.load(placement + PLACE_INNER + 1),
    )
    top = _pixel(top, first_y, inner_y, stride, offset_y) * width
    bottom = _pixel(bottom, first_y, inner_y, stride, offset_y) * width
    left = _pixel(left, first_x, inner_x, stride, offset_x)
    right = _pixel(right, first_x, inner_x, stride, offset_x)
    for channel in tl.static_range(3):
        a = tl.load(frame + (top + left) * 3 + channel, mask=valid, other=0).to(tl.float32)
        b = tl.load(frame + (top + right) * 3 + channel, mask=valid, other=0).to(tl.float32)
        c = tl.load(frame + (bottom + left) * 3 + channel, mask=valid, other=0).to(tl.float32)
        d = tl.load(frame + (bottom + right) * 3 + channel, mask=valid, other=0).to(tl.float32)
        above = a * (1 - across) + b * across
        below = c * (1 - across) + d * across
        tl.store(crop + channel * CROP_HEIGHT * CROP_WIDTH + at, above * (1 - down) + below * down, mask=valid)
    if PREVIOUS:
        seen = _seen(entry, row, column, valid, width, CROP_HEIGHT)
        lost = tl.load(bytes_of(entry, FIELD_FLAGS) + FLAG_LOST_MASK) != 0
        seen = tl.where(lost, 0.0, tl.minimum(tl.maximum(seen, 0.0), 1.0))
        tl.store(previous_crops + number_of_place * CROP_HEIGHT * CROP_WIDTH + at, seen, mask=valid)


@triton.jit
def remember(table, crops, CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`region.sample_mask` of every pixel of the crop, `[places, h, w]`, and whether it is to be learned from."""
    place = tl.program_id(1)
    entry = table + place * FIELD_LENGTH
    if tl.load(entry + FIELD_STORES) == 0:
        return
    flags = bytes_of(entry, FIELD_FLAGS)
    lost = (tl.load(flags + FLAG_LOST_MASK) != 0) | (tl.load(flags + FLAG_LOST_LOCALISATION) != 0)
    gate = (tl.load(entry + FIELD_FORCED) != 0) | (~lost)
    tl.store(bytes_of(entry, FIELD_SEGMENTATION + KEPT_GATE), gate.to(tl.int8), mask=tl.program_id(0) == 0)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < CROP_HEIGHT * CROP_WIDTH
    row, column = at // CROP_WIDTH, at % CROP_WIDTH
    seen = _seen(entry, row, column, valid, number(entry, FIELD_WIDTH), CROP_HEIGHT)
    tl.store(crops + place * CROP_HEIGHT * CROP_WIDTH + at, seen, mask=valid)
