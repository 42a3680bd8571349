"""Triton kernels that resize bicubically, as PyTorch does with align_corners false, from the four taps that there are.

`projection.py` launches them. Import this module only where Triton is installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _near(distance):
    """The cubic convolution's weight within one pixel, for A = −0.75."""
    return (1.25 * distance - 2.25) * distance * distance + 1


@triton.jit
def _far(distance):
    """Its weight between one pixel and two."""
    return ((-0.75 * distance + 3.75) * distance - 6) * distance + 3


@triton.jit
def _weight(place, tap: tl.constexpr):
    """What the tap's pixel counts for a place between pixels."""
    off = place - tl.floor(place)
    if tap == 0:
        found = _far(off + 1)
    elif tap == 1:
        found = _near(off)
    elif tap == 2:
        found = _near(1 - off)
    else:
        found = _far(2 - off)
    return found


@triton.jit
def _pixel(place, tap: tl.constexpr, length):
    """Which pixel that is; beyond the map it is the last one."""
    return tl.minimum(tl.maximum(tl.floor(place).to(tl.int32) + (tap - 1), 0), length - 1)


@triton.jit
def resize(
    maps, out, height, width, out_height, out_width, step_y, step_x, channels,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Maps `[B, H, W, C]` to `[B, H', W', C]`. A block of a map's pixels."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, CHANNELS)
    wanted = (at < out_height * out_width)[:, None] & (channel < channels)[None, :]
    y = ((at // out_width).to(tl.float32) + 0.5) * step_y - 0.5
    x = ((at % out_width).to(tl.float32) + 0.5) * step_x - 0.5
    source = maps + tl.program_id(1) * height * width * channels + channel[None, :]
    found = tl.zeros([BLOCK, CHANNELS], tl.float32)
    for down in tl.static_range(4):
        line = tl.zeros([BLOCK, CHANNELS], tl.float32)
        for across in tl.static_range(4):
            place = (_pixel(y, down, height) * width + _pixel(x, across, width)) * channels
            line += _weight(x, across)[:, None] * tl.load(source + place[:, None], mask=wanted, other=0.0)
        found += _weight(y, down)[:, None] * line
    target = out + tl.program_id(1) * out_height * out_width * channels + channel[None, :]
    tl.store(target + at[:, None] * channels, found, mask=wanted)


@triton.jit
def draw(
    planes, bias, out, height, width, out_height, out_width, step_y, step_x, plane,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Resize the planes of a 3×3 convolution's taps, `[9, B, H, W]`, and sum them a tap further: `[B, H', W']`.

    Beyond the resized map they are zero. A block of a map's pixels.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = at < out_height * out_width
    row, column = at // out_width, at % out_width
    found = tl.zeros([BLOCK], tl.float32) + tl.load(bias)
    for tap in tl.static_range(9):
        to_row, to_column = row + (tap // 3 - 1), column + (tap % 3 - 1)
        inside = valid & (to_row >= 0) & (to_row < out_height) & (to_column >= 0) & (to_column < out_width)
        y = (to_row.to(tl.float32) + 0.5) * step_y - 0.5
        x = (to_column.to(tl.float32) + 0.5) * step_x - 0.5
        source = planes + tap * plane + tl.program_id(1) * height * width
        for down in tl.static_range(4):
            line = tl.zeros([BLOCK], tl.float32)
            for across in tl.static_range(4):
                place = _pixel(y, down, height) * width + _pixel(x, across, width)
                line += _weight(x, across) * tl.load(source + place, mask=inside, other=0.0)
            found += _weight(y, down) * line
    tl.store(out + tl.program_id(1) * out_height * out_width + at, found, mask=valid)
