"""Triton kernels for what a mask's quality is estimated from (`signals.signals_of`): tile by tile, then all together.

A tile is as high as a cell of the features, 16 pixels, and a few of them wide. Its moments are counted from its own
corner, so that they are whole numbers that float32 holds; they are put together in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.common import bytes_of, floats
from rts_batch.tracking.gpu.kernels.offsets import (
    FIELD_FINISHES,
    FIELD_LENGTH,
    FIELD_LOOK_TARGET,
    FIELD_SIGNALS,
    SIGNAL_COMPACT,
    SIGNAL_CONFIDENCE,
    SIGNAL_EDGE,
    SIGNAL_EMPTY,
    SIGNAL_LIKE_PROMPT,
    SIGNAL_OFF_PEAK,
    SIGNAL_PEAK,
    SIGNAL_ROUGH,
    SIGNAL_SECOND,
    SIGNAL_SEEN_AT_PEAK,
    SIGNAL_SIZE,
    SIGNAL_SOFT_IOU,
    SIGNAL_SOFTER_IOU,
    SIGNAL_STABLE_1,
    SIGNAL_STABLE_3,
    SIGNAL_UNSURE,
)

SUMS = tl.constexpr(24)
"""Room for a tile's sums; those of `tiles`, in its order."""


@triton.jit
def _count(chosen):
    return tl.sum(tl.sum(tl.where(chosen, 1.0, 0.0), 1), 0)


@triton.jit
def _total(values, chosen):
    return tl.sum(tl.sum(tl.where(chosen, values, 0.0), 1), 0)


