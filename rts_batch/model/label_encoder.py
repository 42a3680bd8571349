"""E_θ and W_θ, the label encoder and the weight predictor, and the same layers as H_θ and as STA's box encoders.

One trunk with two heads (spec rts-network §6, §9, §11.2): a strided convolution, a max-pool and residual blocks, then
the label head (16 channels, ReLU) and the weight head (16 channels, no activation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rts_batch.model.layers import init_normal


class EncoderBlock(nn.Module):
    """Two 3×3 convolutions beside a 3×3 shortcut with bias; no BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.downsample = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.downsample(x))


class LabelEncoder(nn.Module):
    """Encodes a map of one channel for the target model's loss.

    Args:
        dims: widths of the trunk; one residual block fewer than widths.
        out_channels: channels of both heads, the number of the target model's filters.
        stride: of each of the four reducing layers; 2 for E_θ (16 in all), 1 for H_θ.
        context_channels: of the features x_s that STA's box encoders read before their last block; 0 for none.
    """

    def __init__(self, dims: Sequence[int], out_channels: int, *, stride: int = 2, context_channels: int = 0) -> None:
        super().__init__()
        self.stride = stride
        self.conv_block = nn.Sequential(nn.Conv2d(1, dims[0], 3, stride=stride, padding=1), nn.ReLU())
        self.res1 = EncoderBlock(dims[0], dims[1], stride)
        self.res2 = EncoderBlock(dims[1], dims[2], stride)
        self.res3 = EncoderBlock(dims[2] + context_channels, dims[3], 1) if context_channels else None
        label_head: list[nn.Module] = [nn.Conv2d(dims[-1], out_channels, 3, padding=1)]
        if context_channels:
            label_head.append(nn.BatchNorm2d(out_channels))
        self.label_pred = nn.Sequential(*label_head, nn.ReLU())
        self.samp_w_pred = nn.Conv2d(dims[-1], out_channels, 3, padding=1)
        init_normal(self)
        nn.init.zeros_(self.samp_w_pred.weight)
        nn.init.ones_(cast(Tensor, self.samp_w_pred.bias))

    def trunk(self, values: Tensor, context: Tensor | None = None) -> Tensor:
        """`[B, 1, H, W]` (and x_s `[B, C, h, w]`) → `[B, dims[-1], h, w]`, h = H / stride⁴."""
        x = self.conv_block(values)
        x = nn.functional.max_pool2d(x, 3, stride=self.stride, padding=1)
        x = self.res2(self.res1(x))
        if self.res3 is not None:
            assert context is not None, "a box encoder needs the features x_s"
            x = self.res3(torch.cat([x, context], dim=1))
        return x

    def forward(self, values: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the label E_θ(y) ≥ 0 and the weight W_θ(y) (any sign), both `[N, S, F, h, w]`.

        `values` are mask values in 0…1, `[N, S, H, W]`; `context` is x_s, `[N, S, C, h, w]`.
        """
        x = self.trunk(values.flatten(0, 1)[:, None], None if context is None else context.flatten(0, 1))
        shape = values.shape[:2]
        return self.label_pred(x).unflatten(0, shape), self.samp_w_pred(x).unflatten(0, shape)

    def label(self, values: Tensor) -> Tensor:
        """Return the label head alone, `[N, S, F, h, w]`."""
        return self.label_pred(self.trunk(values.flatten(0, 1)[:, None])).unflatten(0, values.shape[:2])
