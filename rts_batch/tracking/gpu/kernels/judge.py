"""Triton kernels for what comes after the network: scores in the image, the target followed, the host's numbers."""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.common import bytes_of, floats, number, scale_of, source_of
from rts_batch.tracking.gpu.kernels.offsets import (
    FIELD_FINISHES,
    FIELD_FLAGS,
    FIELD_HEIGHT,
    FIELD_LABEL,
    FIELD_LENGTH,
    FIELD_LOCALISATION,
    FIELD_MASK,
    FIELD_NUMBERS,
    FIELD_PARTIAL,
    FIELD_PREVIOUS,
    FIELD_PROBABILITIES,
    FIELD_SCORES,
    FIELD_VALUES,
    FIELD_WIDTH,
    FLAG_LOST_LOCALISATION,
    FLAG_LOST_MASK,
    FLAG_MASK_TOO_SMALL,
    KEPT_GATE,
    NUMBER_AREA,
    NUMBER_BOX,
    NUMBER_CONFIDENCE_SUM,
    NUMBER_LOST_LOCALISATION,
    NUMBER_LOST_MASK,
    NUMBER_MASK_TOO_SMALL,
    NUMBER_POSITION,
    NUMBER_PROBABILITY_SUM,
    NUMBER_SCORE,
    NUMBER_TARGET_SIZE,
    NUMBER_WINDOW,
    PLACE_BOTTOM_RIGHT,
    PLACE_TOP_LEFT,
    VALUE_CLF_BASE_TARGET_SIZE,
    VALUE_CLF_POSITION,
    VALUE_CLF_SCALE,
    VALUE_CLF_SCALE_BOUNDS,
    VALUE_CLF_TARGET_SIZE,
    VALUE_PLACEMENT,
)


@triton.jit
def _span(centre, scale, length):
    """One axis of where logits land in the image: first pixel, pixels, and the step in the crop for one of them."""
    resized = tl.floor(length * scale)
    corner = centre.to(tl.float64) - resized / 2
    corner = tl.where(corner < 0, tl.ceil(corner), tl.floor(corner))
    step = tl.where(resized == length, 1.0, 1.0 / scale)
    return corner.to(tl.float32), resized.to(tl.float32), step.to(tl.float32)


@triton.jit
def _centre_and_scale(placement, crop_height, crop_width):
    """`Placement.position` and `Placement.scale`."""
    top, left = tl.load(placement + PLACE_TOP_LEFT), tl.load(placement + PLACE_TOP_LEFT + 1)
    bottom, right = tl.load(placement + PLACE_BOTTOM_RIGHT), tl.load(placement + PLACE_BOTTOM_RIGHT + 1)
    scale = tl.sqrt_rn(tl.div_rn(bottom - top, crop_height) * tl.div_rn(right - left, crop_width))
    return 0.5 * (top + bottom - 1), 0.5 * (left + right - 1), scale


