"""Convolutions with what follows them: the same function in fewer passes over memory.

A plain convolution leaves sum and activation to further passes over its output, and on the CPU lays its weights out
anew on every call. Here sum and activation happen while the output is written: on the CPU through the operators that
PyTorch's own compiler uses (`torch.ops.mkldnn._convolution_pointwise`) with the weights in oneDNN's own layout, on CUDA
through cuDNN's fused kernels (`fused.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from rts_batch.model.backbones import Bottleneck, InvertedResidual, MobileNetV2, ResNet50
from rts_batch.model.decoder import ChannelAttention, ResidualRefinement, TargetScoreEncoder
from rts_batch.model.fast.fused import FusedConv
from rts_batch.model.fast.joined import (
    JoinedAttention,
    JoinedMobileNetV2,
    JoinedNorm,
    JoinedResNet50,
    JoinedScoreEncoder,
)
from rts_batch.model.label_encoder import EncoderBlock
from rts_batch.model.layers import InstanceL2Norm

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""oneDNN's name of each activation, and its bounds."""


class PackedConv(nn.Module):
    """A convolution, then the sum with another map if one is given, then an activation if one is named.

    Identical to doing one after the other. For the CPU only; inputs and outputs lie channels-last. Samples of a batch
    are convolved one by one: nothing is gained by batches here, and so no sample's result depends on its companions.
    """

    def __init__(self, conv: nn.Module, activation: type[nn.Module] | None = None) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        padding, stride, dilation = (
            list(cast(tuple[int, int], value)) for value in (conv.padding, conv.stride, conv.dilation)
        )
        self.geometry = (padding, stride, dilation, conv.groups)
        self.activation: str | None = None
        self.bounds: list[float] = []
        if activation is not None:
            self.activation, self.bounds = ACTIVATIONS[activation]
        self.widens = conv.weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        """Whether oneDNN refuses bfloat16 on this processor, as without AVX-512; it adds up in float32 anyway."""
        dtype = torch.float32 if self.widens else conv.weight.dtype
        # Neither a parameter nor a buffer: nothing but oneDNN on this kind of processor can read its layout.
        self.weight = conv.weight.detach().to(dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.size: tuple[int, ...] = ()
        """The input's height and width that the weight is laid out for."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return `[B, C', H', W']` from `[B, C, H, W]` and, if given, a map of the output's shape to add.

        After a sum oneDNN knows ReLU as the only activation.
        """
        if self.widens and x.dtype == torch.bfloat16:
            return self(x.float(), None if added is None else added.float()).bfloat16()
        if len(x) != 1:
            others = [None] * len(x) if added is None else added.split(1)
            return torch.cat([self(one, other) for one, other in zip(x.split(1), others, strict=True)])
        if self.size != x.shape[-2:]:
            self._pack(x)
        convolve = torch.ops.mkldnn._convolution_pointwise
        operands = (self.weight, self.bias, *self.geometry)
        x = channels_last(x)
        if added is None:
            return convolve(x, *operands, self.activation or "none", self.bounds, "")
        return convolve.binary(x, channels_last(added), *operands, "add", 1.0, self.activation, self.bounds, "")

    def _pack(self, x: Tensor) -> None:
        """Lay the weight out as oneDNN wants it for this size of input; in any other layout each call would do so."""
        plain = self.weight.to_dense() if self.size else self.weight
        weight = plain.contiguous(memory_format=torch.channels_last).to_mkldnn()
        reorder = torch._C._nn.mkldnn_reorder_conv2d_weight
        self.weight = reorder(weight, *self.geometry, list(x.shape))  # type: ignore[call-arg]
        self.size = tuple(x.shape[-2:])


def packed(conv: nn.Module, activation: type[nn.Module] | None = None) -> nn.Module:
    """Return a convolution with what follows it for the device that its weights are on."""
    # PyTorch for macOS comes without oneDNN.
    if next(conv.parameters()).is_cuda or not torch.backends.mkldnn.is_available():
        return FusedConv(conv, activation)
    return PackedConv(conv, activation)


def channels_last(x: Tensor) -> Tensor:
    """Return `[B, C, H, W]` channels-last, with strides that say so even where C is 1; `x` itself where it is."""
    _, channels, height, width = x.shape
    strides = (channels * height * width, 1, channels * width, channels)
    if x.stride() == strides:
        return x
    return x.contiguous(memory_format=torch.channels_last).as_strided(x.shape, strides)


def pack(network: nn.Module) -> None:
    """Replace the convolutions of a network by packed ones, in place. BatchNorm has to have been folded before."""
    for name, child in list(network.named_children()):
        if type(child) in BLOCKS:
            setattr(network, name, BLOCKS[type(child)](child))
        elif isinstance(child, nn.Sequential):
            setattr(network, name, _pack_sequence(child))
        elif isinstance(child, nn.Conv2d):
            setattr(network, name, packed(child))
        else:
            pack(child)


def _pack_sequence(sequence: nn.Sequential) -> nn.Sequential:
    """Activations go into the convolution before them; what folding left of a BatchNorm goes."""
    layers: list[nn.Module] = []
    for child in sequence:
        if isinstance(child, nn.Identity):
            continue
        if type(child) in ACTIVATIONS and layers and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = packed(layers[-1], type(child))
        else:
            layers.append(child)
    result = sequence if len(layers) == len(sequence) else type(sequence).__new__(type(sequence))
    if result is not sequence:
        nn.Sequential.__init__(result, *layers)
    pack(result)
    return result


class PackedResNet50(JoinedResNet50):
    """Identical to the parent; the first activation happens inside the first convolution."""

    def __init__(self, backbone: ResNet50) -> None:
        stages = {f"layer{n}": _pack_sequence(getattr(backbone, f"layer{n}")) for n in range(1, 5)}
        _adopt(self, conv1=packed(backbone.conv1, nn.ReLU), **stages)
        self.register_buffer("mean", cast(Tensor, backbone.mean), persistent=False)

    def stem(self, image: Tensor) -> Tensor:
        return self.conv1(image)


class PackedBottleneck(Bottleneck):
    """Identical to the parent; activations and the sum happen inside the convolutions."""

    def __init__(self, block: Bottleneck) -> None:
        convs = {name: packed(getattr(block, name), nn.ReLU) for name in ("conv1", "conv2", "conv3")}
        downsample = None if block.downsample is None else packed(block.downsample[0])
        _add_once(convs["conv3"], downsample)
        _adopt(self, **convs, downsample=downsample)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)), x if self.downsample is None else self.downsample(x))


