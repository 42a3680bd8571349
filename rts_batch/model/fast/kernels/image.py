"""Crops made ready for a backbone in one Triton kernel: normalised, rounded, padded with channels, channels last."""

from __future__ import annotations

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import crops as kernels
from rts_batch.model.fast.kernels.sizes import blocks, power

BLOCK = 256


def try_launch(device: torch.device) -> None:
    """Build and run the kernel on a few numbers; raise whatever keeps it from that."""
    weight = torch.zeros(1, 8, 1, 1, dtype=torch.bfloat16, device=device)
    crop = torch.arange(3.0, device=device).view(1, 3, 1, 1)
    found = normalise(crop, crop[0] + 1, crop[0] + 1, weight, flipped=True).flatten().tolist()
    if found[:3] != [1, -0.5, -1] or any(found[3:]):
        raise RuntimeError(f"a kernel ran and found {found} where it should be 1, −0.5, −1 and zeros")


def normalise(crops: Tensor, mean: Tensor, std: Tensor | None, weight: Tensor, *, flipped: bool = False) -> Tensor:
    """Return `[B, C, H, W]` for a convolution with a weight `[C', C, k, k]`, of its type, channels last.

    Args:
        crops: `[B, 3, H, W] float32`.
        mean: what goes off each of the three, `[3, 1, 1]`.
        std: what each is then divided by, `[3, 1, 1]`; nothing where absent.
        weight: C is 3, or more, whose channels are zero.
        flipped: whether the three are turned round first.
    """
    crops = crops.contiguous()
    count, _, height, width = crops.shape
    channels = weight.shape[1]
    out = crops.new_empty(count, height, width, channels, dtype=weight.dtype)
    kernels.normalise[(blocks(height * width, BLOCK), count)](
        *(crops, mean, std, out, height * width, channels),
        FLIPPED=flipped,
        CHANNELS=power(channels),
        BLOCK=BLOCK,
        enable_fp_fusion=False,
    )
    return out.permute(0, 3, 1, 2)
