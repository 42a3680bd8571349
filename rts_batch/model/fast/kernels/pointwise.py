"""A Triton kernel for what follows a convolution, number by number; `epilogue.py` launches it.

Import this module only where Triton is installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def finish(
    values, bias, added, count, channels,
    BIASED: tl.constexpr, ADDS: tl.constexpr, FLOOR: tl.constexpr, CEILING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add a bias and another map, then cut at 0 and at CEILING (0: nowhere), in place; maps lie channels-last."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < count
    found = tl.load(values + at, mask=valid, other=0.0).to(tl.float32)
    if BIASED:
        found += tl.load(bias + at % channels, mask=valid, other=0.0).to(tl.float32)
    if ADDS:
        found += tl.load(added + at, mask=valid, other=0.0).to(tl.float32)
    if FLOOR:
        found = tl.where(found < 0, 0.0, found)
    if CEILING > 0:
        found = tl.where(found > CEILING, 1.0 * CEILING, found)
    tl.store(values + at, found.to(values.dtype.element_ty), mask=valid)