class PackedInvertedResidual(InvertedResidual):
    """Identical to the parent; the sum happens inside the last convolution."""

    def __init__(self, block: InvertedResidual) -> None:
        _adopt(self, conv=_pack_sequence(block.conv))
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        *layers, last = self.conv
        y = x
        for layer in layers:
            y = layer(y)
        return last(y, x) if self.residual else last(y)


class PackedEncoderBlock(EncoderBlock):
    """Identical to the parent; activations and the sum happen inside the convolutions."""

    def __init__(self, block: EncoderBlock) -> None:
        convs = {name: packed(getattr(block, name), nn.ReLU) for name in ("conv1", "conv2")}
        downsample = packed(block.downsample)
        _add_once(convs["conv2"], downsample)
        _adopt(self, **convs, downsample=downsample)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x), self.downsample(x))


class PackedRefinement(ResidualRefinement):
    """Identical to the parent; activations and the sum happen inside the convolutions."""

    def __init__(self, block: ResidualRefinement) -> None:
        first, last = (packed(layer, nn.ReLU) for layer in block.bblock if isinstance(layer, nn.Conv2d))
        _adopt(self, conv1x1=packed(block.conv1x1), bblock=nn.Sequential(first, last))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1(x)
        first, last = self.bblock
        return last(first(x), x)


def _joined_mobilenet(backbone: MobileNetV2) -> nn.Module:
    pack(backbone.features)
    return JoinedMobileNetV2(backbone, backbone.features)


def _joined_attention(block: ChannelAttention) -> nn.Module:
    return JoinedAttention(block, _pack_sequence(block.convreluconv))


def _joined_encoder(block: TargetScoreEncoder) -> nn.Module:
    return JoinedScoreEncoder(_pack_sequence(block.reduce), _pack_sequence(block.transform))


def _add_once(last: nn.Module, beside: nn.Module | None) -> None:
    """On CUDA, where a bias that no activation follows is a launch, have the last convolution add both biases."""
    if isinstance(last, FusedConv) and isinstance(beside, FusedConv):
        last.add_bias_of(beside)


def _adopt(module: nn.Module, **parts: nn.Module | None) -> None:
    """Initialise a module with ready parts in place of those that its class would build."""
    nn.Module.__init__(module)
    for name, part in parts.items():
        setattr(module, name, part)


BLOCKS: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = {
    ResNet50: cast(Callable[[nn.Module], nn.Module], PackedResNet50),
    Bottleneck: cast(Callable[[nn.Module], nn.Module], PackedBottleneck),
    InvertedResidual: cast(Callable[[nn.Module], nn.Module], PackedInvertedResidual),
    EncoderBlock: cast(Callable[[nn.Module], nn.Module], PackedEncoderBlock),
    ResidualRefinement: cast(Callable[[nn.Module], nn.Module], PackedRefinement),
    MobileNetV2: cast(Callable[[nn.Module], nn.Module], _joined_mobilenet),
    ChannelAttention: cast(Callable[[nn.Module], nn.Module], _joined_attention),
    TargetScoreEncoder: cast(Callable[[nn.Module], nn.Module], _joined_encoder),
    InstanceL2Norm: cast(Callable[[nn.Module], nn.Module], JoinedNorm),
}
