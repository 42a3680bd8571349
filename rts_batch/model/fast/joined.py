"""Parts of the network whose small steps are joined into Triton kernels on CUDA, where these run.

Identical to their parents up to rounding; elsewhere they do what their parents do.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from rts_batch.model.backbones import MobileNetV2, ResNet50
from rts_batch.model.decoder import ChannelAttention, TargetScoreEncoder
from rts_batch.model.fast.launchable import kernels_for
from rts_batch.model.layers import InstanceL2Norm


class JoinedResNet50(ResNet50):
    """Crops become what the first convolution reads in one kernel, type and channels included."""

    def normalise(self, crop: Tensor) -> Tensor:
        kernels = kernels_for("image", crop.device)
        if kernels is None:
            return super().normalise(crop)
        return kernels.normalise(crop, cast(Tensor, self.mean), None, self.conv1.weight, flipped=True)


class JoinedMobileNetV2(MobileNetV2):
    """Crops become what the first convolution reads in one kernel."""

    def __init__(self, backbone: MobileNetV2, features: nn.ModuleList) -> None:
        nn.Module.__init__(self)
        self.features = features
        self.register_buffer("mean", cast(Tensor, backbone.mean), persistent=False)
        self.register_buffer("std", cast(Tensor, backbone.std), persistent=False)

    def normalise(self, crop: Tensor) -> Tensor:
        kernels = kernels_for("image", crop.device)
        if kernels is None:
            return super().normalise(crop)
        weight = cast(nn.Sequential, self.features[0])[0].weight
        return kernels.normalise(crop, cast(Tensor, self.mean), cast(Tensor, self.std), weight)


class JoinedNorm(InstanceL2Norm):
    """Also casts to float32, as the norm is a sum over the whole map."""

    def __init__(self, norm: InstanceL2Norm) -> None:
        super().__init__(norm.scale)

    def forward(self, x: Tensor) -> Tensor:
        kernels = kernels_for("norm", x.device)
        return super().forward(x.float()) if kernels is None else kernels.normalise(x, self.scale)


class JoinedAttention(ChannelAttention):
    """One kernel weights the shallow map, resizes the deeper one and adds it."""

    def __init__(self, block: ChannelAttention, convreluconv: nn.Sequential) -> None:
        nn.Module.__init__(self)
        self.deepest = block.deepest
        self.convreluconv = convreluconv

    def mixed(self, shallow: Tensor, attention: Tensor, deeper: Tensor) -> Tensor:
        kernels = kernels_for("mixing", shallow.device)
        if kernels is None:
            return super().mixed(shallow, attention, deeper)
        return kernels.attend(shallow, attention, deeper)


class JoinedScoreEncoder(TargetScoreEncoder):
    """One kernel resizes the mask encoding and lays it beside the reduced map."""

    def __init__(self, reduce: nn.Sequential, transform: nn.Sequential) -> None:
        nn.Module.__init__(self)
        self.reduce, self.transform = reduce, transform

    def joined(self, reduced: Tensor, scores: Tensor) -> Tensor:
        kernels = kernels_for("mixing", reduced.device)
        if kernels is None:
            return super().joined(reduced, scores)
        return kernels.join(reduced, scores)
