"""Networks made ready for inference: the same function up to rounding, in less time.

Measured on a CPU (`benchmarks/cpu_tracker.py`), where the backbone's BatchNorm and memory layout and the decoder's
bicubic upsampling cost most beside the convolutions themselves.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rts_batch.config import Profile
from rts_batch.model.backbones import Backbone, MobileNetV2
from rts_batch.model.decoder import Decoder, Projection
from rts_batch.model.fast import compiled
from rts_batch.model.fast.compiled import Engine
from rts_batch.model.fast.compiled_network import CompiledRTS
from rts_batch.model.fast.launchable import kernels_for
from rts_batch.model.fast.packed import pack
from rts_batch.model.rts import RTS

Network = TypeVar("Network", bound=nn.Module)


def fast(network: Network, *, profile: Profile = "exact", engine: Engine | None = None) -> Network:
    """Return a copy of a network in eval mode that gives the same outputs up to rounding, faster.

    Identical to the original, but every BatchNorm is folded into the convolution before it, weights lie channels-last,
    which the convolutions' outputs then follow, decoders upsample by matrix products, and convolutions are joined with
    what follows them (`packed.py`). Keys differ, so save the original.

    The profile `bf16` runs backbone, F_θ's and G_θ's convolutions and the decoder but for its projection in bfloat16,
    weights included; features, logits and all else are float32. `tf32` is float32 here, because it is a setting of the
    process (`set_precision`).
    """
    ready = copy.deepcopy(network).requires_grad_(False)
    fold_batchnorm(ready)
    for module in list(ready.modules()):
        if isinstance(module, Decoder) and module.project.upsampling == "bicubic":
            module.project = FastProjection(module.project)
    if isinstance(ready, RTS) and not next(ready.parameters()).is_cuda and compiled.is_available():
        return cast(Network, CompiledRTS(ready, engine or Engine(), precision="bf16" if profile == "bf16" else "f32"))
    if profile == "bf16":
        _halve(ready)
    pack(ready)
    if profile == "bf16":
        _cast_between(ready)
    return ready


def multiplies_bfloat16(device: str | torch.device) -> bool:
    """Whether this machine's device multiplies bfloat16 in hardware; elsewhere it takes longer than float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_precision(device: str | torch.device, profile: Profile) -> None:
    """Set for the whole process whether CUDA may run float32 products as TensorFloat-32, and cuDNN's autotuning.

    With `tf32` and `bf16` they may, those of the learners among them (`benchmarks/tf32.py` says what that does to
    masks). `exact` does without, and without autotuning, which may choose another algorithm in another run.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = profile != "exact"
        torch.backends.cudnn.allow_tf32 = profile != "exact"
        torch.backends.cudnn.benchmark = profile != "exact"


def _halve(network: nn.Module) -> None:
    """Put the convolutions of backbone, features and decoder into bfloat16, in place; buffers stay as they are.

    The decoder's projection stays float32: it draws the mask's outline.
    """
    assert isinstance(network, RTS)
    decoder = (module for name, module in network.decoder.named_children() if name != "project")
    branches = (network.target_model.feature_extractor[0], network.classifier.feature_extractor[0])
    for module in (*_rounded(network.feature_extractor), network.neck, *decoder, *branches):
        for parameter in module.parameters():
            parameter.data = parameter.data.bfloat16()


def _cast_between(network: nn.Module) -> None:
    """Have the parts of a network cast what they are given; to be called once its modules are the final ones."""
    assert isinstance(network, RTS)
    for module in (_rounded(network.feature_extractor)[0], network.decoder):
        module.register_forward_pre_hook(_to_bfloat16)
    network.decoder.project.register_forward_pre_hook(_to_float32)


def _rounded(backbone: Backbone) -> list[nn.Module]:
    """The part of a backbone that bfloat16 is enough for, in order.

    MobileNetV2's first layers, to stride 8, are thin and little of its time, and nearly all of what rounding changes.
    """
    return list(backbone.features)[7:] if isinstance(backbone, MobileNetV2) else [backbone]


def _to_bfloat16(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Crops of a backbone, a map of one of its layers, or the mask encodings of a decoder and the maps beside them."""
    first, *others = inputs
    maps = [{name: value.bfloat16() for name, value in other.items()} for other in others if isinstance(other, dict)]
    return (first.bfloat16(), *maps, *others[len(maps) :])


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].float(), *inputs[1:])


def fold_batchnorm(network: nn.Module) -> None:
    """Fold each BatchNorm of stored statistics into the convolution before it, in place.

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
    so the two commute. A tap's place, too, is a shift of rows and one of columns, so that upsampling, placing and
    summing the nine maps are two matrix products, or a kernel of a GPU's (`kernels/projection.py`).
    """

    def __init__(self, original: Projection) -> None:
        nn.Module.__init__(self)
        self.upsampling = original.upsampling
        self.first = nn.Sequential(original.conv1, nn.ReLU())
        conv = original.conv2
        assert conv.bias is not None
        self.register_buffer("taps", conv.weight.detach()[0].flatten(1).clone())
        self.register_buffer("bias", conv.bias.detach().clone())

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        kernels = kernels_for("projection", x.device)
        if kernels is not None:
            return self.by_kernels(kernels, x, size)
        x = self.first(upsample(x, (2 * x.shape[-2], 2 * x.shape[-1])))
        rows, columns = (
            _shifted(_bicubic(old, new, x.device, x.dtype)) for old, new in zip(x.shape[-2:], size, strict=True)
        )
        height, width = x.shape[-2:]
        # [B, H, W, 32] → [B, 3, H, 3·W]: for each tap one map, those of a row of taps side by side.
        taps = (x.permute(0, 2, 3, 1) @ cast(Tensor, self.taps).to(x.dtype)).view(-1, height, width, 3, 3)
        wide = taps.permute(0, 3, 1, 4, 2).reshape(-1, 3 * height, 3 * width) @ columns.T
        return (rows @ wide)[:, None] + cast(Tensor, self.bias)

    def by_kernels(self, kernels: ModuleType, x: Tensor, size: tuple[int, int]) -> Tensor:
        """`forward` by the kernels given."""
        x = self.first(kernels.upsample(x, (2 * x.shape[-2], 2 * x.shape[-1])))
        count, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        planes = cast(Tensor, self.taps).T @ pixels.T
        return kernels.draw(planes.view(-1, count, height, width), cast(Tensor, self.bias), size)[:, None]


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[B, C, H, W]` bicubically to `size`, align_corners false; the input itself where it fits.

    Works on channels-last maps as they lie, and returns such.
    """
    if x.shape[-2:] == torch.Size(size):
        return x
    rows, columns = (_bicubic(old, new, x.device, x.dtype) for old, new in zip(x.shape[-2:], size, strict=True))
    wide = columns @ x.permute(0, 2, 3, 1)
    tall = rows @ wide.flatten(-2)
    return tall.unflatten(-1, wide.shape[-2:]).permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
def _bicubic(old: int, new: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The resize of one axis as a matrix, `[new, old]`."""
    identity = torch.eye(old, device=device)[None, None]
    return functional.interpolate(identity, (new, old), mode="bicubic", align_corners=False)[0, 0].to(dtype)


def _shifted(matrix: Tensor) -> Tensor:
    """`[n, m]` → `[n, 3·m]`: the matrix moved down, in place and moved up by one row, for the taps −1, 0 and 1."""
    before, after = torch.zeros_like(matrix), torch.zeros_like(matrix)
    before[1:], after[:-1] = matrix[:-1], matrix[1:]
    return torch.cat([before, matrix, after], dim=1)
