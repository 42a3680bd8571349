"""`layers.InstanceL2Norm` in two Triton kernels, one of which casts as well; PyTorch has nine for that."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import energy
from rts_batch.model.fast.kernels.sizes import blocks, power

BLOCK = 4096
"""A sample of `rts50` then has some two hundred parts to add up."""


def try_launch(device: torch.device) -> None:
    """Build and run the kernels on a few numbers; raise whatever keeps them from that."""
    found = normalise(torch.full((1, 4, 2, 2), 3.0, dtype=torch.bfloat16, device=device), 2.0)
    if not math.isclose(found.sum().item(), 32, abs_tol=1e-3):
        raise RuntimeError(f"kernels ran and found {found.sum().item()} where it should be 32")


def normalise(x: Tensor, scale: float) -> Tensor:
    """Return `[B, C, H, W] float32` with the squared norm `scale`²·C·H·W of each sample; it lies as `x` does."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous()
    size, count = x[0].numel(), len(x)
    out = torch.empty_like(x, dtype=torch.float32)
    parts = blocks(size, BLOCK)
    energies = out.new_empty(count, parts)
    energy.energies[(parts, count)](x, energies, size, BLOCK=BLOCK, enable_fp_fusion=False)
    energy.scale[(parts, count)](
        *(x, energies, out, size, parts, scale), PARTS=power(parts), BLOCK=BLOCK, enable_fp_fusion=False
    )
    return out
