"""Weights by name or path, and the networks that they fill."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from rts_batch.config import MODELS, TRACKER_RTS50, QualityMap, StaConfig
from rts_batch.errors import WeightsError
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.weights.file import StaWeights, Weights, is_weights_file, load_weights_file, make_weights, save_weights
from rts_batch.weights.layout import Unfilled, network_layout
from rts_batch.weights.official import OfficialNetwork, load_checkpoint
from rts_batch.weights.publications import BUILT_IN, DATA, NAMES, PUBLISHED, cached
from rts_batch.weights.untrained import untrained_state

__all__ = [
    "StaWeights",
    "Weights",
    "build_model",
    "build_sta",
    "default_quality",
    "describe",
    "import_weights",
    "load_sta",
    "load_weights",
    "make_weights",
    "save_weights",
]

_OFFICIAL_LICENCE: Final = "not stated in the file; its authors' terms apply"


def load_weights(path_or_name: str | Path) -> Weights:
    """Load a name (`NAMES`), a weights file of ours or an official RTS checkpoint.

    Raises `WeightsError` naming the file and the first key or byte at fault, or the names there are.
    """
    loaded = _load_any(path_or_name)
    if isinstance(loaded, Weights):
        return loaded
    raise WeightsError(
        f"{path_or_name}: an STA network, which makes a mask of a box; name a tracker's weights, and add this to them "
        f"by `rts-batch weights import rts50.pth --sta {Path(path_or_name).name} -o rts50.safetensors`"
    )


def default_quality() -> QualityMap | None:
    """The map for weights that bring none: that of this release's own small network, which says so in its `origin`."""
    path = DATA / "default-quality.json"
    return QualityMap.from_dict(json.loads(path.read_bytes())) if path.is_file() else None


def load_sta(path: str | Path) -> tuple[StaWeights, str]:
    """Load the box-to-mask network of an official STA checkpoint or of a weights file; return its provenance too."""
    loaded = _load_any(path)
    if isinstance(loaded, OfficialNetwork):
        return _as_sta(loaded), loaded.origin
    if loaded.sta is None:
        raise WeightsError(f"{path}: holds a tracker and no STA network; expected a file such as sta.pth.tar")
    return loaded.sta, loaded.metadata["provenance"]


def import_weights(source: str | Path, *, sta: str | Path | None = None, licence: str | None = None) -> Weights:
    """Load a tracker's weights and, from `sta`, the network that makes masks of boxes; ready for `save_weights`."""
    weights = load_weights(source)
    provenance, licence = weights.metadata["provenance"], licence or weights.metadata["licence"]
    network = weights.sta
    if sta is not None:
        network, origin = load_sta(sta)
        provenance = f"{provenance}; box to mask: {origin}"
    metadata = {**weights.metadata, "provenance": provenance, "licence": licence}
    return dataclasses.replace(weights, sta=network, metadata=metadata)


def build_model(weights: Weights, device: str | torch.device = "cpu") -> RTS:
    """Return the tracker's network with `weights`: eval mode, no gradients."""
    with Unfilled():
        model = RTS(weights.config)
    model.load_state_dict(weights.state)
    return model.requires_grad_(False).to(device)


def build_sta(weights: Weights, device: str | torch.device = "cpu") -> STA | None:
    """Return the box-to-mask network: eval mode, no gradients; None where the weights have none."""
    if weights.sta is None:
        return None
    with Unfilled():
        sta = STA(weights.sta.config)
    sta.load_state_dict(weights.sta.state)
    return sta.requires_grad_(False).to(device)


def describe(path_or_name: str | Path) -> dict[str, Any]:
    """Load and check weights of any kind, also an STA checkpoint alone, and return what they are, ready for JSON.

    Keys: `file`, `bytes` (None for weights made up on the spot), `kind` (`rts`, `rts+sta`, `sta`), `stored_as`,
    `provenance`, `licence`, `fingerprint` (None for `sta`), `tracker` (settings), and for each of `rts` and `sta` that
    is there `config`, `parameters` and `modules` (parameters of each).
    """
    loaded = _load_any(path_or_name)
    path = _path_of(path_or_name)
    about: dict[str, Any] = {"file": str(path_or_name), "bytes": path.stat().st_size if path.is_file() else None}
    if isinstance(loaded, OfficialNetwork):
        about |= {"kind": "sta", "stored_as": loaded.stored_as, "provenance": loaded.origin}
        return about | {"licence": _OFFICIAL_LICENCE, "fingerprint": None, "sta": _network(_as_sta(loaded))}
    about |= {"kind": "rts+sta" if loaded.sta else "rts", **loaded.metadata, "fingerprint": loaded.fingerprint}
    quality = loaded.quality
    about |= {"quality": quality and {"map": quality.fingerprint, "origin": quality.origin}}
    about |= {"tracker": loaded.tracker_config.to_dict(), "rts": _network(loaded)}
    return about | ({"sta": _network(loaded.sta)} if loaded.sta else {})


def _network(weights: Weights | StaWeights) -> dict[str, Any]:
    modules: Counter[str] = Counter()
    for key, value in weights.state.items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            modules[key.split(".", 1)[0]] += value.numel()
    return {"config": weights.config.to_dict(), "parameters": modules.total(), "modules": dict(modules)}


def _load_any(path_or_name: str | Path) -> Weights | OfficialNetwork:
    """Load weights; an `OfficialNetwork` is returned only for STA."""
    with _one_thread():
        if path_or_name == "rts-mini-untrained":
            return _untrained()
        path = _path_of(path_or_name)
        if not path.is_file():
            raise WeightsError(_not_found(path_or_name))
        try:
            if is_weights_file(path):
                return load_weights_file(path)
            network = load_checkpoint(path)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
        if isinstance(network.config, StaConfig):
            return network
        metadata = {"provenance": network.origin, "licence": _OFFICIAL_LICENCE, "stored_as": network.stored_as}
        return Weights(network.config, TRACKER_RTS50, network.state, None, metadata)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Look at a thousand small tensors without waking threads for each, which may take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _path_of(path_or_name: str | Path) -> Path:
    if path_or_name in PUBLISHED:
        return cached(str(path_or_name))
    return DATA / f"{path_or_name}.safetensors" if path_or_name in BUILT_IN else Path(path_or_name)


def _not_found(path_or_name: str | Path) -> str:
    if path_or_name in BUILT_IN:
        return (
            f"this release brings no trained weights {str(path_or_name)!r}; name a file, or 'rts-mini-untrained' to "
            "try the pipeline with random weights, whose masks are meaningless"
        )
    if path_or_name in PUBLISHED:
        target = cached(str(path_or_name))
        return f"{path_or_name} has not been fetched yet (to {target}): rts-batch weights get {path_or_name}"
    known = ", ".join(NAMES)
    return (
        f"{path_or_name}: no such weights file; give a path to rts50.pth or to a .safetensors file, or one of {known}"
    )


def _untrained() -> Weights:
    config, tracker_config = MODELS["rts-mini"]
    tracker_config = dataclasses.replace(tracker_config, crop_size=(240, 416), box_refinements=0)  # quicker
    state = untrained_state(network_layout(config))
    provenance = "random, seed 0: masks are meaningless"
    return make_weights(config, tracker_config, state, provenance=provenance, licence="Apache-2.0")


def _as_sta(network: OfficialNetwork) -> StaWeights:
    assert isinstance(network.config, StaConfig)
    return StaWeights(network.config, network.state)
