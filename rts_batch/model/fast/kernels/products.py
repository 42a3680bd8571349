"""Triton kernels for the two matrix products of the learner of τ, each of which reads the features once.

`tau.py` launches them and says what they are for. A row of theirs is one tap of one filter, `row = tap · F + filter`.
Nine taps of sixteen filters are no power of two of rows, so they are two groups, of 128 and 16. Sums go in a fixed
order. Pixels of samples from the `filled`th on, a number on the device, are not read. Import this module only where
Triton is installed, as it is with PyTorch for CUDA.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def columns(
    pixels, rows, out, filled, total, area, channels, count,
    PRECISION: tl.constexpr, LARGE: tl.constexpr, SMALL: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Each row of the filter, `[rows, C]`, times each pixel, `[pixels, C]`: `[rows, pixels]`. A block of pixels."""
    live = tl.load(filled).to(tl.int32) * area
    if tl.program_id(0) * BLOCK_PIXELS >= live:
        return
    pixel = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    large, small = tl.arange(0, LARGE), LARGE + tl.arange(0, SMALL)
    most = tl.zeros([LARGE, BLOCK_PIXELS], tl.float32)
    rest = tl.zeros([SMALL, BLOCK_PIXELS], tl.float32)
    for first in range(0, channels, BLOCK_CHANNELS):
        channel = first + tl.arange(0, BLOCK_CHANNELS)
        known = channel < channels
        x = tl.load(
            pixels + pixel[None, :] * channels + channel[:, None],
            mask=known[:, None] & (pixel < live)[None, :],
            other=0.0,
        )
        place = large[:, None] * channels + channel[None, :]
        most = tl.dot(tl.load(rows + place, mask=known[None, :], other=0.0), x, most, input_precision=PRECISION)
        place = small[:, None] * channels + channel[None, :]
        wanted = known[None, :] & (small < count)[:, None]
        rest = tl.dot(tl.load(rows + place, mask=wanted, other=0.0), x, rest, input_precision=PRECISION)
    inside = (pixel < live)[None, :]
    tl.store(out + large[:, None] * total + pixel[None, :], most, mask=inside)
    tl.store(out + small[:, None] * total + pixel[None, :], rest, mask=inside & (small < count)[:, None])


@triton.jit
def _shifted(maps, row, pixel, last, live, total, line, count, FILTERS: tl.constexpr, KERNEL: tl.constexpr):
    """What a map holds at the pixel from which each row's tap reaches `pixel`; zero beyond `last` and the ends."""
    tap = row // FILTERS
    shift = (tap // KERNEL - KERNEL // 2) * line + tap % KERNEL - KERNEL // 2
    source = pixel[None, :] - shift[:, None]
    wanted = (row < count)[:, None] & (pixel < last)[None, :] & (source >= 0) & (source < live)
    return tl.load(maps + (row % FILTERS)[:, None] * total + source, mask=wanted, other=0.0)


@triton.jit
def correlate(
    pixels, maps, partial, filled, total, area, channels, line, count,
    FILTERS: tl.constexpr, KERNEL: tl.constexpr, PRECISION: tl.constexpr, LARGE: tl.constexpr, SMALL: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum a map, `[F, pixels]`, times the features a tap further, over a share of the pixels: `[shares, rows, C]`.

    A program has one share and a block of channels. Shares are equal, whole blocks of pixels, but for the last ones.
    """
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    known = channel < channels
    large, small = tl.arange(0, LARGE), LARGE + tl.arange(0, SMALL)
    most = tl.zeros([LARGE, BLOCK_CHANNELS], tl.float32)
    rest = tl.zeros([SMALL, BLOCK_CHANNELS], tl.float32)
    live = tl.load(filled).to(tl.int32) * area
    share = BLOCK_PIXELS * tl.cdiv(live, BLOCK_PIXELS * tl.num_programs(1))
    first = tl.program_id(1) * share
    last = tl.minimum(first + share, live)
    for start in range(first, last, BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        x = tl.load(
            pixels + pixel[:, None] * channels + channel[None, :],
            mask=(pixel < last)[:, None] & known[None, :],
            other=0.0,
        )
        taps = _shifted(maps, large, pixel, last, live, total, line, count, FILTERS, KERNEL)
        most = tl.dot(taps, x, most, input_precision=PRECISION)
        taps = _shifted(maps, small, pixel, last, live, total, line, count, FILTERS, KERNEL)
        rest = tl.dot(taps, x, rest, input_precision=PRECISION)
    out = partial + tl.program_id(1) * count * channels + channel[None, :]
    tl.store(out + large[:, None] * channels, most, mask=known[None, :])
    tl.store(out + small[:, None] * channels, rest, mask=known[None, :] & (small < count)[:, None])
