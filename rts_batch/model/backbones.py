"""B_θ, the backbone: Mask R-CNN's ResNet-50 (the paper's) and MobileNetV2 (the small default).

Both take a crop in RGB, 0…255, normalise it as their weights expect and return four maps, `layer1` … `layer4`, at
strides 4, 8, 16 and 32. BatchNorm keeps its stored statistics always, also in training (spec rts-network §2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from rts_batch.config import BackboneName, LayerName
from rts_batch.model.layers import resize

FeatureMaps = dict[str, Tensor]
"""`layer1` … `layer4`, each `[B, C, H / stride, W / stride] float32`."""


class Backbone(nn.Module, ABC):
    """A network that turns a crop into `FeatureMaps`; `channels` names the width of each map."""

    channels: ClassVar[dict[str, int]]

    @abstractmethod
    def normalise(self, crop: Tensor) -> Tensor:
        """Return `crop`, `[B, 3, H, W] float32` RGB 0…255, as the weights expect it."""

    @abstractmethod
    def forward(self, image: Tensor, *, deepest: LayerName = "layer4") -> FeatureMaps:
        """Return the maps of a normalised image, `[B, 3, H, W] float32`, down to the one named."""


class Bottleneck(nn.Module):
    """A residual block whose stride sits in its first 1×1 convolution, as in Caffe2 (§2.2)."""

    def __init__(self, in_channels: int, planes: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, 4 * planes, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * planes))
            if project
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(Backbone):
    """Mask R-CNN's ResNet-50 without its head; input is BGR less Detectron's channel means (§2.1)."""

    channels: ClassVar = {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, blocks=3, stride=1)
        self.layer2 = self._stage(256, 128, blocks=4, stride=2)
        self.layer3 = self._stage(512, 256, blocks=6, stride=2)
        self.layer4 = self._stage(1024, 512, blocks=3, stride=2)
        self.register_buffer("mean", torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1), persistent=False)

    @staticmethod
    def _stage(in_channels: int, planes: int, *, blocks: int, stride: int) -> nn.Sequential:
        first = Bottleneck(in_channels, planes, stride, project=True)
        return nn.Sequential(first, *(Bottleneck(4 * planes, planes, 1, project=False) for _ in range(blocks - 1)))

    def normalise(self, crop: Tensor) -> Tensor:
        return crop.flip(-3) - cast(Tensor, self.mean)

    def stem(self, image: Tensor) -> Tensor:
        """`[B, 3, H, W]` → `[B, 64, H/2, W/2]`."""
        return torch.relu(self.bn1(self.conv1(image)))

    def forward(self, image: Tensor, *, deepest: LayerName = "layer4") -> FeatureMaps:
        x = nn.functional.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        maps: FeatureMaps = {}
        for name, layer in (
            ("layer1", self.layer1),
            ("layer2", self.layer2),
            ("layer3", self.layer3),
            ("layer4", self.layer4),
        ):
            x = maps[name] = layer(x)
            if name == deepest:
                break
        return maps


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1×1, depthwise 3×3, project 1×1; the usual key layout `conv.0.0` … `conv.3`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = in_channels * expand
        depthwise = _conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden)
        project = [nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        if expand == 1:
            self.conv = nn.Sequential(depthwise, *project)
        else:
            self.conv = nn.Sequential(_conv_bn_relu6(in_channels, hidden, 1), depthwise, *project)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNetV2 1.0 up to its last bottleneck; input is RGB in 0…1 less ImageNet's mean over its deviation."""

    channels: ClassVar = {"layer1": 24, "layer2": 32, "layer3": 96, "layer4": 320}
    # Index of the block whose output is the last at its stride.
    taps: ClassVar = {3: "layer1", 6: "layer2", 13: "layer3", 17: "layer4"}
    # expansion, channels, blocks, stride of the first
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, stride=2)]
        in_channels = 32
        for expand, out_channels, count, stride in self.stages:
            for index in range(count):
                blocks.append(InvertedResidual(in_channels, out_channels, stride if index == 0 else 1, expand))
                in_channels = out_channels
        self.features = nn.ModuleList(blocks)
        # 255 times ImageNet's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225, in float32. A product would make PyTorch
        # load its compiler, 1.2 s of every worker's start, when `weights.layout` builds the network without memory.
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([58.395, 57.120004, 57.375]).view(3, 1, 1), persistent=False)

    def normalise(self, crop: Tensor) -> Tensor:
        return (crop - cast(Tensor, self.mean)) / cast(Tensor, self.std)

    def forward(self, image: Tensor, *, deepest: LayerName = "layer4") -> FeatureMaps:
        maps: FeatureMaps = {}
        x = image
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.taps:
                maps[self.taps[index]] = x
            if self.taps.get(index) == deepest:
                break
        return maps


class Neck(nn.Module):
    """What F_θ and G_θ read: one backbone map (the paper), or several joined, or those through a 1×1 convolution.

    Args:
        channels: widths of the backbone's maps.
        layers: the maps to join; further ones are resized to the first.
        width: of the convolution; 0 leaves it out.
    """

    def __init__(self, channels: dict[str, int], layers: Sequence[LayerName], width: int = 0) -> None:
        super().__init__()
        self.layers = tuple(layers)
        joined = sum(channels[layer] for layer in layers)
        self.reduce = nn.Sequential(nn.Conv2d(joined, width, 1), nn.ReLU()) if width else None
        self.out_channels = width or joined
        self.deepest: LayerName = max(layers)
        """The deepest map that it reads."""

    def forward(self, maps: FeatureMaps) -> Tensor:
        """Return `[B, out_channels, h, w]` at the stride of the first layer."""
        first, *others = (maps[layer] for layer in self.layers)
        joined = torch.cat([first, *(resize(other, first.shape[-2:]) for other in others)], dim=1) if others else first
        return joined if self.reduce is None else self.reduce(joined)


def _conv_bn_relu6(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


def build_backbone(name: BackboneName) -> Backbone:
    return ResNet50() if name == "resnet50" else MobileNetV2()
