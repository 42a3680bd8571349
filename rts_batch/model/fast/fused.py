"""Convolutions with what follows them on CUDA, in one kernel where cuDNN has one."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rts_batch.model.fast.launchable import kernels_for

log = logging.getLogger(__name__)

NO_KERNEL = ("NOT_SUPPORTED", "unable to find an engine", "Could not run 'aten::cudnn", "not linked with cuDNN")
"""How PyTorch says that cuDNN cannot do a convolution in one kernel; a lack of memory or a fault says otherwise."""


def _lacks_kernel(error: RuntimeError) -> bool:
    return not isinstance(error, torch.OutOfMemoryError) and any(text in str(error) for text in NO_KERNEL)


class FusedConv(nn.Module):
    """A convolution, then the sum with another map if one is given, then an activation if one is named.

    Identical to doing one after the other up to rounding. Before ReLU, and in half precision, cuDNN does all of it in
    one kernel; where it has none for some shape, and everywhere else, what follows is a Triton kernel
    (`kernels/epilogue.py`), or the steps follow one another in place.
    """

    def __init__(self, conv: nn.Module, activation: type[nn.Module] | None = None) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        self.stride, self.padding, self.dilation = (
            list(cast(tuple[int, int], value)) for value in (conv.stride, conv.padding, conv.dilation)
        )
        self.groups = conv.groups
        self.activation = activation
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach()
        channels = self.weight.shape[1]
        self.padded = (-channels) % 8 if self.groups == 1 and channels > 1 and self.weight.dtype != torch.float32 else 0
        """Channels of zeros that let the matrix units take an image, which has three."""
        if self.padded:
            padded = functional.pad(self.weight, (0, 0, 0, 0, 0, self.padded))
            self.weight = padded.contiguous(memory_format=torch.channels_last)
        self.matrix: Tensor | None = None
        """`[C, C']` of a 1×1 convolution that is a matrix product, which it is on maps that lie channels-last.

        It adds the bias without a further launch. Before an activation in half precision cuDNN may do that, too.
        """
        pointwise = tuple(conv.kernel_size) == (1, 1) and tuple(conv.stride) == (1, 1) and self.groups == 1
        if pointwise and (self.weight.dtype == torch.float32 or (activation is None and not self.padded)):
            self.matrix = self.weight[:, :, 0, 0].t()
        self.fuses = activation is nn.ReLU and self.weight.dtype != torch.float32 and self.bias is not None

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return `[B, C', H', W']` from `[B, C, H, W]` and, if given, a map of the output's shape to add."""
        if self.matrix is not None:
            return self._multiply(x, self.matrix, added)
        if self.padded and x.shape[1] < self.weight.shape[1]:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.padded))
        if self.fuses:
            geometry = (self.stride, self.padding, self.dilation, self.groups)
            try:
                if added is None:
                    return torch.cudnn_convolution_relu(x, self.weight, self.bias, *geometry)
                return torch.cudnn_convolution_add_relu(x, self.weight, added, 1.0, self.bias, *geometry)
            except RuntimeError as error:
                if not _lacks_kernel(error):
                    raise
                log.warning("no fused kernel for a convolution of %s by %s: %s", x.shape, self.weight.shape, error)
                self.fuses = False
        kernels = self._kernels(x, added)
        bias = None if kernels is not None else self.bias
        y = functional.conv2d(x, self.weight, bias, self.stride, self.padding, self.dilation, self.groups)
        if kernels is not None:
            return kernels.finish(y, self.bias, added, self.activation)
        if added is not None:
            y = y.add_(added)
        return self._activate(y)

    def add_bias_of(self, other: FusedConv) -> None:
        """Take over the bias of a convolution whose output is the map to add, which then needs no launch for it."""
        if self.bias is not None and other.bias is not None:
            self.bias, other.bias = (self.bias.float() + other.bias.float()).to(self.bias.dtype), None

    def _kernels(self, x: Tensor, added: Tensor | None) -> ModuleType | None:
        """Triton's for what follows, where that is more than the bias."""
        return None if added is None and self.activation is None else kernels_for("epilogue", x.device)

    def _multiply(self, x: Tensor, matrix: Tensor, added: Tensor | None) -> Tensor:
        count, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        kernels = self._kernels(x, added)
        if kernels is not None and added is not None and self.activation is not None:
            y = (pixels @ matrix).view(count, height, width, -1).permute(0, 3, 1, 2)
            return kernels.finish(y, self.bias, added, self.activation)
        if added is None and self.bias is not None and self.activation is nn.ReLU:
            y = torch._addmm_activation(self.bias, pixels, matrix)
        else:
            y = pixels @ matrix if self.bias is None else torch.addmm(self.bias, pixels, matrix)
            if added is not None:
                y = y.add_(added.permute(0, 2, 3, 1).reshape(len(y), -1))
            y = self._activate(y)
        return y.view(count, height, width, -1).permute(0, 3, 1, 2)

    def _activate(self, y: Tensor) -> Tensor:
        if self.activation is nn.ReLU:
            return y.relu_()
        if self.activation is nn.ReLU6:
            return y.clamp_(0, 6)
        return y
