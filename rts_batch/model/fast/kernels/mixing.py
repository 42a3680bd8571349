"""Two maps of the decoder mixed in one Triton kernel, the second resized meanwhile: for its attention and encodings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import bilinear
from rts_batch.model.fast.kernels.sizes import blocks

BLOCK = 1024


def try_launch(device: torch.device) -> None:
    """Build and run the kernels on a few numbers; raise whatever keeps them from that."""
    x, small = torch.ones(1, 3, 4, 4, device=device), torch.full((1, 3, 2, 2), 2.0, device=device)
    found = attend(x, small.new_zeros(1, 3, 1, 1), small).sum().item() + join(x, small).sum().item()
    if not math.isclose(found, 48 * (2.5 + 3), abs_tol=1e-3):
        raise RuntimeError(f"kernels ran and found {found} where it should be 264")


def attend(shallow: Tensor, attention: Tensor, deeper: Tensor) -> Tensor:
    """Return `shallow` · sigmoid(attention) + deeper, channels last.

    Args:
        shallow: `[B, C, H, W]`.
        attention: `[B, C, 1, 1]`.
        deeper: `[B, C, h, w]`, which is resized.
    """
    shallow, deeper = _lying(shallow), _lying(deeper)
    out = torch.empty_like(shallow)
    bilinear.attend[(blocks(shallow[0].numel(), BLOCK), len(shallow))](
        *(shallow, attention.contiguous(), deeper, out, shallow[0].numel(), *_sizes(deeper, shallow)),
        shallow.shape[1],
        BLOCK=BLOCK,
        enable_fp_fusion=False,
    )
    return out


def join(first: Tensor, second: Tensor) -> Tensor:
    """Return the channels of `[B, C, H, W]`, then those of `[B, C', h, w]`, which is resized; channels last."""
    first, second = _lying(first), _lying(second)
    count, channels, height, width = first.shape
    shape = (count, channels + second.shape[1], height, width)
    out = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
    bilinear.join[(blocks(out[0].numel(), BLOCK), count)](
        *(first, second, out, out[0].numel(), *_sizes(second, first), channels, second.shape[1]),
        BLOCK=BLOCK,
        enable_fp_fusion=False,
    )
    return out


def _lying(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _sizes(old: Tensor, new: Tensor) -> tuple[int, int, int, float, float]:
    """What a kernel is told of a resize."""
    height, width = old.shape[-2:]
    return new.shape[-1], height, width, height / new.shape[-2], width / new.shape[-1]
