"""What the Triton kernels of `steps.py` share, and those of a sample memory.

The kernels are `region.py`, `state.py` and `memory.py` of the folder above read line by line: the same float32
operations in the same order, with correctly rounded divisions and roots and no fused multiply-add. Sums over maps go
tile by tile, always in the same order. Import these modules only where Triton is installed, as it is with PyTorch for
CUDA.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from rts_batch.tracking.gpu.kernels.offsets import (
    FIELD_FINISHES,
    FIELD_LENGTH,
    FIELD_PREPARES,
    KEPT_AGE,
    KEPT_COUNTERS,
    KEPT_GATE,
    KEPT_PROMPT_WEIGHTS,
    KEPT_PROTECTED,
    KEPT_SLOT,
    KEPT_WEIGHTS,
)

TILE_ROWS = 32
TILE_COLUMNS = 64


@triton.jit
def floats(row, field):
    """The tensor of float32 at an address of a row."""
    return tl.multiple_of(tl.load(row + field).to(tl.pointer_type(tl.float32)), 16)


@triton.jit
def bytes_of(row, field):
    """Of bool or int8."""
    return tl.multiple_of(tl.load(row + field).to(tl.pointer_type(tl.int8)), 16)


@triton.jit
def wholes(row, field):
    """Of int64."""
    return tl.multiple_of(tl.load(row + field).to(tl.pointer_type(tl.int64)), 16)


@triton.jit
def number(row, field):
    return tl.load(row + field).to(tl.int32)


@triton.jit
def trunc(x):
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def nearest(x):
    """To the nearest whole number, halves to the even one; for x ≥ 0."""
    up = tl.floor(x + 0.5)
    odd = up - 2 * tl.floor(up / 2)
    return tl.where((up - x == 0.5) & (odd == 1), up - 1, up)


@triton.jit
def scale_of(height, width, area_scale, area):
    """`motion.scale_of_target`."""
    one = tl.full([], 1.0, tl.float32)
    return tl.sqrt_rn((area_scale * height) * (area_scale * width)) * tl.div_rn(one, tl.sqrt_rn(area))


@triton.jit
def scale_to_follow(height, width, base_height, base_width):
    """`motion.scale_to_follow`."""
    return tl.sqrt_rn(tl.div_rn(height * width, base_height * base_width))


@triton.jit
def stride_of(ratio):
    """`region.stride_of`."""
    return tl.maximum(trunc(ratio.to(tl.float64) - tl.full([], 0.1, tl.float64)), 1.0).to(tl.float32)


@triton.jit
def source_of(cell, step, length):
    """`region._bilinear`."""
    source = tl.maximum((cell + 0.5) * step - 0.5, 0.0)
    low = tl.minimum(tl.floor(source), length - 1)
    return low, tl.minimum(low + 1, length - 1), tl.minimum(tl.maximum(source - low, 0.0), 1.0)


@triton.jit
def weigh(
    table, capacity, rate, remaining, minimum,
    MEMORY: tl.constexpr, NEEDED: tl.constexpr, GUARDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The bookkeeping of `DeviceMemory.insert` for each place where `NEEDED`; one program a place.

    `MEMORY` is where the memory's fields begin; counters are count, last slot and inserted.
    """
    row = table + tl.program_id(0) * FIELD_LENGTH
    if tl.load(row + NEEDED) == 0:
        return
    row += MEMORY
    weights, age, prompts = floats(row, KEPT_WEIGHTS), wholes(row, KEPT_AGE), floats(row, KEPT_PROMPT_WEIGHTS)
    protected, counters = bytes_of(row, KEPT_PROTECTED), wholes(row, KEPT_COUNTERS)
    at = tl.arange(0, BLOCK)
    valid = at < capacity
    old = tl.load(weights + at, mask=valid, other=0.0)
    kept = tl.load(protected + at, mask=valid, other=1) != 0
    count, last, inserted = tl.load(counters), tl.load(counters + 1), tl.load(counters + 2)
    stored = tl.load(bytes_of(row, KEPT_GATE)) != 0
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
    written = at < tl.where(stored, capacity, 0)
    tl.store(weights + at, fresh, mask=written)
    tl.store(age + at, tl.zeros([BLOCK], tl.int64) + inserted + 1, mask=written & (at == chosen))
    tl.store(counters, tl.where(stored, tl.maximum(count, chosen + 1), count))
    tl.store(counters + 1, tl.where(stored, chosen, last))
    tl.store(counters + 2, tl.where(stored, inserted + 1, inserted))
    tl.store(wholes(row, KEPT_SLOT), chosen)


@triton.jit
def keep(
    table, source, place_step, channel_step, row_step, column_step, channels, rows, columns, reach,
    MEMORY: tl.constexpr, NEEDED: tl.constexpr, SAMPLE: tl.constexpr, FIELD: tl.constexpr, LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one tensor of a sample, maps with a border of zeros `reach` wide, into the slot that `weigh` chose.

    Maps are those of `source`, or of the slot itself where `FIELD` says which; channels come last where `LAST`.
    """
    place = tl.program_id(1)
    row = table + place * FIELD_LENGTH
    if tl.load(row + NEEDED) == 0:
        return
    if tl.load(bytes_of(row, MEMORY + KEPT_GATE)) == 0:
        return
    maps = source + place * place_step if FIELD < 0 else floats(row, FIELD)
    pixels = (rows + 2 * reach) * (columns + 2 * reach)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < channels * pixels
    channel, pixel = (at % channels, at // channels) if LAST else (at // pixels, at % pixels)
    y, x = pixel // (columns + 2 * reach) - reach, pixel % (columns + 2 * reach) - reach
    inside = valid & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    found = tl.load(maps + channel * channel_step + y * row_step + x * column_step, mask=inside, other=0.0)
    slot = tl.load(wholes(row, MEMORY + KEPT_SLOT))
    tl.store(floats(row, MEMORY + SAMPLE) + slot * channels * pixels + at, found, mask=valid)


@triton.jit
def carry(table, tensor, size, FIELD: tl.constexpr, AWAY: tl.constexpr, BLOCK: tl.constexpr):
    """Copy a slot's tensor to its place of the network's, or back (`AWAY`), which lie in memory alike."""
    place = tl.program_id(1)
    row = table + place * FIELD_LENGTH
    if tl.load(row + (FIELD_FINISHES if AWAY else FIELD_PREPARES)) == 0:
        return
    own, other = floats(row, FIELD), tensor + place * size
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if AWAY:
        tl.store(own + at, tl.load(other + at, mask=at < size), mask=at < size)
    else:
        tl.store(other + at, tl.load(own + at, mask=at < size), mask=at < size)


def tiles_of(length: int, tile: int) -> int:
    """How many tiles a length has."""
    return -(-length // tile)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Launch a kernel without fused multiply-adds."""
    kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=False, **constants)
