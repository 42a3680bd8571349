"""Triton kernels that scale maps by their own energy; `norm.py` launches them.

A program has a block of a sample's numbers, in whatever order they lie. Import this module only where Triton is
installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def energies(values, out, size, BLOCK: tl.constexpr):
    """Sum the squares of a block of `[B, numbers]`, to `[B, blocks]`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    found = tl.load(values + tl.program_id(1) * size + at, mask=at < size, other=0.0).to(tl.float32)
    tl.store(out + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(found * found, 0))


@triton.jit
def scale(values, energies, out, size, parts, factor, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """Multiply by `factor` · √(numbers / energy), the energy being the sum of a sample's parts."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.arange(0, PARTS)
    energy = tl.sum(tl.load(energies + tl.program_id(1) * parts + part, mask=part < parts, other=0.0), 0)
    found = tl.load(values + tl.program_id(1) * size + at, mask=at < size, other=0.0).to(tl.float32)
    found = found * (factor * tl.sqrt_rn(size / (energy + 1e-5)))
    tl.store(out + tl.program_id(1) * size + at, found, mask=at < size)
