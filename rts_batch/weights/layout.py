"""Which tensors a network has: the layout of a configuration, the configuration behind a layout, what is at fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rts_batch.config import RTS50, ModelConfig, StaConfig
from rts_batch.errors import WeightsError
from rts_batch.model.decoder import LEVELS
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.weights.pickled import brief

Shapes = Mapping[str, tuple[int, ...]]
Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Key of each tensor to its shape and dtype, in the network's order."""

_STORED_AS: Final = {torch.float32: (torch.float32, torch.float16), torch.int64: (torch.int64,)}
"""What a tensor of the network may be stored as; values are cast when loaded."""


def network_layout(config: ModelConfig | StaConfig) -> Layout:
    """Return the layout of the network that `config` describes; raise `WeightsError` where it describes none."""
    try:
        return _layout(config)
    except Exception as error:  # sizes from a file can be anything
        raise WeightsError(f"no network can be built from the configuration: {str(error)[:200]}") from None


class Unfilled(TorchFunctionMode):
    """Build networks without drawing their first weights, which a state dict replaces.

    It saves a worker's start more than that: on the meta device a draw makes PyTorch load its compiler.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


_DRAWS: Final = (
    Tensor.normal_,
    Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)


@lru_cache(maxsize=8)
def _layout(config: ModelConfig | StaConfig) -> Layout:
    with torch.device("meta"), Unfilled():  # shapes only, no memory
        network = RTS(config) if isinstance(config, ModelConfig) else STA(config)
    return {key: (tuple(value.shape), value.dtype) for key, value in network.state_dict().items()}


def conform(config: ModelConfig | StaConfig, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return a state dict as `config`'s network takes it: on the CPU, float16 cast to float32, in the network's order.

    Raises `WeightsError` naming `where` and the first key at fault.
    """
    layout = network_layout(config)
    check_layout({key: (tuple(value.shape), value.dtype) for key, value in state.items()}, layout, where)
    check_values(state, where)
    return {key: state[key].detach().to("cpu", dtype).contiguous() for key, (_, dtype) in layout.items()}


def stored_dtype(state: Mapping[str, Tensor]) -> str:
    return "float16" if any(value.dtype == torch.float16 for value in state.values()) else "float32"


def check_layout(found: Layout, expected: Layout, where: str) -> None:
    """Raise `WeightsError` naming the first key that is missing, unknown, or of another shape or dtype."""
    both = [key for key in expected if key in found]
    refuse(
        where,
        [
            *(f"has no tensor {key!r}" for key in expected if key not in found),
            *(f"has a tensor {brief(key)} that the network does not know" for key in found if key not in expected),
            *(
                f"{key!r} has shape {list(found[key][0])}, expected {list(expected[key][0])}"
                for key in both
                if found[key][0] != expected[key][0]
            ),
            *(
                f"{key!r} has dtype {_name(found[key][1])}, expected {_name(expected[key][1])}"
                for key in both
                if found[key][1] not in _STORED_AS[expected[key][1]]
            ),
        ],
    )


def check_values(state: Mapping[str, Tensor], where: str) -> None:
    """Raise `WeightsError` naming the first tensor with NaN or infinite values or a variance below zero."""
    refuse(where, [f"{key!r} {fault}" for key, value in state.items() if (fault := _value_fault(key, value))])


def _value_fault(key: str, value: Tensor) -> str:
    if not value.is_floating_point():
        return ""
    if not bool(torch.isfinite(value).all()):
        return f"has {int((~torch.isfinite(value)).sum())} values that are NaN or infinite"
    return "is a variance below zero" if key.endswith("running_var") and bool((value < 0).any()) else ""


