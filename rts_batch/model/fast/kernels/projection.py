"""The decoder's bicubic projection in Triton kernels: four taps where `networks.py` has matrices of mostly zeros."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import bicubic
from rts_batch.model.fast.kernels.sizes import blocks, power

PIXELS = {"resize": 32, "draw": 128}
"""A block of each kernel."""


def try_launch(device: torch.device) -> None:
    """Build and run the kernels on a few numbers; raise whatever keeps them from that."""
    ones = torch.ones(1, 8, 2, 3, device=device).contiguous(memory_format=torch.channels_last)
    found = draw(torch.ones(9, 1, 2, 3, device=device), torch.zeros(1, device=device), (4, 6))[0, 1, 1]
    found = found + upsample(ones, (4, 6)).sum()
    if not math.isclose(found.item(), 201, abs_tol=1e-3):
        raise RuntimeError(f"kernels ran and found {found.item()} where it should be 201")


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[B, C, H, W]` to `size`, channels last in and out."""
    count, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).contiguous()
    out = x.new_empty(count, *size, channels)
    bicubic.resize[_grid("resize", size, count)](
        *(x, out, height, width, *size, height / size[0], width / size[1], channels),
        CHANNELS=power(channels),
        **_options("resize"),
    )
    return out.permute(0, 3, 1, 2)


def draw(planes: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the 3×3 convolution whose taps' maps are `[9, B, H, W]`, each resized to `size`: `[B, *size]`."""
    planes = planes.contiguous()
    count, height, width = planes.shape[1:]
    out = planes.new_empty(count, *size)
    bicubic.draw[_grid("draw", size, count)](
        *(planes, bias, out, height, width, *size, height / size[0], width / size[1], count * height * width),
        **_options("draw"),
    )
    return out


def _grid(kernel: str, size: tuple[int, int], count: int) -> tuple[int, int]:
    return blocks(size[0] * size[1], PIXELS[kernel]), count


def _options(kernel: str) -> dict[str, Any]:
    return {"BLOCK": PIXELS[kernel], "enable_fp_fusion": True}
