"""Triton kernels for what a step of a learner does beside its two products; κ's own are in `hinge.py`.

Sums over blocks are written down block by block, and added up in their order by whoever reads them. Maps of samples
from the `filled`th on, a number on the device, are neither read nor written. Import this module only where Triton is
installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _added(values, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    return tl.sum(tl.load(values + at, mask=at < count, other=0.0), 0)


@triton.jit
def step_of(
    norms, curvatures, reg, norm_count, curvature_count,
    MINIMUM: tl.constexpr, NORMS: tl.constexpr, CURVATURES: tl.constexpr,
):  # fmt: skip
    """How far to go along the gradient."""
    norm = _added(norms, norm_count, NORMS)
    curvature = _added(curvatures, curvature_count, CURVATURES) + reg * reg * norm
    return norm / tl.maximum(curvature, MINIMUM)


@triton.jit
def _on_grid(pixel, row, area, FILTERS: tl.constexpr):
    """Where `[n, F, P]` holds the pixels of `[n·P]`, by row."""
    sample = pixel // area
    return (sample * FILTERS * area + pixel - sample * area)[None, :] + row[:, None] * area


@triton.jit
def gather(
    columns, weights, out, curvatures, filled, total, area, line,
    FILTERS: tl.constexpr, KERNEL: tl.constexpr, MEASURED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum the taps' columns where they belong. A block of pixels.

    With MEASURED the map is `[F, pixels]`, and Σ (ω · map)² of the block is written down; else `[n, F, P]`.
    """
    live = tl.load(filled).to(tl.int32) * area
    if tl.program_id(0) * BLOCK >= live:
        if MEASURED:
            tl.store(curvatures + tl.program_id(0), 0.0)
        return
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    valid = (row < FILTERS)[:, None] & (pixel < live)[None, :]
    found = tl.zeros([ROWS, BLOCK], tl.float32)
    for tap in tl.static_range(KERNEL * KERNEL):
        source = pixel + (tap // KERNEL - KERNEL // 2) * line + tap % KERNEL - KERNEL // 2
        wanted = valid & ((source >= 0) & (source < live))[None, :]
        found += tl.load(columns + (tap * FILTERS + row)[:, None] * total + source[None, :], mask=wanted, other=0.0)
    place = _on_grid(pixel, row, area, FILTERS)
    if MEASURED:
        tl.store(out + row[:, None] * total + pixel[None, :], found, mask=valid)
        weighted = found * tl.load(weights + place, mask=valid, other=0.0)
        tl.store(curvatures + tl.program_id(0), tl.sum(tl.sum(weighted * weighted, 1), 0))
    else:
        tl.store(out + place, found, mask=valid)


@triton.jit
def residuals(
    scores, change, labels, weights, norms, curvatures, reg, moved, out,
    filled, total, area, norm_count, curvature_count,
    FILTERS: tl.constexpr, MINIMUM: tl.constexpr, NORMS: tl.constexpr, CURVATURES: tl.constexpr,
    MOVES: tl.constexpr, LEFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """With MOVES take the last step: `moved` are the scores after it. With LEFT write ω² (scores − labels) to `out`.

    Maps are `[n, F, P]`, but change and `out` are `[F, pixels]`. A block of pixels.
    """
    live = tl.load(filled).to(tl.int32) * area
    if tl.program_id(0) * BLOCK >= live:
        return
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    valid = (row < FILTERS)[:, None] & (pixel < live)[None, :]
    place, along = _on_grid(pixel, row, area, FILTERS), row[:, None] * total + pixel[None, :]
    score = tl.load(scores + place, mask=valid, other=0.0)
    if MOVES:
        step = step_of(norms, curvatures, tl.load(reg), norm_count, curvature_count, MINIMUM, NORMS, CURVATURES)
        score -= step * tl.load(change + along, mask=valid, other=0.0)
        tl.store(moved + place, score, mask=valid)
    if LEFT:
        weight = tl.load(weights + place, mask=valid, other=0.0)
        tl.store(out + along, weight * weight * (score - tl.load(labels + place, mask=valid, other=0.0)), mask=valid)


@triton.jit
def gradient(partial, rows, reg, out, norms, filled, size, shares, BLOCK: tl.constexpr):
    """Add up the shares of `correlate` and λ² of the filter, `[rows, C]`, and write down the block's Σ gradient².

    With `filled` each share is a sample's.
    """
    if filled is not None:
        shares = tl.minimum(shares, tl.load(filled).to(tl.int32))
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < size
    factor = tl.load(reg)
    found = tl.zeros([BLOCK], tl.float32)
    for share in range(shares):
        found += tl.load(partial + share * size + at, mask=valid, other=0.0)
    found += factor * factor * tl.load(rows + at, mask=valid, other=0.0)
    tl.store(out + at, found, mask=valid)
    tl.store(norms + tl.program_id(0), tl.sum(found * found, 0))


@triton.jit
def descend(
    rows, gradient, norms, curvatures, reg, size, norm_count, curvature_count,
    MINIMUM: tl.constexpr, NORMS: tl.constexpr, CURVATURES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Take the step in the filter, `[rows, C]`, in place."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < size
    step = step_of(norms, curvatures, tl.load(reg), norm_count, curvature_count, MINIMUM, NORMS, CURVATURES)
    moved = tl.load(rows + at, mask=valid, other=0.0) - step * tl.load(gradient + at, mask=valid, other=0.0)
    tl.store(rows + at, moved, mask=valid)
