"""D_θ, the segmentation decoder: mask encodings and backbone maps, coarse to fine, to one logit a pixel (§10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rts_batch.config import Upsampling
from rts_batch.model.backbones import FeatureMaps
from rts_batch.model.layers import resize

LEVELS = ("layer4", "layer3", "layer2", "layer1")


class TargetScoreEncoder(nn.Module):
    """TSE: reduces a backbone map and mixes it with the resized mask encoding."""

    def __init__(self, map_channels: int, score_channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(map_channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
        mixed = width + score_channels
        self.transform = nn.Sequential(
            nn.Conv2d(mixed, mixed, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(mixed, mixed, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(mixed, width, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, feature_map: Tensor, scores: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return this level's map and the deeper signal; at the deepest level that is a global average.

        `scores` is the mask encoding in any size.
        """
        reduced = self.reduce(feature_map)
        if deeper is None:
            deeper = functional.adaptive_avg_pool2d(reduced, 1)
        return self.transform(self.joined(reduced, scores)), deeper

    def joined(self, reduced: Tensor, scores: Tensor) -> Tensor:
        """Return the channels of a reduced map, then those of the mask encoding, resized to it."""
        return torch.cat([reduced, resize(scores, reduced.shape[-2:])], dim=1)


class ResidualRefinement(nn.Module):
    """RRB: a 1×1 convolution and a residual 3×3 pair with BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.bblock = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1(x)
        return torch.relu(x + self.bblock(x))


class ChannelAttention(nn.Module):
    """CAB: weights the shallow channels by both levels' averages, then adds the deeper level."""

    def __init__(self, width: int, *, deepest: bool) -> None:
        super().__init__()
        self.deepest = deepest
        self.convreluconv = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, shallow: Tensor, deeper: Tensor) -> Tensor:
        deep_average = deeper if self.deepest else functional.adaptive_avg_pool2d(deeper, 1)
        averages = torch.cat([functional.adaptive_avg_pool2d(shallow, 1), deep_average], dim=1)
        return self.mixed(shallow, self.convreluconv(averages), deeper)

    def mixed(self, shallow: Tensor, attention: Tensor, deeper: Tensor) -> Tensor:
        """Return the shallow map by the sigmoid of `attention`, and the deeper one, resized, added."""
        # At the deepest level `deeper` is one vector a sample, which broadcasts.
        return shallow * torch.sigmoid(attention) + (deeper if self.deepest else resize(deeper, shallow.shape[-2:]))


class Projection(nn.Module):
    """Two upsamplings with a convolution each, the second after its upsampling (bicubic) or before it (bilinear)."""

    def __init__(self, width: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, 1, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        doubled = (2 * x.shape[-2], 2 * x.shape[-1])
        if self.upsampling == "bilinear":
            return resize(self.conv2(torch.relu(self.conv1(resize(x, doubled)))), size)
        x = torch.relu(self.conv1(functional.interpolate(x, doubled, mode="bicubic", align_corners=False)))
        if x.shape[-2:] != size:
            x = functional.interpolate(x, size, mode="bicubic", align_corners=False)
        return self.conv2(x)


class Decoder(nn.Module):
    """D_θ.

    Args:
        map_channels: width of each backbone map.
        score_channels: of the mask encoding (16 in RTS, 32 in STA).
        widths: of the levels layer4, layer3, layer2, layer1.
        upsampling: of the projection to the output.
    """

    def __init__(
        self,
        map_channels: Mapping[str, int],
        score_channels: int,
        widths: Sequence[int],
        *,
        upsampling: Upsampling = "bicubic",
    ) -> None:
        super().__init__()
        width_of = dict(zip(LEVELS, widths, strict=True))
        self.TSE = nn.ModuleDict(
            {level: TargetScoreEncoder(map_channels[level], score_channels, width_of[level]) for level in LEVELS}
        )
        self.RRB1 = nn.ModuleDict({level: ResidualRefinement(width_of[level]) for level in LEVELS})
        self.CAB = nn.ModuleDict(
            {level: ChannelAttention(width_of[level], deepest=level == LEVELS[0]) for level in LEVELS}
        )
        self.RRB2 = nn.ModuleDict({level: ResidualRefinement(width_of[level]) for level in LEVELS})
        self.proj = nn.ModuleDict(
            {
                level: nn.Sequential(nn.Conv2d(width_of[deeper], width_of[level], 1), nn.ReLU())
                for deeper, level in pairwise(LEVELS)
            }
        )
        self.project = Projection(widths[-1], upsampling)

    def forward(self, scores: Tensor, maps: FeatureMaps, size: tuple[int, int]) -> Tensor:
        """Return logits, `[B, 1, *size]`.

        Args:
            scores: fused mask encoding x_f, `[B, score_channels, h, w]`.
            maps: the backbone's, batch B.
            size: (H, W) of the logits.
        """
        x: Tensor | None = None
        for level in LEVELS:
            feature_map = maps[level]
            deeper = None if x is None else self.proj[level](x)
            x, deeper = self.TSE[level](feature_map, scores, deeper)
            x = self.RRB2[level](self.CAB[level](self.RRB1[level](x), deeper))
        return self.project(x, size)
