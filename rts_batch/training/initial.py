"""Initial weights: Mask R-CNN's backbone from Detectron, and whole networks from LWL, RTS or a run of ours.

Pickles are read as data, nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from rts_batch.errors import WeightsError
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.checkpoints import TrainingState
from rts_batch.training.detectron import is_plain_pickle, read_blobs
from rts_batch.weights.layout import refuse
from rts_batch.weights.official import open_checkpoint
from rts_batch.weights.publications import NAMES
from rts_batch.weights.registry import load_sta, load_weights

LOCALISATION: Final = ("clf_encoder.", "classifier.")
"""What an LWL checkpoint does not have (spec rts-network §13)."""

_RESNET_KEY = re.compile(
    r"(?:^|\.)(?:stem\.)?((?:conv1|bn1|layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01]))\.\w+)$"
)


def load_backbone(model: RTS | STA, path: str | Path) -> None:
    """Put a Mask R-CNN's ResNet-50, or the backbone of a tracker of ours, into the backbone.

    Args:
        model: of the same backbone.
        path: Detectron's pickle of blobs (`e2e_mask_rcnn_R_50_FPN_1x`), or a state dict of PyTorch with the usual
            names under any prefix (`backbone.body.layer1.0.conv1.weight`, …), heads and pyramid are ignored; or a
            tracker's weights file of ours or its name, or `state-….pt` or `best.pt` of its training.

    Raises:
        WeightsError: the file cannot be read, or lacks a part of the backbone.
    """
    if str(path) in NAMES or str(path).endswith(".safetensors"):
        found = _backbone_of(load_weights(path).state)
    else:
        found = read_blobs(Path(path)) if is_plain_pickle(Path(path)) else _from_state_dict(Path(path))
    wanted = model.feature_extractor.state_dict()
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):
            found[key] = value
        elif key.endswith("running_mean"):
            found.setdefault(key, torch.zeros_like(value))
        elif key.endswith("running_var"):
            # Detectron's affine layers are s·x + b; ε is taken out, so that BatchNorm is exactly that.
            found.setdefault(key, torch.full_like(value, 1 - nn.BatchNorm2d(1).eps))
    _fill(model.feature_extractor, {key: found[key] for key in wanted if key in found}, path, optional=())


def load_network(model: RTS | STA, path: str | Path) -> None:
    """Put a whole network's weights into `model`; an LWL checkpoint leaves the localisation branch as it is.

    Args:
        model: of the same shapes.
        path: a checkpoint of the published trainer (LWL, RTS, STA), a weights file of ours or its name, or
            `state-….pt` or `best.pt` of a training run.

    Raises:
        WeightsError: the file cannot be read or does not fit.
    """
    _fill(model, _network_state(model, path), path, optional=LOCALISATION if isinstance(model, RTS) else ())


def _network_state(model: RTS | STA, path: str | Path) -> dict[str, Tensor]:
    if not Path(path).exists() or str(path).endswith(".safetensors"):
        weights = load_weights(path) if isinstance(model, RTS) else load_sta(path)[0]
        return dict(weights.state)
    try:
        with open_checkpoint(path) as checkpoint:
            return {key: checkpoint.read(key) for key in checkpoint.net}
    except WeightsError as error:
        ours = _torch_load(Path(path), otherwise=error)
    return _trained(ours)


def _trained(content: dict[str, Any]) -> dict[str, Any]:
    """The weights of a training's state; anything else as it is."""
    return TrainingState(**content).weights() if {"iteration", "model"} <= set(content) else content


def _backbone_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a network of ours; empty in another one's state."""
    own = "feature_extractor."
    return {key.removeprefix(own): value for key, value in state.items() if str(key).startswith(own)}


def _from_state_dict(path: Path) -> dict[str, Tensor]:
    state: Any = _trained(_torch_load(path, otherwise=None))
    if backbone := _backbone_of(state):
        return backbone
    while not any(isinstance(value, Tensor) for value in state.values()):
        inner = [
            value for key, value in state.items() if key in ("model", "state_dict", "net") and isinstance(value, dict)
        ]
        if not inner:
            raise WeightsError(f"{path}: holds no state dict (it has {', '.join(map(str, list(state)[:5]))})")
        state = inner[0]
    matches = {key: match for key in state if (match := _RESNET_KEY.search(str(key)))}
    return {match[1]: state[key].float() for key, match in matches.items()}


def _torch_load(path: Path, *, otherwise: WeightsError | None) -> dict[str, Any]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # PyTorch's loader raises many kinds
        raise otherwise or WeightsError(f"{path}: no file of weights that can be loaded safely ({error})") from None
    if not isinstance(value, dict) or not value:
        raise WeightsError(f"{path}: holds a {type(value).__name__}, expected a dictionary of tensors")
    return value


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, *, optional: tuple[str, ...]) -> None:
    """Load `state`; whole parts that begin with `optional` may be absent."""
    wanted = module.state_dict()
    absent = {prefix for prefix in optional if not any(key.startswith(prefix) for key in state)}
    faults = [
        *(
            f"has no {key!r}"
            for key in wanted
            if key not in state and not key.startswith(tuple(absent))
        ),
        *(f"has an unknown {key!r}" for key in state if key not in wanted),
        *(
            f"{key!r} has shape {list(value.shape)}, expected {list(wanted[key].shape)}"
            for key, value in state.items()
            if key in wanted and value.shape != wanted[key].shape
        ),
        *(f"{key!r} holds values that are not finite" for key, value in state.items() if not value.isfinite().all()),
    ]  # fmt: skip
    refuse(str(path), faults)
    module.load_state_dict({**wanted, **state})
