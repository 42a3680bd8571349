"""What follows a convolution in one Triton kernel; PyTorch has one for the bias and one for each further step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rts_batch.model.fast.kernels import pointwise
from rts_batch.model.fast.kernels.sizes import blocks

BLOCK = 1024
CEILINGS: dict[type[nn.Module] | None, tuple[bool, int]] = {None: (False, 0), nn.ReLU: (True, 0), nn.ReLU6: (True, 6)}
"""Whether an activation cuts at 0, and where above; 0 is nowhere."""


def try_launch(device: torch.device) -> None:
    """Build and run the kernel on a few numbers; raise whatever keeps it from that."""
    values = torch.full((1, 3, 2, 2), 2.0, dtype=torch.bfloat16, device=device)
    found = finish(values, values.new_tensor([-9.0, 1.0, 9.0]), values.clone(), nn.ReLU6).sum().item()
    if found != 4 * (0 + 5 + 6):
        raise RuntimeError(f"a kernel ran and found {found} where it should be 44")


def finish(y: Tensor, bias: Tensor | None, added: Tensor | None, activation: type[nn.Module] | None) -> Tensor:
    """Add bias and another map to `[B, C, H, W]`, then apply the activation; in place where it lies channels-last.

    Sums are float32 and are rounded once.
    """
    y = y.contiguous(memory_format=torch.channels_last)
    if added is not None:
        added = added.contiguous(memory_format=torch.channels_last)
    floor, ceiling = CEILINGS[activation]
    pointwise.finish[(blocks(y.numel(), BLOCK),)](
        *(y, bias, added, y.numel(), y.shape[1]),
        BIASED=bias is not None,
        ADDS=added is not None,
        FLOOR=floor,
        CEILING=ceiling,
        BLOCK=BLOCK,
        enable_fp_fusion=False,
    )
    return y