def refuse(where: str, faults: Iterable[str]) -> None:
    """Raise `WeightsError` with the first of some keys' faults, unless there are none."""
    first, *others = [*faults] or [""]
    if first:
        more = f" ({len(others)} more keys are at fault)" if others else ""
        raise WeightsError(f"{where}: {first}{more}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def infer_config(shapes: Shapes, options: Mapping[str, Any], where: str) -> ModelConfig | StaConfig:
    """Read the configuration of an official network off its tensors' shapes and constructor options (spec §11.4).

    Dimensions whose tensor is absent take the published value, so that `check_layout` then names what is missing.
    """
    if any(key.startswith("bbox_encoder.") for key in shapes):
        return _infer_sta(shapes, options, where)
    if any(key.startswith("classifier.") for key in shapes):
        return _infer_rts(shapes, options, where)
    first = next(iter(shapes), "")
    raise WeightsError(
        f"{where}: neither an RTS network (no tensor 'classifier.…') nor an STA network (no 'bbox_encoder.…'); "
        f"its first tensor is {brief(first)}"
    )


def _infer_rts(shapes: Shapes, options: Mapping[str, Any], where: str) -> ModelConfig:
    # The published loader sets clf_filter_size 4 and fusion_type 'add' whatever the file says (spec §14.2).
    _check_options(options, {"filter_size": 3, "filter_groups": 1, "clf_enc_input": "sc"}, where)
    dims = _Dimensions(shapes)
    config = dataclasses.replace(
        RTS50,
        feature_dim=dims.read("target_model.feature_extractor.0.weight", 0, RTS50.feature_dim),
        num_filters=dims.read("label_encoder.label_pred.0.weight", 0, RTS50.num_filters),
        label_encoder_dims=dims.label_encoder(),
        decoder_dims=dims.decoder(),
        hinge_threshold=_number(options, "clf_hinge_threshold", RTS50.hinge_threshold, where),
        activation_leak=_number(options, "clf_activation_leak", RTS50.activation_leak, where),
    )
    return config if config == RTS50 else dataclasses.replace(config, name="rts50-like")


def _infer_sta(shapes: Shapes, options: Mapping[str, Any], where: str) -> StaConfig:
    dims, published = _Dimensions(shapes), StaConfig()
    config = StaConfig(
        feature_dim=dims.read("target_model.feature_extractor.0.weight", 0, published.feature_dim),
        num_filters=dims.read("label_encoder.label_pred.0.weight", 0, published.num_filters),
        label_encoder_dims=(
            *dims.label_encoder(),
            dims.read("label_encoder.res3.conv1.weight", 0, published.label_encoder_dims[3]),
        ),
        decoder_dims=dims.decoder(),
        iterations=int(_number(options, "optim_iter", published.iterations, where)),
    )
    if config.iterations not in range(1, 101):
        raise WeightsError(f"{where}: constructor option 'optim_iter' is {config.iterations}; expected 1 to 100")
    stated = {"filter_size": 3, "num_filters": config.num_filters, "label_encoder_dims": config.label_encoder_dims}
    _check_options(options, {**stated, "use_bn_in_label_enc": False, "filter_groups": 1}, where)
    return config


class _Dimensions:
    """Reads sizes off tensors' shapes; `published` stands in where the tensor is absent or of another rank."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def read(self, key: str, axis: int, published: int) -> int:
        shape = self.shapes.get(key, ())
        return shape[axis] if len(shape) == 4 and shape[axis] else published

    def label_encoder(self) -> tuple[int, int, int]:
        first, second, third = RTS50.label_encoder_dims
        return (
            self.read("label_encoder.conv_block.0.weight", 0, first),
            self.read("label_encoder.res1.conv1.weight", 0, second),
            self.read("label_encoder.res2.conv1.weight", 0, third),
        )

    def decoder(self) -> tuple[int, int, int, int]:
        widths = zip(LEVELS, RTS50.decoder_dims, strict=True)
        first, second, third, fourth = (
            self.read(f"decoder.RRB1.{level}.conv1x1.weight", 0, width) for level, width in widths
        )
        return first, second, third, fourth


def _check_options(options: Mapping[str, Any], supported: Mapping[str, Any], where: str) -> None:
    for name, value in supported.items():
        if name in options and options[name] != value:
            raise WeightsError(
                f"{where}: constructor option {name!r} is {brief(options[name])}; only {value!r} is supported"
            )


def _number(options: Mapping[str, Any], name: str, published: float, where: str) -> float:
    value = options.get(name, published)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 < value < 1e6:
        raise WeightsError(f"{where}: constructor option {name!r} is {brief(value)}; expected a number")
    return value
