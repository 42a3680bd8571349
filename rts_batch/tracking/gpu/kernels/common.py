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

TILE_ROWS = 32
TILE_COLUMNS = 64


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
    written = at < tl.where(stored, capacity, 0)
    tl.store(weights + at, fresh, mask=written)
    tl.store(age + at, tl.zeros([BLOCK], tl.int64) + inserted + 1, mask=written & (at == chosen))
    tl.store(counters, tl.where(stored, tl.maximum(count, chosen + 1), count))
    tl.store(counters + 1, tl.where(stored, chosen, last))
    tl.store(counters + 2, tl.where(stored, inserted + 1, inserted))
    tl.store(slot, chosen)


@triton.jit
def keep(values, sample, slot, gate, size, BLOCK: tl.constexpr):
    """Write a sample into its slot."""
    if tl.load(gate) != 0:
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(values + tl.load(slot) * size + at, tl.load(sample + at, mask=at < size), mask=at < size)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Launch a kernel without fused multiply-adds."""
    kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=False, **constants)
