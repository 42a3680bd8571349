"""Triton kernels for what comes before the network: where to look, the crop, and the last mask in it."""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.common import nearest, scale_to_follow, source_of, stride_of, trunc
from rts_batch.tracking.gpu.kernels.offsets import (
    FLAG_LOST_LOCALISATION,
    FLAG_LOST_MASK,
    FLAG_MASK_TOO_SMALL,
    PLACE_BOTTOM_RIGHT,
    PLACE_COUNT,
    PLACE_FIRST,
    PLACE_INNER,
    PLACE_OFFSET,
    PLACE_STRIDE,
    PLACE_TOP_LEFT,
    VALUE_BASE_TARGET_SIZE,
    VALUE_CLF_POSITION,
    VALUE_CLF_TARGET_SIZE,
    VALUE_HISTORY,
    VALUE_LOST_FRAMES,
    VALUE_PLACEMENT,
    VALUE_POSITION,
    VALUE_TARGET_SCALE,
    VALUE_TARGET_SIZE,
)


@triton.jit
def profiles(values, rows, columns, height, width, threshold, TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr):
    """Sums of a map's positive values along the rows and columns of each tile.

    `rows` is `[tiles across, H]`, `columns` `[tiles down, W]`.
    """
    down, across = tl.program_id(0), tl.program_id(1)
    y = down * TILE_ROWS + tl.arange(0, TILE_ROWS)
    x = across * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
    inside = (y < height)[:, None] & (x < width)[None, :]
    tile = tl.load(values + y[:, None] * width + x[None, :], mask=inside, other=0.0)
    tile = tl.maximum(tile, 0.0)
    tile = tl.where(tile >= threshold, tile, 0.0)
    tl.store(rows + across * height + y, tl.sum(tile, 1), mask=y < height)
    tl.store(columns + down * width + x, tl.sum(tile, 0), mask=x < width)


@triton.jit
def _axis(position, size, stride, limit):
    """One axis of `place_region`, up to where it leaves the image: top left, bottom right, offset, inner."""
    centre = trunc(position)
    offset = centre - tl.floor(tl.div_rn(centre, stride)) * stride
    centre = tl.floor(tl.div_rn(centre - offset, stride))
    inner = tl.floor(tl.div_rn(limit - offset + stride - 1, stride))
    extent = tl.maximum(nearest(tl.div_rn(size, stride)), 2.0)
    top = centre - (extent - 1) / 2
    bottom = centre + extent / 2 + 1
    shift = tl.maximum(-top, 0.0) - tl.maximum(bottom - inner, 0.0)
    top, bottom = top + shift, bottom + shift
    overhang = tl.floor((tl.maximum(-top, 0.0) + tl.maximum(bottom - inner, 0.0)) / 2)
    shift = tl.where(overhang > 0, -overhang - top, 0.0)
    return top + shift, bottom + shift, offset, inner


