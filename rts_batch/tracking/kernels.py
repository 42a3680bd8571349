"""What happens to one target outside the network, in a few Triton kernels instead of hundreds of tiny ones.

Each kernel is `device_crop.py`, `device_state.py` and `device_memory.py` read line by line: the same float32 operations
in the same order, with correctly rounded divisions and roots and no fused multiply-add. Sums over maps go tile by tile,
always in the same order. Import this module only where Triton is installed, as it is with PyTorch for CUDA.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

TILE_ROWS = 32
TILE_COLUMNS = 64
EXACT = {"enable_fp_fusion": False}


@triton.jit
def _trunc(x):
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def _round(x):
    """To the nearest whole number, halves to the even one; for x ≥ 0."""
    up = tl.floor(x + 0.5)
    odd = up - 2 * tl.floor(up / 2)
    return tl.where((up - x == 0.5) & (odd == 1), up - 1, up)


@triton.jit
def _scale_of(height, width, area_scale, area):
    one = tl.full([], 1.0, tl.float32)
    return tl.div_rn(one, tl.sqrt_rn(tl.div_rn(area, (area_scale * height) * (area_scale * width))))


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
    centre = _trunc(position)
    offset = centre - tl.floor(tl.div_rn(centre, stride)) * stride
    centre = tl.floor(tl.div_rn(centre - offset, stride))
    inner = tl.floor(tl.div_rn(limit - offset + stride - 1, stride))
    extent = tl.maximum(_round(tl.div_rn(size, stride)), 2.0)
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
    area_scale, lowest, highest, odd_y, odd_x,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, FALLBACK: tl.constexpr,
    BLOCK: tl.constexpr, CROP_BLOCK: tl.constexpr,
    TARGET_SCALE: tl.constexpr, LOST_FRAMES: tl.constexpr, PLACEMENT: tl.constexpr, HISTORY: tl.constexpr,
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

    lost_mask, too_small = tl.load(flags) != 0, tl.load(flags + 1) != 0
    wider = tl.load(flags + 2) != 0
    no_mask = lost_mask | too_small
    if not FALLBACK:
        wider = wider | no_mask
    old_y, old_x = tl.load(values), tl.load(values + 1)
    old_h, old_w = tl.load(values + 2), tl.load(values + 3)
    y, x = tl.where(measured, mean_y, old_y), tl.where(measured, mean_x, old_x)
    h = tl.where(measured, 4.0 * tl.sqrt_rn(spread_y), old_h)
    w = tl.where(measured, 4.0 * tl.sqrt_rn(spread_x), old_w)
    y, x = tl.where(no_mask, tl.load(values + 6), y), tl.where(no_mask, tl.load(values + 7), x)
    h, w = tl.where(no_mask, tl.load(values + 8), h), tl.where(no_mask, tl.load(values + 9), w)
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    area = crop_height * crop_width
    before = tl.load(values + TARGET_SCALE)
    scale = _scale_of(h, w, area_scale, area)
    scale = tl.minimum(tl.maximum(scale, lowest * before), highest * before)

    slot = tl.arange(0, 64)
    history = tl.load(values + HISTORY + slot, mask=slot < LENGTH, other=0.0)
    moved = tl.load(values + HISTORY + slot + 1, mask=slot < LENGTH - 1, other=0.0)
    moved = tl.where(slot == LENGTH - 1, scale, moved)
    lost = tl.load(values + LOST_FRAMES) + 1
    count = tl.minimum(tl.maximum(lost, 1.0 * FEWEST), 1.0 * MOST)
    last = tl.sum(tl.where(slot == LENGTH - 1, history, 0.0), 0)
    recent = ((history >= last) & (history > 0)).to(tl.int32)
    newer = tl.sum(recent, 0) - tl.cumsum(recent, 0) + recent
    chosen = tl.where((recent > 0) & (newer.to(tl.float32) <= count), 1.0, 0.0)
    resumed = tl.div_rn(tl.sum(history * chosen, 0), tl.sum(chosen, 0))

    base_h, base_w = tl.load(values + 4), tl.load(values + 5)
    y, x = tl.where(wider, old_y, y), tl.where(wider, old_x, x)
    h, w = tl.where(wider, old_h, base_h * scale), tl.where(wider, old_w, base_w * scale)
    history = tl.where(wider, history, moved)
    scale = tl.where(wider, resumed, scale)

    size_h, size_w = scale * crop_height, scale * crop_width
    centre_y = y + tl.div_rn(odd_y * scale * crop_height, 2 * tl.floor(crop_height / 16))
    centre_x = x + tl.div_rn(odd_x * scale * crop_width, 2 * tl.floor(crop_width / 16))
    limit_y, limit_x = height.to(tl.float32), width.to(tl.float32)
    shrink = tl.maximum(tl.minimum(tl.div_rn(size_h, limit_y), tl.div_rn(size_w, limit_x)), 1.0)
    size_h, size_w = _trunc(tl.div_rn(size_h, shrink)), _trunc(tl.div_rn(size_w, shrink))
    ratio = tl.minimum(tl.div_rn(size_h, crop_height), tl.div_rn(size_w, crop_width))
    stride = tl.maximum(_trunc(ratio - 0.1), 1.0)
    top, bottom, offset_y, inner_y = _axis(centre_y, size_h, stride, limit_y)
    left, right, offset_x, inner_x = _axis(centre_x, size_w, stride, limit_x)
    first_y, first_x = _trunc(top), _trunc(left)
    count_y, count_x = _trunc(bottom) - first_y, _trunc(right) - first_x

    tl.debug_barrier()  # everything has been read
    tl.store(values, y)
    tl.store(values + 1, x)
    tl.store(values + 2, h)
    tl.store(values + 3, w)
    tl.store(values + TARGET_SCALE, scale)
    tl.store(values + LOST_FRAMES, tl.where(wider, lost, 0.0))
    tl.store(values + HISTORY + slot, history, mask=slot < LENGTH)
    placement = values + PLACEMENT
    tl.store(placement, stride * top)
    tl.store(placement + 1, stride * left)
    tl.store(placement + 2, stride * bottom)
    tl.store(placement + 3, stride * right)
    tl.store(placement + 4, first_y)
    tl.store(placement + 5, first_x)
    tl.store(placement + 6, count_y)
    tl.store(placement + 7, count_x)
    tl.store(placement + 8, stride)
    tl.store(placement + 9, stride)
    tl.store(placement + 10, offset_y)
    tl.store(placement + 11, offset_x)
    tl.store(placement + 12, inner_y)
    tl.store(placement + 13, inner_x)

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
def _source(cell, step, length):
    """`device_crop._bilinear`."""
    source = tl.maximum((cell + 0.5) * step - 0.5, 0.0)
    low = tl.minimum(tl.floor(source), length - 1)
    return low, tl.minimum(low + 1, length - 1), tl.minimum(tl.maximum(source - low, 0.0), 1.0)


@triton.jit
def _pixel(cell, first, inner, stride, offset):
    return (tl.minimum(tl.maximum(first + cell, 0.0), inner - 1) * stride + offset).to(tl.int32)


@triton.jit
def cut(
    frame, placement, crop, previous, previous_crop, places, held, flags, width,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, PREVIOUS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`device_crop.sample_image` of every pixel of the crop, and the last mask in it."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < CROP_HEIGHT * CROP_WIDTH
    row, column = at // CROP_WIDTH, at % CROP_WIDTH
    count_y, count_x = tl.load(placement + 6), tl.load(placement + 7)
    stride = tl.load(placement + 8)
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    top, bottom, down = _source(row.to(tl.float32), tl.div_rn(count_y, crop_height), count_y)
    left, right, across = _source(column.to(tl.float32), tl.div_rn(count_x, crop_width), count_x)
    first_y, offset_y, inner_y = tl.load(placement + 4), tl.load(placement + 10), tl.load(placement + 12)
    first_x, offset_x, inner_x = tl.load(placement + 5), tl.load(placement + 11), tl.load(placement + 13)
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
        y, x = tl.load(places + row, mask=valid, other=0), tl.load(places + CROP_HEIGHT + column, mask=valid, other=0)
        inside = (tl.load(held + row, mask=valid, other=0) != 0) & (
            tl.load(held + CROP_HEIGHT + column, mask=valid, other=0) != 0
        )
        seen = tl.load(previous + y * width + x, mask=valid, other=0.0)
        seen = tl.minimum(tl.maximum(seen, 0.0), 1.0)
        lost = tl.load(flags) != 0
        tl.store(previous_crop + at, tl.where(inside & (~lost), seen, 0.0), mask=valid)


@triton.jit
def remember(
    previous, places, held, crop, width,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`device_crop.sample_mask`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < CROP_HEIGHT * CROP_WIDTH
    row, column = at // CROP_WIDTH, at % CROP_WIDTH
    y, x = tl.load(places + row, mask=valid, other=0), tl.load(places + CROP_HEIGHT + column, mask=valid, other=0)
    inside = (tl.load(held + row, mask=valid, other=0) != 0) & (
        tl.load(held + CROP_HEIGHT + column, mask=valid, other=0) != 0
    )
    seen = tl.load(previous + y * width + x, mask=valid, other=0.0)
    tl.store(crop + at, tl.where(inside, seen, 0.0), mask=valid)


@triton.jit
def _span(centre, scale, length):
    """One axis of where logits land in the image: first pixel, pixels, and the step in the crop for one of them."""
    resized = tl.floor(length * scale)
    corner = centre.to(tl.float64) - resized / 2
    corner = tl.where(corner < 0, tl.ceil(corner), tl.floor(corner))
    step = tl.where(resized == length, 1.0, 1.0 / scale)
    return corner.to(tl.float32), resized.to(tl.float32), step.to(tl.float32)


@triton.jit
def paste(
    logits, placement, scores, probabilities, previous, mask, partial, height, width, tiles_across,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """`device_crop.paste_scores` and what follows from it for every pixel; each tile's measures go to `partial`.

    Those are sums of probabilities, of those inside the mask, area, and the mask's first and last row and column.
    """
    down, across = tl.program_id(0), tl.program_id(1)
    y = down * TILE_ROWS + tl.arange(0, TILE_ROWS)
    x = across * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
    top, left = tl.load(placement), tl.load(placement + 1)
    bottom, right = tl.load(placement + 2), tl.load(placement + 3)
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    scale = tl.sqrt_rn(tl.div_rn(bottom - top, crop_height) * tl.div_rn(right - left, crop_width))
    scale = scale.to(tl.float64)
    corner_y, rows, step_y = _span(0.5 * (top + bottom - 1), scale, crop_height)
    corner_x, columns, step_x = _span(0.5 * (left + right - 1), scale, crop_width)
    cell_y, cell_x = y.to(tl.float32) - corner_y, x.to(tl.float32) - corner_x
    first_row, second_row, downward = _source(cell_y, step_y, crop_height)
    first_column, second_column, sideward = _source(cell_x, step_x, crop_width)
    inside = ((cell_y >= 0) & (cell_y < rows))[:, None] & ((cell_x >= 0) & (cell_x < columns))[None, :]
    valid = (y < height)[:, None] & (x < width)[None, :]
    wanted = inside & valid
    a_row, b_row = first_row.to(tl.int32)[:, None] * CROP_WIDTH, second_row.to(tl.int32)[:, None] * CROP_WIDTH
    a_column, b_column = first_column.to(tl.int32)[None, :], second_column.to(tl.int32)[None, :]
    downward, sideward = downward[:, None], sideward[None, :]
    above = tl.load(logits + a_row + a_column, mask=wanted, other=0.0) * (1 - sideward)
    above += tl.load(logits + a_row + b_column, mask=wanted, other=0.0) * sideward
    below = tl.load(logits + b_row + a_column, mask=wanted, other=0.0) * (1 - sideward)
    below += tl.load(logits + b_row + b_column, mask=wanted, other=0.0) * sideward
    score = tl.where(inside, above * (1 - downward) + below * downward, -100.0)
    probability = 1 / (1 + tl.exp(-score))
    at = y[:, None] * width + x[None, :]
    chosen = (score > 0) & valid
    tl.store(scores + at, score, mask=valid)
    tl.store(probabilities + at, probability, mask=valid)
    tl.store(previous + at, probability, mask=valid)
    tl.store(mask + at, chosen.to(tl.int8), mask=valid)

    out = partial + (down * tiles_across + across) * 8
    tl.store(out, tl.sum(tl.sum(tl.where(valid, probability, 0.0), 1), 0))
    tl.store(out + 1, tl.sum(tl.sum(tl.where(chosen, probability, 0.0), 1), 0))
    tl.store(out + 2, tl.sum(tl.sum(tl.where(chosen, 1.0, 0.0), 1), 0))
    row, column = y.to(tl.float32)[:, None], x.to(tl.float32)[None, :]
    tl.store(out + 3, tl.min(tl.min(tl.where(chosen, row, 1e9), 1), 0))
    tl.store(out + 4, tl.min(tl.min(tl.where(chosen, column, 1e9), 1), 0))
    tl.store(out + 5, tl.max(tl.max(tl.where(chosen, row, -1.0), 1), 0))
    tl.store(out + 6, tl.max(tl.max(tl.where(chosen, column, -1.0), 1), 0))


@triton.jit
def judge(
    values, flags, partial, score_map, label, numbers, height, width, tiles,
    threshold, smallest, area_scale, inside_ratio, variance, shift,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, MAP_ROWS: tl.constexpr, MAP_COLUMNS: tl.constexpr,
    FEATURE_ROWS: tl.constexpr, FEATURE_COLUMNS: tl.constexpr,
    TILES: tl.constexpr, MAP_BLOCK: tl.constexpr,
    CLF_SCALE: tl.constexpr, BOUNDS: tl.constexpr, PLACEMENT: tl.constexpr,
):  # fmt: skip
    """`LaneSteps._judge` after the maps: localisation, flags, the target followed, its label; one program."""
    at = tl.arange(0, TILES)
    some = at < tiles
    part = partial + at * 8
    probability_sum = tl.sum(tl.load(part, mask=some, other=0.0), 0)
    confidence_sum = tl.sum(tl.load(part + 1, mask=some, other=0.0), 0)
    area = tl.sum(tl.load(part + 2, mask=some, other=0.0), 0)
    y0 = tl.min(tl.load(part + 3, mask=some, other=1e9), 0)
    x0 = tl.min(tl.load(part + 4, mask=some, other=1e9), 0)
    y1 = tl.max(tl.load(part + 5, mask=some, other=-1.0), 0)
    x1 = tl.max(tl.load(part + 6, mask=some, other=-1.0), 0)
    empty = y1 < 0
    x, y = tl.where(empty, 0.0, x0), tl.where(empty, 0.0, y0)
    w, h = tl.where(empty, 1.0, x1 - x0 + 1), tl.where(empty, 1.0, y1 - y0 + 1)
    lost_mask = (x == 0) & (y == 0) & (w == 1) & (h == 1)
    too_small = probability_sum <= smallest

    # Down the columns, so that of equal values the smallest column, then row, comes first.
    place = tl.arange(0, MAP_BLOCK)
    column, row = place // MAP_ROWS, place % MAP_ROWS
    score = tl.load(score_map + row * MAP_COLUMNS + column, mask=place < MAP_ROWS * MAP_COLUMNS, other=float("-inf"))
    peak, best = tl.max(score, 0), tl.argmax(score, 0)
    found = peak >= threshold
    cell_y, cell_x = (best % MAP_ROWS).to(tl.float32), (best // MAP_ROWS).to(tl.float32)
    middle_y = (tl.full([], MAP_ROWS, tl.float32) - 1) / 2
    middle_x = (tl.full([], MAP_COLUMNS, tl.float32) - 1) / 2
    placement = values + PLACEMENT
    top, left = tl.load(placement), tl.load(placement + 1)
    bottom, right = tl.load(placement + 2), tl.load(placement + 3)
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    scale = tl.sqrt_rn(tl.div_rn(bottom - top, crop_height) * tl.div_rn(right - left, crop_width))
    centre_y, centre_x = 0.5 * (top + bottom - 1), 0.5 * (left + right - 1)
    place_y = centre_y + (cell_y - middle_y) * tl.div_rn(crop_height, 2 * middle_y) * scale
    place_x = centre_x + (cell_x - middle_x) * tl.div_rn(crop_width, 2 * middle_x) * scale

    by_mask = (~lost_mask) & (~too_small)
    by_score = (~by_mask) & found
    clf_scale = tl.minimum(tl.maximum(scale, tl.load(values + BOUNDS)), tl.load(values + BOUNDS + 1))
    size_h, size_w = tl.load(values + 10) * clf_scale, tl.load(values + 11) * clf_scale
    offset_y, offset_x = inside_ratio * size_h, inside_ratio * size_w
    place_y = tl.maximum(tl.minimum(place_y, height.to(tl.float32) - offset_y), offset_y)
    place_x = tl.maximum(tl.minimum(place_x, width.to(tl.float32) - offset_x), offset_x)
    own_y, own_x = tl.load(values + 6), tl.load(values + 7)
    own_h, own_w = tl.load(values + 8), tl.load(values + 9)
    own_scale = tl.load(values + CLF_SCALE)
    own_y = tl.where(by_mask, y + (h - 1) / 2, tl.where(by_score, place_y, own_y))
    own_x = tl.where(by_mask, x + (w - 1) / 2, tl.where(by_score, place_x, own_x))
    box_scale = _scale_of(h, w, area_scale, crop_height * crop_width)
    own_scale = tl.where(by_mask, box_scale, tl.where(by_score, clf_scale, own_scale))
    own_h, own_w = (
        tl.where(by_mask, h, tl.where(by_score, size_h, own_h)),
        tl.where(by_mask, w, tl.where(by_score, size_w, own_w)),
    )

    double = scale.to(tl.float64)
    corner_y, rows, _ = _span(centre_y, double, crop_height)
    corner_x, columns, _ = _span(centre_x, double, crop_width)
    first_y, first_x = tl.maximum(corner_y, 0.0), tl.maximum(corner_x, 0.0)
    last_y = tl.minimum(corner_y + rows, height.to(tl.float32))
    last_x = tl.minimum(corner_x + columns, width.to(tl.float32))
    covered = (last_y > first_y) & (last_x > first_x)

    tl.debug_barrier()  # everything has been read
    tl.store(values + 6, own_y)
    tl.store(values + 7, own_x)
    tl.store(values + 8, own_h)
    tl.store(values + 9, own_w)
    tl.store(values + CLF_SCALE, own_scale)
    tl.store(flags, lost_mask.to(tl.int8))
    tl.store(flags + 1, too_small.to(tl.int8))
    tl.store(flags + 2, (~found).to(tl.int8))
    tl.store(numbers, peak)
    tl.store(numbers + 1, probability_sum)
    tl.store(numbers + 2, confidence_sum)
    tl.store(numbers + 3, area)
    tl.store(numbers + 4, lost_mask.to(tl.float32))
    tl.store(numbers + 5, too_small.to(tl.float32))
    tl.store(numbers + 6, (~found).to(tl.float32))
    tl.store(numbers + 7, x)
    tl.store(numbers + 8, y)
    tl.store(numbers + 9, w)
    tl.store(numbers + 10, h)
    tl.store(numbers + 11, own_y)
    tl.store(numbers + 12, own_x)
    tl.store(numbers + 13, own_h)
    tl.store(numbers + 14, own_w)
    tl.store(numbers + 15, tl.where(covered, first_y, 0.0))
    tl.store(numbers + 16, tl.where(covered, first_x, 0.0))
    tl.store(numbers + 17, tl.where(covered, last_y, 0.0))
    tl.store(numbers + 18, tl.where(covered, last_x, 0.0))

    off_y = tl.div_rn(FEATURE_ROWS * tl.div_rn(own_y - centre_y, scale), crop_height) + shift
    off_x = tl.div_rn(FEATURE_COLUMNS * tl.div_rn(own_x - centre_x, scale), crop_width) + shift
    cell_y = row.to(tl.float32) - (FEATURE_ROWS - 1) / 2 - off_y
    cell_x = column.to(tl.float32) - (FEATURE_COLUMNS - 1) / 2 - off_x
    gaussian = tl.exp(-0.5 * (cell_y * cell_y) / variance) * tl.exp(-0.5 * (cell_x * cell_x) / variance)
    tl.store(label + row * MAP_COLUMNS + column, gaussian, mask=place < MAP_ROWS * MAP_COLUMNS)


@triton.jit
def weigh(
    weights, age, protected, prompts, counters, slot, gate, capacity, rate, remaining, minimum,
    GUARDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The bookkeeping of `DeviceMemory.insert`; counters are count, last slot and inserted. One program."""
    at = tl.arange(0, BLOCK)
    valid = at < capacity
    old = tl.load(weights + at, mask=valid, other=0.0)
    kept = tl.load(protected + at, mask=valid, other=1) != 0
    count, last, inserted = tl.load(counters), tl.load(counters + 1), tl.load(counters + 2)
    stored = tl.load(gate) != 0
    lowest = tl.argmin(tl.where(kept | (~valid), float("inf"), old), 0).to(tl.int64)
    chosen = tl.where(count < capacity, count, lowest)
    first = last < 0
    before = tl.sum(tl.where(at == last, old, 0.0), 0)
    new = tl.where(first, rate, tl.div_rn(before, remaining))
    fresh = tl.where(first, tl.div_rn(old, remaining), old)
    fresh = tl.where(at == chosen, new, fresh)
    fresh = tl.div_rn(fresh, tl.sum(fresh, 0))
    if GUARDED:
        share = tl.sum(tl.where(kept & valid, fresh, 0.0), 0)
        others = tl.sum(tl.where(kept | (~valid), 0.0, fresh), 0)
        least = tl.load(prompts + at, mask=valid, other=0.0)
        raised = tl.where(kept, least, tl.div_rn(fresh, minimum + others))
        fresh = tl.where(share < minimum, raised, fresh)
    tl.store(weights + at, fresh, mask=valid & stored)
    tl.store(age + at, tl.zeros([BLOCK], tl.int64) + inserted + 1, mask=valid & stored & (at == chosen))
    tl.store(counters, tl.where(stored, tl.maximum(count, chosen + 1), count))
    tl.store(counters + 1, tl.where(stored, chosen, last))
    tl.store(counters + 2, tl.where(stored, inserted + 1, inserted))
    tl.store(slot, chosen)


@triton.jit
def keep(values, sample, slot, gate, size, BLOCK: tl.constexpr):
    """Writes a sample into its slot."""
    if tl.load(gate) != 0:
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(values + tl.load(slot) * size + at, tl.load(sample + at, mask=at < size), mask=at < size)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Launches a kernel without fused multiply-adds."""
    kernel[grid](*arguments, num_warps=warps, **EXACT, **constants)
