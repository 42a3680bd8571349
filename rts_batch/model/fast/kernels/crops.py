"""A Triton kernel that makes of crops what a backbone's first convolution reads; `image.py` launches it.

Import this module only where Triton is installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normalise(
    crops, mean, std, out, area, channels,
    FLIPPED: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Crops `[B, 3, pixels]`, less the mean and over the deviation if one is given, to `[B, pixels, channels]`.

    FLIPPED turns the order of the three round; channels after them are zero. A block of a crop's pixels.
    """
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, CHANNELS)
    known = channel < 3
    source = 2 - channel if FLIPPED else channel
    crop = crops + tl.program_id(1) * 3 * area
    wanted = (pixel < area)[:, None] & known[None, :]
    found = tl.load(crop + source[None, :] * area + pixel[:, None], mask=wanted, other=0.0)
    found -= tl.load(mean + channel, mask=known, other=0.0)[None, :]
    if std is not None:
        found = tl.div_rn(found, tl.load(std + channel, mask=known, other=1.0)[None, :])
    place = (tl.program_id(1) * area + pixel)[:, None] * channels + channel[None, :]
    tl.store(out + place, found.to(out.dtype.element_ty), mask=(pixel < area)[:, None] & (channel < channels)[None, :])
