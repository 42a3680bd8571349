"""Small layers that several parts of the network share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class InstanceL2Norm(nn.Module):
    """Scales each sample so that its squared norm over (C, H, W) is `scale`²·C·H·W (spec rts-network §3)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same shape."""
        energy = x.square().sum(dim=(1, 2, 3), keepdim=True)
        values = math.prod(int(length) for length in x.shape[1:])  # a plain number for who traces this
        return x * (self.scale * torch.sqrt(values / (energy + 1e-5)))


class FeatureBranch(nn.Sequential):
    """F_θ (stride 1) and G_θ (stride 2): one 3×3 convolution and an instance normalisation (§4).

    Both branches use the scale of the segmentation filter's size, as the released network does.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        super().__init__(conv, InstanceL2Norm(math.sqrt(1 / (out_channels * 3 * 3))))


def resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear resize of `[B, C, H, W]` to `size` (H, W), align_corners false; the input itself where it fits."""
    if x.shape[-2:] == torch.Size(size):
        return x
    return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def init_normal(module: nn.Module) -> None:
    """Draw every convolution weight from N(0, √(2 / (kh·kw·C_out))); biases keep the framework's default (§13)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_out))
