"""Triton kernels that resize a map bilinearly, as PyTorch does with align_corners false, and mix it with another.

`mixing.py` launches them. Maps are `[B, pixels, C]`; a program has a block of a map's numbers. Import this module only
where Triton is installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _pixel(place, length):
    """The pixel before a place between pixels, the one after it, and what the latter counts."""
    place = tl.maximum(place, 0.0)
    before = tl.minimum(place.to(tl.int32), length - 1)
    return before, tl.minimum(before + 1, length - 1), place - before.to(tl.float32)


@triton.jit
def _resized(maps, pixel, out_width, height, width, step_y, step_x, channel, channels, wanted):
    """What a map `[H, W, C]` is at pixels of another size."""
    top, bottom, down = _pixel(((pixel // out_width).to(tl.float32) + 0.5) * step_y - 0.5, height)
    left, right, across = _pixel(((pixel % out_width).to(tl.float32) + 0.5) * step_x - 0.5, width)
    maps += channel
    a = tl.load(maps + (top * width + left) * channels, mask=wanted, other=0.0).to(tl.float32)
    b = tl.load(maps + (top * width + right) * channels, mask=wanted, other=0.0).to(tl.float32)
    c = tl.load(maps + (bottom * width + left) * channels, mask=wanted, other=0.0).to(tl.float32)
    d = tl.load(maps + (bottom * width + right) * channels, mask=wanted, other=0.0).to(tl.float32)
    return (1 - down) * ((1 - across) * a + across * b) + down * ((1 - across) * c + across * d)


@triton.jit
def attend(
    shallow, attention, deeper, out, size, out_width, height, width, step_y, step_x, channels,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Weight a map's channels by the sigmoid of `attention`, `[B, C]`, and add the deeper map, resized."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wanted = at < size
    channel, sample = at % channels, tl.program_id(1)
    source = deeper + sample * height * width * channels
    found = _resized(source, at // channels, out_width, height, width, step_y, step_x, channel, channels, wanted)
    weight = tl.sigmoid(tl.load(attention + sample * channels + channel, mask=wanted, other=0.0).to(tl.float32))
    found += tl.load(shallow + sample * size + at, mask=wanted, other=0.0).to(tl.float32) * weight
    tl.store(out + sample * size + at, found.to(out.dtype.element_ty), mask=wanted)


@triton.jit
def join(
    first, second, out, size, out_width, height, width, step_y, step_x, first_channels, second_channels,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A map's channels, then those of a second one, resized."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channels, sample = first_channels + second_channels, tl.program_id(1)
    channel, pixel = at % channels, at // channels
    own, wanted = (channel < first_channels) & (at < size), (channel >= first_channels) & (at < size)
    source = second + sample * height * width * second_channels
    other = channel - first_channels
    found = _resized(source, pixel, out_width, height, width, step_y, step_x, other, second_channels, wanted)
    place = (sample * (size // channels) + pixel) * first_channels + channel
    found += tl.load(first + place, mask=own, other=0.0).to(tl.float32)
    tl.store(out + sample * size + at, found.to(out.dtype.element_ty), mask=at < size)