@triton.jit
def tiles(
    table, all_logits, all_coarse, all_partial,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELL: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """A tile's sums, and the mean probability of each of its cells."""
    down, across, place = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if tl.load(table + place * FIELD_LENGTH + FIELD_FINISHES) == 0:
        return
    logits = all_logits + place * HEIGHT * WIDTH
    coarse = all_coarse + place * (HEIGHT // CELL) * (WIDTH // CELL)
    partial = all_partial + place * tl.num_programs(0) * tl.num_programs(1) * SUMS
    row, column = tl.arange(0, CELL), tl.arange(0, CELLS * CELL)
    y, x = (down * CELL + row)[:, None], (across * CELLS * CELL + column)[None, :]
    valid = (y < HEIGHT) & (x < WIDTH)
    at = logits + y * WIDTH + x
    logit = tl.load(at, mask=valid, other=-100.0)
    mask = (logit > 0) & valid
    probability = 1 / (1 + tl.exp(-logit))
    softer = 1 / (1 + tl.exp(-logit / 3))
    under, beside = valid & (y + 1 < HEIGHT), valid & (x + 1 < WIDTH)
    below = tl.load(at + WIDTH, mask=under, other=-100.0) > 0
    right = tl.load(at + 1, mask=beside, other=-100.0) > 0
    local_y, local_x = row.to(tl.float32)[:, None] + 0 * x, column.to(tl.float32)[None, :] + 0 * y

    out = partial + (down * tl.num_programs(1) + across) * SUMS
    tl.store(out, _count(mask))
    tl.store(out + 1, _total(local_y, mask))
    tl.store(out + 2, _total(local_x, mask))
    tl.store(out + 3, _total(local_y * local_y, mask))
    tl.store(out + 4, _total(local_x * local_x, mask))
    tl.store(out + 5, _total(local_y * local_x, mask))
    tl.store(out + 6, _count(under & (below != mask)) + _count(beside & (right != mask)))
    border = _count(mask & (y == 0)) + _count(mask & (y == HEIGHT - 1))
    tl.store(out + 7, border + _count(mask & (x == 0)) + _count(mask & (x == WIDTH - 1)))
    tl.store(out + 8, _total(probability, valid))
    tl.store(out + 9, _total(probability, mask))
    tl.store(out + 10, _total(softer, valid))
    tl.store(out + 11, _total(softer, mask))
    tl.store(out + 12, _count(valid & (logit > 1)))
    tl.store(out + 13, _count(valid & (logit > -1)))
    tl.store(out + 14, _count(valid & (logit > 3)))
    tl.store(out + 15, _count(valid & (logit > -3)))
    tl.store(out + 16, _total(probability * (1 - probability), valid))
    cells = tl.sum(tl.reshape(tl.sum(tl.where(valid, probability, 0.0), 0), [CELLS, CELL]), 1)
    cell = across * CELLS + tl.arange(0, CELLS)
    tl.store(coarse + down * (WIDTH // CELL) + cell, cells / (CELL * CELL), mask=cell < WIDTH // CELL)


@triton.jit
def _sum(partial, place, valid, which: tl.constexpr):
    return tl.sum(tl.load(partial + place * SUMS + which, mask=valid, other=0.0).to(tl.float64), 0)


@triton.jit
def _soft_iou(probabilities, shared, area):
    return shared / (area + tl.maximum(probabilities - shared, 0.0))


@triton.jit
def combine(
    table, all_partial, all_coarse, score_maps, all_likenesses, outside,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELL: tl.constexpr, CELLS: tl.constexpr,
    MAP_ROWS: tl.constexpr, MAP_COLUMNS: tl.constexpr, NEIGHBOURHOOD: tl.constexpr,
    TILES: tl.constexpr, COARSE: tl.constexpr, MAP_BLOCK: tl.constexpr, CELL_BLOCKS: tl.constexpr,
    CELL_BLOCK: tl.constexpr,
):  # fmt: skip
    """All signals; `likenesses` are what `likeness.liken` found of each block of cells. One program a place."""
    number = tl.program_id(0)
    entry = table + number * FIELD_LENGTH
    if tl.load(entry + FIELD_FINISHES) == 0:
        return
    target, signals = bytes_of(entry, FIELD_LOOK_TARGET), floats(entry, FIELD_SIGNALS)
    rows: tl.constexpr = HEIGHT // CELL
    columns: tl.constexpr = WIDTH // CELL
    tiles_across: tl.constexpr = (columns + CELLS - 1) // CELLS
    partial, coarse = all_partial + number * rows * tiles_across * SUMS, all_coarse + number * rows * columns
    score_map = score_maps + number * MAP_ROWS * MAP_COLUMNS
    likenesses = all_likenesses + number * 2 * ((rows * columns + CELL_BLOCK - 1) // CELL_BLOCK)
    at = tl.arange(0, TILES)
    valid = at < rows * tiles_across
    n = tl.load(partial + at * SUMS, mask=valid, other=0.0).to(tl.float64)
    corner_y = ((at // tiles_across) * CELL).to(tl.float64)
    corner_x = ((at % tiles_across) * CELLS * CELL).to(tl.float64)
    local_y = tl.load(partial + at * SUMS + 1, mask=valid, other=0.0).to(tl.float64)
    local_x = tl.load(partial + at * SUMS + 2, mask=valid, other=0.0).to(tl.float64)
    area = tl.sum(n, 0)
    some = tl.maximum(area, 1.0)
    mean_y = tl.sum(local_y + corner_y * n, 0) / some
    mean_x = tl.sum(local_x + corner_x * n, 0) / some
    moment_y = _sum(partial, at, valid, 3) + tl.sum(2 * corner_y * local_y + corner_y * corner_y * n, 0)
    moment_x = _sum(partial, at, valid, 4) + tl.sum(2 * corner_x * local_x + corner_x * corner_x * n, 0)
    mixed = corner_y * local_x + corner_x * local_y + corner_y * corner_x * n
    moment = _sum(partial, at, valid, 5) + tl.sum(mixed, 0)
    var_y, var_x = moment_y / some - mean_y * mean_y, moment_x / some - mean_x * mean_x
    cov = moment / some - mean_y * mean_x
    edge = _sum(partial, at, valid, 7)
    length = tl.maximum(_sum(partial, at, valid, 6) + edge, 1.0)
    probabilities, shared = _sum(partial, at, valid, 8), _sum(partial, at, valid, 9)
    softer = _soft_iou(_sum(partial, at, valid, 10), _sum(partial, at, valid, 11), some)
    tl.store(signals + SIGNAL_SOFT_IOU, _soft_iou(probabilities, shared, some).to(tl.float32))
    tl.store(signals + SIGNAL_SOFTER_IOU, softer.to(tl.float32))
    tl.store(signals + SIGNAL_CONFIDENCE, (shared / some).to(tl.float32))
    above, below = _sum(partial, at, valid, 12), tl.maximum(_sum(partial, at, valid, 13), 1.0)
    tl.store(signals + SIGNAL_STABLE_1, (above / below).to(tl.float32))
    above, below = _sum(partial, at, valid, 14), tl.maximum(_sum(partial, at, valid, 15), 1.0)
    tl.store(signals + SIGNAL_STABLE_3, (above / below).to(tl.float32))
    tl.store(signals + SIGNAL_UNSURE, (4 * _sum(partial, at, valid, 16) / length).to(tl.float32))
    tl.store(signals + SIGNAL_SIZE, tl.log((some / (HEIGHT * WIDTH)).to(tl.float32)))
    tl.store(signals + SIGNAL_EDGE, (edge / length).to(tl.float32))
    ellipse = 4 * 3.141592653589793 * tl.sqrt(tl.maximum(var_y * var_x - cov * cov, 0.01))
    tl.store(signals + SIGNAL_COMPACT, (area / ellipse).to(tl.float32))
    tl.store(signals + SIGNAL_ROUGH, (length / tl.sqrt(some)).to(tl.float32))
    tl.store(signals + SIGNAL_EMPTY, tl.where(area == 0, 1.0, 0.0))

    place = tl.arange(0, MAP_BLOCK)
    known = place < MAP_ROWS * MAP_COLUMNS
    scores = tl.load(score_map + place, mask=known, other=float("-inf"))
    peak, best = tl.max(scores, 0), tl.argmax(scores, 0)
    row, column = best // MAP_COLUMNS, best % MAP_COLUMNS
    away = tl.maximum(tl.abs(place // MAP_COLUMNS - row), tl.abs(place % MAP_COLUMNS - column))
    second = tl.max(tl.where(known & (away <= NEIGHBOURHOOD), 0.0, scores), 0)
    tl.store(signals + SIGNAL_PEAK, peak)
    tl.store(signals + SIGNAL_SECOND, second / tl.maximum(peak, 0.05))
    off_y = row.to(tl.float64) * (HEIGHT / (MAP_ROWS - 1)) - mean_y
    off_x = column.to(tl.float64) * (WIDTH / (MAP_COLUMNS - 1)) - mean_x
    off = tl.sqrt(off_y * off_y + off_x * off_x) / tl.sqrt(some)
    tl.store(signals + SIGNAL_OFF_PEAK, off.to(tl.float32))

    cell = tl.arange(0, COARSE)
    inside = cell < rows * columns
    means = tl.load(coarse + cell, mask=inside, other=0.0)
    reach: tl.constexpr = (rows + (MAP_ROWS - 1) // 2) // (MAP_ROWS - 1)
    y, x = cell // columns - row * reach, cell % columns - column * reach
    around = inside & (y < reach) & (y >= -reach) & (x < reach) & (x >= -reach)
    seen = tl.sum(tl.where(around, means, 0.0), 0) / tl.sum(tl.where(around, 1.0, 0.0), 0)
    tl.store(signals + SIGNAL_SEEN_AT_PEAK, seen)

    block = tl.arange(0, CELL_BLOCKS)
    some_block = block * CELL_BLOCK < rows * columns
    margins = tl.sum(tl.load(likenesses + 2 * block, mask=some_block, other=0.0), 0)
    weights = tl.sum(tl.load(likenesses + 2 * block + 1, mask=some_block, other=0.0), 0)
    targets = tl.sum((tl.load(target + cell, mask=inside, other=0) != 0).to(tl.int32), 0)
    like = tl.where(targets > 0, margins / tl.maximum(weights, outside), float("nan"))
    tl.store(signals + SIGNAL_LIKE_PROMPT, like)