@triton.jit
def paste(
    table, all_logits,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """`region.paste_scores` and what follows from it for every pixel; each tile's measures go to `FIELD_PARTIAL`.

    Those are sums of probabilities, of those inside the mask, area, and the mask's first and last row and column. A
    place's programs share its tiles.
    """
    entry = table + tl.program_id(1) * FIELD_LENGTH
    if tl.load(entry + FIELD_FINISHES) == 0:
        return
    logits = all_logits + tl.program_id(1) * CROP_HEIGHT * CROP_WIDTH
    placement = floats(entry, FIELD_VALUES) + VALUE_PLACEMENT
    scores, probabilities = floats(entry, FIELD_SCORES), floats(entry, FIELD_PROBABILITIES)
    previous, mask, partial = floats(entry, FIELD_PREVIOUS), bytes_of(entry, FIELD_MASK), floats(entry, FIELD_PARTIAL)
    height, width = number(entry, FIELD_HEIGHT), number(entry, FIELD_WIDTH)
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    centre_y, centre_x, scale = _centre_and_scale(placement, crop_height, crop_width)
    scale = scale.to(tl.float64)
    corner_y, rows, step_y = _span(centre_y, scale, crop_height)
    corner_x, columns, step_x = _span(centre_x, scale, crop_width)
    tiles_across = tl.cdiv(width, TILE_COLUMNS)
    for tile in range(tl.program_id(0), tl.cdiv(height, TILE_ROWS) * tiles_across, tl.num_programs(0)):
        y = tile // tiles_across * TILE_ROWS + tl.arange(0, TILE_ROWS)
        x = tile % tiles_across * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
        cell_y, cell_x = y.to(tl.float32) - corner_y, x.to(tl.float32) - corner_x
        first_row, second_row, downward = source_of(cell_y, step_y, crop_height)
        first_column, second_column, sideward = source_of(cell_x, step_x, crop_width)
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

        out = partial + tile * 8
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
    table, score_maps,
    threshold, smallest, area_scale, inside_ratio, variance, shift,
    CROP_HEIGHT: tl.constexpr, CROP_WIDTH: tl.constexpr, MAP_ROWS: tl.constexpr, MAP_COLUMNS: tl.constexpr,
    FEATURE_ROWS: tl.constexpr, FEATURE_COLUMNS: tl.constexpr,
    TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr, TILES: tl.constexpr, MAP_BLOCK: tl.constexpr,
):  # fmt: skip
    """`SlotSteps._judge` after the maps: localisation, flags, the target followed, its label; one program a place."""
    entry = table + tl.program_id(0) * FIELD_LENGTH
    if tl.load(entry + FIELD_FINISHES) == 0:
        return
    score_map = score_maps + tl.program_id(0) * MAP_ROWS * MAP_COLUMNS
    values, flags, label = floats(entry, FIELD_VALUES), bytes_of(entry, FIELD_FLAGS), floats(entry, FIELD_LABEL)
    numbers, partial = floats(entry, FIELD_NUMBERS), floats(entry, FIELD_PARTIAL)
    height, width = number(entry, FIELD_HEIGHT), number(entry, FIELD_WIDTH)
    tiles = tl.cdiv(height, TILE_ROWS) * tl.cdiv(width, TILE_COLUMNS)
    nothing = tl.zeros([TILES], tl.float32)
    probability, confidence, pixels = nothing, nothing, nothing
    top, left, bottom, right = nothing + 1e9, nothing + 1e9, nothing - 1, nothing - 1
    for start in range(0, tiles, TILES):
        at = start + tl.arange(0, TILES)
        some = at < tiles
        part = partial + at * 8
        probability += tl.load(part, mask=some, other=0.0)
        confidence += tl.load(part + 1, mask=some, other=0.0)
        pixels += tl.load(part + 2, mask=some, other=0.0)
        top = tl.minimum(top, tl.load(part + 3, mask=some, other=1e9))
        left = tl.minimum(left, tl.load(part + 4, mask=some, other=1e9))
        bottom = tl.maximum(bottom, tl.load(part + 5, mask=some, other=-1.0))
        right = tl.maximum(right, tl.load(part + 6, mask=some, other=-1.0))
    probability_sum, confidence_sum, area = tl.sum(probability, 0), tl.sum(confidence, 0), tl.sum(pixels, 0)
    y0, x0, y1, x1 = tl.min(top, 0), tl.min(left, 0), tl.max(bottom, 0), tl.max(right, 0)
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
    placement = values + VALUE_PLACEMENT
    crop_height, crop_width = tl.full([], CROP_HEIGHT, tl.float32), tl.full([], CROP_WIDTH, tl.float32)
    centre_y, centre_x, scale = _centre_and_scale(placement, crop_height, crop_width)
    place_y = centre_y + (cell_y - middle_y) * tl.div_rn(crop_height, 2 * middle_y) * scale
    place_x = centre_x + (cell_x - middle_x) * tl.div_rn(crop_width, 2 * middle_x) * scale

    by_mask = (~lost_mask) & (~too_small)
    by_score = (~by_mask) & found
    clf_scale = tl.minimum(
        tl.maximum(scale, tl.load(values + VALUE_CLF_SCALE_BOUNDS)), tl.load(values + VALUE_CLF_SCALE_BOUNDS + 1)
    )
    size_h, size_w = (
        tl.load(values + VALUE_CLF_BASE_TARGET_SIZE) * clf_scale,
        tl.load(values + VALUE_CLF_BASE_TARGET_SIZE + 1) * clf_scale,
    )
    offset_y, offset_x = inside_ratio * size_h, inside_ratio * size_w
    place_y = tl.maximum(tl.minimum(place_y, height.to(tl.float32) - offset_y), offset_y)
    place_x = tl.maximum(tl.minimum(place_x, width.to(tl.float32) - offset_x), offset_x)
    own_y, own_x = tl.load(values + VALUE_CLF_POSITION), tl.load(values + VALUE_CLF_POSITION + 1)
    own_h, own_w = tl.load(values + VALUE_CLF_TARGET_SIZE), tl.load(values + VALUE_CLF_TARGET_SIZE + 1)
    own_scale = tl.load(values + VALUE_CLF_SCALE)
    own_y = tl.where(by_mask, y + (h - 1) / 2, tl.where(by_score, place_y, own_y))
    own_x = tl.where(by_mask, x + (w - 1) / 2, tl.where(by_score, place_x, own_x))
    box_scale = scale_of(h, w, area_scale, crop_height * crop_width)
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
    tl.store(values + VALUE_CLF_POSITION, own_y)
    tl.store(values + VALUE_CLF_POSITION + 1, own_x)
    tl.store(values + VALUE_CLF_TARGET_SIZE, own_h)
    tl.store(values + VALUE_CLF_TARGET_SIZE + 1, own_w)
    tl.store(values + VALUE_CLF_SCALE, own_scale)
    tl.store(flags + FLAG_LOST_MASK, lost_mask.to(tl.int8))
    tl.store(flags + FLAG_MASK_TOO_SMALL, too_small.to(tl.int8))
    tl.store(flags + FLAG_LOST_LOCALISATION, (~found).to(tl.int8))
    tl.store(bytes_of(entry, FIELD_LOCALISATION + KEPT_GATE), found.to(tl.int8))
    tl.store(numbers + NUMBER_SCORE, peak)
    tl.store(numbers + NUMBER_PROBABILITY_SUM, probability_sum)
    tl.store(numbers + NUMBER_CONFIDENCE_SUM, confidence_sum)
    tl.store(numbers + NUMBER_AREA, area)
    tl.store(numbers + NUMBER_LOST_MASK, lost_mask.to(tl.float32))
    tl.store(numbers + NUMBER_MASK_TOO_SMALL, too_small.to(tl.float32))
    tl.store(numbers + NUMBER_LOST_LOCALISATION, (~found).to(tl.float32))
    tl.store(numbers + NUMBER_BOX, x)
    tl.store(numbers + NUMBER_BOX + 1, y)
    tl.store(numbers + NUMBER_BOX + 2, w)
    tl.store(numbers + NUMBER_BOX + 3, h)
    tl.store(numbers + NUMBER_POSITION, own_y)
    tl.store(numbers + NUMBER_POSITION + 1, own_x)
    tl.store(numbers + NUMBER_TARGET_SIZE, own_h)
    tl.store(numbers + NUMBER_TARGET_SIZE + 1, own_w)
    tl.store(numbers + NUMBER_WINDOW, tl.where(covered, first_y, 0.0))
    tl.store(numbers + NUMBER_WINDOW + 1, tl.where(covered, first_x, 0.0))
    tl.store(numbers + NUMBER_WINDOW + 2, tl.where(covered, last_y, 0.0))
    tl.store(numbers + NUMBER_WINDOW + 3, tl.where(covered, last_x, 0.0))

    off_y = tl.div_rn(FEATURE_ROWS * tl.div_rn(own_y - centre_y, scale), crop_height) + shift
    off_x = tl.div_rn(FEATURE_COLUMNS * tl.div_rn(own_x - centre_x, scale), crop_width) + shift
    cell_y = row.to(tl.float32) - (FEATURE_ROWS - 1) / 2 - off_y
    cell_x = column.to(tl.float32) - (FEATURE_COLUMNS - 1) / 2 - off_x
    gaussian = tl.exp(-0.5 * (cell_y * cell_y) / variance) * tl.exp(-0.5 * (cell_x * cell_x) / variance)
    tl.store(label + row * MAP_COLUMNS + column, gaussian, mask=place < MAP_ROWS * MAP_COLUMNS)