@triton.jit
def search(
    values, flags, rows, columns, places, held,
    height, width, tiles_across, tiles_down,
    lowest, highest, odd_y, odd_x,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, FALLBACK: tl.constexpr,
    BLOCK: tl.constexpr, CROP_BLOCK: tl.constexpr,
    LENGTH: tl.constexpr, FEWEST: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """`DeviceState.update_search`, the next search region and its `mask_places`; one program."""
    at = tl.arange(0, BLOCK)
    row, column = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for tile in range(tiles_across):
        row += tl.load(rows + tile * height + at, mask=at < height, other=0.0)
    for tile in range(tiles_down):
        column += tl.load(columns + tile * width + at, mask=at < width, other=0.0)
    cell = at.to(tl.float32)
    total = tl.sum(row, 0)
    mean_y, mean_x = tl.div_rn(tl.sum(cell * row, 0), total), tl.div_rn(tl.sum(cell * column, 0), total)
    off_y, off_x = cell - mean_y, cell - mean_x
    spread_y = tl.div_rn(tl.sum(off_y * off_y * row, 0), total)
    spread_x = tl.div_rn(tl.sum(off_x * off_x * column, 0), total)
    measured = (total > 0) & (spread_y > 0) & (spread_x > 0)

    lost_mask, too_small = tl.load(flags + FLAG_LOST_MASK) != 0, tl.load(flags + FLAG_MASK_TOO_SMALL) != 0
    wider = tl.load(flags + FLAG_LOST_LOCALISATION) != 0
    no_mask = lost_mask | too_small
    if not FALLBACK:
        wider = wider | no_mask
    old_y, old_x = tl.load(values + VALUE_POSITION), tl.load(values + VALUE_POSITION + 1)
    old_h, old_w = tl.load(values + VALUE_TARGET_SIZE), tl.load(values + VALUE_TARGET_SIZE + 1)
    y, x = tl.where(measured, mean_y, old_y), tl.where(measured, mean_x, old_x)
    h = tl.where(measured, 4.0 * tl.sqrt_rn(spread_y), old_h)
    w = tl.where(measured, 4.0 * tl.sqrt_rn(spread_x), old_w)
    y, x = (
        tl.where(no_mask, tl.load(values + VALUE_CLF_POSITION), y),
        tl.where(no_mask, tl.load(values + VALUE_CLF_POSITION + 1), x),
    )
    h, w = (
        tl.where(no_mask, tl.load(values + VALUE_CLF_TARGET_SIZE), h),
        tl.where(no_mask, tl.load(values + VALUE_CLF_TARGET_SIZE + 1), w),
    )
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    before = tl.load(values + VALUE_TARGET_SCALE)
    base_h, base_w = tl.load(values + VALUE_BASE_TARGET_SIZE), tl.load(values + VALUE_BASE_TARGET_SIZE + 1)
    scale = scale_to_follow(h, w, base_h, base_w)
    scale = tl.minimum(tl.maximum(scale, lowest * before), highest * before)

    slot = tl.arange(0, 64)
    history = tl.load(values + VALUE_HISTORY + slot, mask=slot < LENGTH, other=0.0)
    moved = tl.load(values + VALUE_HISTORY + slot + 1, mask=slot < LENGTH - 1, other=0.0)
    moved = tl.where(slot == LENGTH - 1, scale, moved)
    lost = tl.load(values + VALUE_LOST_FRAMES) + 1
    count = tl.minimum(tl.maximum(lost, 1.0 * FEWEST), 1.0 * MOST)
    last = tl.sum(tl.where(slot == LENGTH - 1, history, 0.0), 0)
    recent = ((history >= last) & (history > 0)).to(tl.int32)
    newer = tl.sum(recent, 0) - tl.cumsum(recent, 0) + recent
    chosen = tl.where((recent > 0) & (newer.to(tl.float32) <= count), 1.0, 0.0)
    resumed = tl.div_rn(tl.sum(history * chosen, 0), tl.sum(chosen, 0))

    y, x = tl.where(wider, old_y, y), tl.where(wider, old_x, x)
    h, w = tl.where(wider, old_h, base_h * scale), tl.where(wider, old_w, base_w * scale)
    history = tl.where(wider, history, moved)
    scale = tl.where(wider, resumed, scale)

    size_h, size_w = scale * crop_height, scale * crop_width
    centre_y = y + tl.div_rn(odd_y * scale * crop_height, 2 * tl.floor(crop_height / 16))
    centre_x = x + tl.div_rn(odd_x * scale * crop_width, 2 * tl.floor(crop_width / 16))
    limit_y, limit_x = height.to(tl.float32), width.to(tl.float32)
    shrink = tl.maximum(tl.minimum(tl.div_rn(size_h, limit_y), tl.div_rn(size_w, limit_x)), 1.0)
    size_h, size_w = trunc(tl.div_rn(size_h, shrink)), trunc(tl.div_rn(size_w, shrink))
    stride = stride_of(tl.minimum(tl.div_rn(size_h, crop_height), tl.div_rn(size_w, crop_width)))
    top, bottom, offset_y, inner_y = _axis(centre_y, size_h, stride, limit_y)
    left, right, offset_x, inner_x = _axis(centre_x, size_w, stride, limit_x)
    first_y, first_x = trunc(top), trunc(left)
    count_y, count_x = trunc(bottom) - first_y, trunc(right) - first_x

    tl.debug_barrier()  # everything has been read
    tl.store(values + VALUE_POSITION, y)
    tl.store(values + VALUE_POSITION + 1, x)
    tl.store(values + VALUE_TARGET_SIZE, h)
    tl.store(values + VALUE_TARGET_SIZE + 1, w)
    tl.store(values + VALUE_TARGET_SCALE, scale)
    tl.store(values + VALUE_LOST_FRAMES, tl.where(wider, lost, 0.0))
    tl.store(values + VALUE_HISTORY + slot, history, mask=slot < LENGTH)
    placement = values + VALUE_PLACEMENT
    tl.store(placement + PLACE_TOP_LEFT, stride * top)
    tl.store(placement + PLACE_TOP_LEFT + 1, stride * left)
    tl.store(placement + PLACE_BOTTOM_RIGHT, stride * bottom)
    tl.store(placement + PLACE_BOTTOM_RIGHT + 1, stride * right)
    tl.store(placement + PLACE_FIRST, first_y)
    tl.store(placement + PLACE_FIRST + 1, first_x)
    tl.store(placement + PLACE_COUNT, count_y)
    tl.store(placement + PLACE_COUNT + 1, count_x)
    tl.store(placement + PLACE_STRIDE, stride)
    tl.store(placement + PLACE_STRIDE + 1, stride)
    tl.store(placement + PLACE_OFFSET, offset_y)
    tl.store(placement + PLACE_OFFSET + 1, offset_x)
    tl.store(placement + PLACE_INNER, inner_y)
    tl.store(placement + PLACE_INNER + 1, inner_x)

    at = tl.arange(0, CROP_BLOCK)
    across = at >= CROP_HEIGHT
    cell = tl.where(across, at - CROP_HEIGHT, at).to(tl.float32)
    count = tl.where(across, count_x, count_y)
    step = tl.where(across, tl.div_rn(count_x, crop_width), tl.div_rn(count_y, crop_height))
    inner = tl.where(across, inner_x, inner_y)
    strided = tl.where(across, first_x, first_y) + tl.minimum(tl.floor(cell * step), count - 1)
    place = tl.minimum(tl.maximum(strided, 0.0), inner - 1) * stride + tl.where(across, offset_x, offset_y)
    valid = at < CROP_HEIGHT + CROP_WIDTH
    tl.store(places + at, place.to(tl.int64), mask=valid)
    tl.store(held + at, ((strided >= 0) & (strided < inner)).to(tl.int8), mask=valid)


@triton.jit
def _pixel(cell, first, inner, stride, offset):
    return (tl.minimum(tl.maximum(first + cell, 0.0), inner - 1) * stride + offset).to(tl.int32)


@triton.jit
def _seen(previous, places, held, row, column, valid, width, CROP_HEIGHT: tl.constexpr):
    """`region.sample_mask` of some pixels of the crop."""
    column += CROP_HEIGHT
    y, x = tl.load(places + row, mask=valid, other=0), tl.load(places + column, mask=valid, other=0)
    inside = (tl.load(held + row, mask=valid, other=0) != 0) & (tl.load(held + column, mask=valid, other=0) != 0)
    return tl.where(inside, tl.load(previous + y * width + x, mask=valid, other=0.0), 0.0)


@triton.jit
def cut(
    frame, placement, crop, previous, previous_crop, places, held, flags, width,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, PREVIOUS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`region.sample_image` of every pixel of the crop, and the last mask in it."""
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
        seen = _seen(previous, places, held, row, column, valid, width, CROP_HEIGHT)
        lost = tl.load(flags + FLAG_LOST_MASK) != 0
        tl.store(previous_crop + at, tl.where(lost, 0.0, tl.minimum(tl.maximum(seen, 0.0), 1.0)), mask=valid)


@triton.jit
def remember(
    previous, places, held, crop, width,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`region.sample_mask` of every pixel of the crop."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < CROP_HEIGHT * CROP_WIDTH
    row, column = at // CROP_WIDTH, at % CROP_WIDTH
    tl.store(crop + at, _seen(previous, places, held, row, column, valid, width, CROP_HEIGHT), mask=valid)
