"""Triton kernels for where to look next, from the last frame's outcome."""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.common import (
    bytes_of,
    floats,
    nearest,
    number,
    scale_to_follow,
    stride_of,
    trunc,
    wholes,
)
from rts_batch.tracking.gpu.kernels.offsets import (
    FIELD_COLUMNS,
    FIELD_FLAGS,
    FIELD_HEIGHT,
    FIELD_INSIDE,
    FIELD_LENGTH,
    FIELD_PLACES,
    FIELD_PREPARES,
    FIELD_PREVIOUS,
    FIELD_ROWS,
    FIELD_VALUES,
    FIELD_WIDTH,
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
def profiles(table, threshold, TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr):
    """Sums of the last mask's probabilities along the rows and columns of each tile, which a place's programs share.

    `FIELD_ROWS` is `[tiles across, H]`, `FIELD_COLUMNS` `[tiles down, W]`.
    """
    row = table + tl.program_id(1) * FIELD_LENGTH
    if tl.load(row + FIELD_PREPARES) == 0:
        return
    values, rows, columns = floats(row, FIELD_PREVIOUS), floats(row, FIELD_ROWS), floats(row, FIELD_COLUMNS)
    height, width = number(row, FIELD_HEIGHT), number(row, FIELD_WIDTH)
    tiles_across = tl.cdiv(width, TILE_COLUMNS)
    for tile in range(tl.program_id(0), tl.cdiv(height, TILE_ROWS) * tiles_across, tl.num_programs(0)):
        down, across = tile // tiles_across, tile % tiles_across
        y = down * TILE_ROWS + tl.arange(0, TILE_ROWS)
        x = across * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
        inside = (y < height)[:, None] & (x < width)[None, :]
        seen = tl.load(values + y[:, None] * width + x[None, :], mask=inside, other=0.0)
        seen = tl.maximum(seen, 0.0)
        seen = tl.where(seen >= threshold, seen, 0.0)
        tl.store(rows + across * height + y, tl.sum(seen, 1), mask=y < height)
        tl.store(columns + down * width + x, tl.sum(seen, 0), mask=x < width)


@triton.jit
def _profile(maps, at, length, tiles, BLOCK: tl.constexpr):
    found = tl.zeros([BLOCK], tl.float32)
    for tile in range(tiles):
        found += tl.load(maps + tile * length + at, mask=at < length, other=0.0)
    return found


@triton.jit
def _sums(maps, length, tiles, BLOCK: tl.constexpr):
    """Of a profile, and of each value times its place."""
    total, placed = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + tl.arange(0, BLOCK)
        found = _profile(maps, at, length, tiles, BLOCK)
        total += found
        placed += at.to(tl.float32) * found
    return tl.sum(total, 0), tl.sum(placed, 0)


@triton.jit
def _spread(maps, length, tiles, mean, BLOCK: tl.constexpr):
    """The sum of each value times its squared distance from the mean."""
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + tl.arange(0, BLOCK)
        off = at.to(tl.float32) - mean
        total += off * off * _profile(maps, at, length, tiles, BLOCK)
    return tl.sum(total, 0)


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
    table, lowest, highest, odd_y, odd_x,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, FALLBACK: tl.constexpr,
    TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr, BLOCK: tl.constexpr, CROP_BLOCK: tl.constexpr,
    LENGTH: tl.constexpr, FEWEST: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """`DeviceState.update_search`, the next search region and its `mask_places`; one program a place."""
    entry = table + tl.program_id(0) * FIELD_LENGTH
    if tl.load(entry + FIELD_PREPARES) == 0:
        return
    values, flags = floats(entry, FIELD_VALUES), bytes_of(entry, FIELD_FLAGS)
    places, held = wholes(entry, FIELD_PLACES), bytes_of(entry, FIELD_INSIDE)
    rows, columns = floats(entry, FIELD_ROWS), floats(entry, FIELD_COLUMNS)
    height, width = number(entry, FIELD_HEIGHT), number(entry, FIELD_WIDTH)
    tiles_down, tiles_across = tl.cdiv(height, TILE_ROWS), tl.cdiv(width, TILE_COLUMNS)
    total, placed_y = _sums(rows, height, tiles_across, BLOCK)
    _, placed_x = _sums(columns, width, tiles_down, BLOCK)
    mean_y, mean_x = tl.div_rn(placed_y, total), tl.div_rn(placed_x, total)
    spread_y = tl.div_rn(_spread(rows, height, tiles_across, mean_y, BLOCK), total)
    spread_x = tl.div_rn(_spread(columns, width, tiles_down, mean_x, BLOCK), total)
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
