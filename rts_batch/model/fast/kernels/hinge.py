"""Triton kernels for the learner of κ: one filter of 4×4 taps, and a residual whose slope depends on the scores.

`kappa.py` launches them. Features are `[n, C, h, w]`, score maps `[n, h + 1, w + 1]`; a program has one sample, or a
part of it. Those of samples from the `filled`th on, a number on the device, have nothing to do. Import this module only
where Triton is installed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rts_batch.model.fast.kernels.descent import step_of


@triton.jit
def columns(
    features, rows, out, filled, area, channels,
    KERNEL: tl.constexpr, PRECISION: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Each tap of the filter, `[taps, C]`, times each pixel: `[n, taps, h·w]`. A block of a sample's pixels."""
    sample = tl.program_id(1)
    if sample >= tl.load(filled):
        return
    pixel = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    tap = tl.arange(0, KERNEL * KERNEL)
    found = tl.zeros([KERNEL * KERNEL, BLOCK_PIXELS], tl.float32)
    for first in range(0, channels, BLOCK_CHANNELS):
        channel = first + tl.arange(0, BLOCK_CHANNELS)
        known = channel < channels
        place = (sample * channels + channel)[:, None] * area + pixel[None, :]
        x = tl.load(features + place, mask=known[:, None] & (pixel < area)[None, :], other=0.0)
        row = tl.load(rows + tap[:, None] * channels + channel[None, :], mask=known[None, :], other=0.0)
        found = tl.dot(row, x, found, input_precision=PRECISION)
    place = (sample * KERNEL * KERNEL + tap)[:, None] * area + pixel[None, :]
    tl.store(out + place, found, mask=(pixel < area)[None, :])


@triton.jit
def correlate(
    features, residuals, partial, filled, height, width, channels,
    KERNEL: tl.constexpr, PRECISION: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum a sample's residuals times its features a tap away: `[n, taps, C]`. A block of channels of a sample."""
    sample, area = tl.program_id(1), height * width
    if sample >= tl.load(filled):
        return
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    known = channel < channels
    tap = tl.arange(0, KERNEL * KERNEL)
    found = tl.zeros([KERNEL * KERNEL, BLOCK_CHANNELS], tl.float32)
    for first in range(0, area, BLOCK_PIXELS):
        pixel = first + tl.arange(0, BLOCK_PIXELS)
        row = (pixel // width)[None, :] + (KERNEL // 2 - tap // KERNEL)[:, None]
        column = (pixel % width)[None, :] + (KERNEL // 2 - tap % KERNEL)[:, None]
        wanted = (row >= 0) & (row <= height) & (column >= 0) & (column <= width) & (pixel < area)[None, :]
        place = (sample * (height + 1) + row) * (width + 1) + column
        residual = tl.load(residuals + place, mask=wanted, other=0.0)
        place = (sample * channels + channel)[None, :] * area + pixel[:, None]
        x = tl.load(features + place, mask=(pixel < area)[:, None] & known[None, :], other=0.0)
        found = tl.dot(residual, x, found, input_precision=PRECISION)
    place = (sample * KERNEL * KERNEL + tap)[:, None] * channels + channel[None, :]
    tl.store(partial + place, found, mask=known[None, :])


@triton.jit
def gather(
    columns, slopes, out, curvatures, filled, height, width,
    KERNEL: tl.constexpr, MEASURED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum the taps' columns where they belong. A block of a sample's score map.

    With MEASURED also write down Σ (slope · map)² of the block.
    """
    sample, size = tl.program_id(1), (height + 1) * (width + 1)
    if sample >= tl.load(filled):
        if MEASURED:
            tl.store(curvatures + sample * tl.num_programs(0) + tl.program_id(0), 0.0)
        return
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < size
    found = tl.zeros([BLOCK], tl.float32)
    for tap in tl.static_range(KERNEL * KERNEL):
        row = at // (width + 1) + (tap // KERNEL - KERNEL // 2)
        column = at % (width + 1) + (tap % KERNEL - KERNEL // 2)
        wanted = valid & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = (sample * KERNEL * KERNEL + tap) * height * width + row * width + column
        found += tl.load(columns + place, mask=wanted, other=0.0)
    tl.store(out + sample * size + at, found, mask=valid)
    if MEASURED:
        weighted = found * tl.load(slopes + sample * size + at, mask=valid, other=0.0)
        tl.store(curvatures + sample * tl.num_programs(0) + tl.program_id(0), tl.sum(weighted * weighted, 0))


@triton.jit
def residuals(
    scores, change, labels, weights, norms, curvatures, reg, slopes, out,
    filled, size, threshold, leak, norm_count, curvature_count,
    MINIMUM: tl.constexpr, NORMS: tl.constexpr, CURVATURES: tl.constexpr, MOVES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """With MOVES take the last step in the scores. Write the residual's slope by each score, and slope · residual.

    `InstanceModel.learn` says what they are. A block of a sample's score map.
    """
    if tl.program_id(1) >= tl.load(filled):
        return
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < size
    place = tl.program_id(1) * size + at
    score = tl.load(scores + place, mask=valid, other=0.0)
    if MOVES:
        step = step_of(norms, curvatures, tl.load(reg), norm_count, curvature_count, MINIMUM, NORMS, CURVATURES)
        score -= step * tl.load(change + place, mask=valid, other=0.0)
        tl.store(scores + place, score, mask=valid)
    label = tl.load(labels + place, mask=valid, other=0.0)
    weight = tl.sqrt_rn(tl.load(weights + tl.program_id(1)))
    target = tl.minimum(tl.where(label > threshold, 1.0, 0.0) + leak, 1.0)
    sign = tl.where(score > 0, 1.0, tl.where(score < 0, -1.0, 0.0))
    slope = 0.5 * (1 - target) * sign + 0.5 * (1 + target)
    tl.store(slopes + place, weight * slope, mask=valid)
    tl.store(out + place, weight * slope * (weight * (slope * score - target * label)), mask=valid)
