"""Networks made ready for inference: the same function up to rounding, in less time.

Measured on a CPU (`benchmarks/cpu_tracker.py`), where the backbone's BatchNorm and memory layout and the decoder's
bicubic upsampling cost most beside the convolutions themselves.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rts_batch.model.decoder import Decoder, Projection
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.model.weights import Weights, build_model, build_sta

Network = TypeVar("Network", bound=nn.Module)


def fast(network: Network) -> Network:
    """Returns a copy of a network in eval mode that gives the same outputs up to rounding, faster.

    Identical to the original, but every BatchNorm is folded into the convolution before it, weights lie channels-last,
    which the convolutions' outputs then follow, and decoders upsample by matrix products. Keys differ, so save the
    original.
    """
    ready = copy.deepcopy(network).requires_grad_(False)
    fold_batchnorm(ready)
    for module in list(ready.modules()):
        if isinstance(module, Decoder) and module.project.upsampling == "bicubic":
            module.project = FastProjection(module.project)
    return ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fast_networks(weights: Weights, device: str | torch.device) -> tuple[RTS, STA | None]:
    """Builds the network of `weights`, and its box-to-mask network if it has one, ready for inference on `device`."""
    sta = build_sta(weights, device)
    return fast(build_model(weights, device)), None if sta is None else fast(sta)


def fold_batchnorm(network: nn.Module) -> None:
    """Folds each BatchNorm of stored statistics into the convolution before it, in place.

    Pairs are children that follow one another in a module, as everywhere in this package.
    """
    for module in list(network.modules()):
        for (name, layer), (next_name, following) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, following))
                setattr(module, next_name, nn.Identity())


class FastProjection(Projection):
    """The decoder's bicubic projection.

    Identical to the parent, but its last convolution sums over channels before the second upsampling, which leaves one
    map for each of the nine taps to upsample instead of one for each channel; upsampling acts on every channel alike,
    so the two commute. Upsampling is two matrix products.
    """

    def __init__(self, original: Projection) -> None:
        nn.Module.__init__(self)
        self.upsampling = original.upsampling
        self.conv1 = original.conv1
        self.conv2 = original.conv2

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = torch.relu(self.conv1(upsample(x, (2 * x.shape[-2], 2 * x.shape[-1]))))
        # `fold` lets tap t add to the output t places further, so the taps are laid out in reverse.
        taps = self.conv2.weight[0].flip(-2, -1).flatten(1).T
        columns = upsample((taps @ x.flatten(-2)).unflatten(-1, x.shape[-2:]), size)
        assert self.conv2.bias is not None
        return functional.fold(columns.flatten(-2), size, 3, padding=1) + self.conv2.bias.view(-1, 1, 1)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes `[B, C, H, W]` bicubically to `size`, align_corners false; the input itself where it fits."""
    if x.shape[-2:] == torch.Size(size):
        return x
    rows, columns = (_bicubic(old, new, x.device) for old, new in zip(x.shape[-2:], size, strict=True))
    return rows @ (x @ columns.T)


@lru_cache(maxsize=32)
def _bicubic(old: int, new: int, device: torch.device) -> Tensor:
    """The resize of one axis as a matrix, `[new, old] float32`."""
    identity = torch.eye(old, device=device)[None, None]
    return functional.interpolate(identity, (new, old), mode="bicubic", align_corners=False)[0, 0]
