"""Weights in memory and in a safetensors file of ours.

The tracker's tensors are `rts.<key>`, those of a box-to-mask network `sta.<key>`, with the keys of the official ones. A
shared backbone is stored once. One metadata entry, `rts_batch`, holds a JSON document (`Document`): safetensors writes
several in random order (safetensors#584) and equal weights shall make equal files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rts_batch.config import ModelConfig, QualityMap, StaConfig, TrackerConfig
from rts_batch.errors import SettingsError, WeightsError
from rts_batch.weights.layout import check_values, conform, stored_dtype
from rts_batch.weights.pickled import brief

_ENTRY: Final = "rts_batch"
_BACKBONE: Final = "feature_extractor."
_MAX_HEADER_BYTES: Final = 16 << 20
_LIMITS: Final = {
    "crop_size": 4096,
    "memory_size": 1000,
    "localisation_memory_size": 1000,
    "init_iterations": 1000,
    "update_iterations": 1000,
    "localisation_init_iterations": 1000,
    "localisation_update_iterations": 1000,
    "iterations": 1000,
}


@dataclass(frozen=True)
class StaWeights:
    """The box-to-mask network, which makes a mask of a box prompt."""

    config: StaConfig
    state: Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """A tracker's weights, checked and on the CPU: floating point as float32, counters as int64.

    A run may set others than `tracker_config`. `metadata` has `provenance`, `licence` and `stored_as` (a dtype).
    """

    config: ModelConfig
    tracker_config: TrackerConfig
    state: Mapping[str, Tensor]
    sta: StaWeights | None
    metadata: Mapping[str, str]
    quality: QualityMap | None = None  # no part of the fingerprint, as it decides no mask

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 as 64 hex digits over each tensor's name, dtype, shape and values and the settings that matter.

        Equal values have equal ones, from any file. A setting at its default does not count: a release may add one.
        """
        return _sha256(
            {
                "tensors": _digests(_named(self)),
                "model": _off_default(dataclasses.replace(self.config, name=ModelConfig.name)),
                "tracker": _off_default(self.tracker_config),
                "sta": _off_default(self.sta.config) if self.sta else None,
            }
        )


class _Configs(pydantic.BaseModel, extra="forbid", strict=True, allow_inf_nan=False):
    model: ModelConfig
    tracker: TrackerConfig
    sta: StaConfig | None


class Document(pydantic.BaseModel, extra="forbid", strict=True):
    """What a weights file says of itself. `tensors` has a digest of each tensor, `sha256` one of all else in here."""

    format: Literal[1]
    kind: Literal["rts", "rts+sta"]
    config: _Configs
    provenance: str
    licence: str
    tensors: dict[str, str]
    quality: QualityMap | None = None
    sha256: str


def make_weights(
    config: ModelConfig,
    tracker_config: TrackerConfig,
    state: Mapping[str, Tensor],
    *,
    sta: StaWeights | None = None,
    quality: QualityMap | None = None,
    provenance: str,
    licence: str,
    where: str = "weights",
) -> Weights:
    """Check state dicts against their configurations and cast them.

    Raises `WeightsError` naming `where` and the first key at fault.
    """
    metadata = {"provenance": provenance, "licence": licence, "stored_as": stored_dtype(state)}
    state = conform(config, state, where)
    if sta is not None:
        sta = StaWeights(sta.config, conform(sta.config, sta.state, f"{where}: STA network"))
    return Weights(config, tracker_config, state, sta, metadata, quality)


def save_weights(weights: Weights, path: str | Path, *, half: bool = False) -> None:
    """Write a weights file; it appears whole or not at all, and equal weights give equal bytes.

    Args:
        weights: what to write.
        path: a name ending in `.safetensors`.
        half: store float16, half the size and less precise; raises `WeightsError` where a value does not fit.
    """
    tensors = _named(weights)
    if half:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        check_values(tensors, f"{path}: as float16")
    tensors = _backbone_once(tensors)
    content: dict[str, Any] = {
        **({"quality": weights.quality.to_dict()} if weights.quality else {}),
        "format": 1,
        "kind": "rts+sta" if weights.sta else "rts",
        "config": {
            "model": weights.config.to_dict(),
            "tracker": weights.tracker_config.to_dict(),
            "sta": weights.sta.config.to_dict() if weights.sta else None,
        },
        "provenance": weights.metadata["provenance"],
        "licence": weights.metadata["licence"],
        "tensors": _digests(tensors),
    }
    document = json.dumps({**content, "sha256": _sha256(content)}, sort_keys=True)
    partial = Path(f"{path}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # which safetensors would narrow to the owner
        save_file(tensors, partial, metadata={_ENTRY: document})
        partial.chmod(mode)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be written ({error})") from None
    finally:
        partial.unlink(missing_ok=True)


def is_weights_file(path: Path) -> bool:
    """Say whether `path` is a safetensors file, by its name or its first bytes."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def load_weights_file(path: Path) -> Weights:
    """Read a weights file and verifies every digest in it; raise `WeightsError` naming the key or byte at fault."""
    metadata, tensors = _read(path)
    if _ENTRY not in metadata:
        raise WeightsError(f"{path}: a safetensors file, but without the metadata {_ENTRY!r} that rts-batch writes")
    document = _parse_document(metadata[_ENTRY], path)
    digests = _digests(tensors)
    for key in [*document.tensors, *tensors]:
        if document.tensors.get(key) != digests.get(key):
            fault = "is missing" if key not in digests else "is not the one that was written"
            raise WeightsError(f"{path}: tensor {brief(key)} {fault}; the file is damaged: fetch it again")
    configs = document.config
    states: dict[str, dict[str, Tensor]] = {"rts": {}, "sta": {}}
    for key, value in tensors.items():
        network, _, name = key.partition(".")
        if network not in states:
            raise WeightsError(f"{path}: tensor {brief(key)} belongs to neither 'rts' nor 'sta'")
        states[network][name] = value
    if states["sta"] and not any(name.startswith(_BACKBONE) for name in states["sta"]):
        states["sta"].update({name: value for name, value in states["rts"].items() if name.startswith(_BACKBONE)})
    if (configs.sta is None) == bool(states["sta"]):
        raise WeightsError(f"{path}: has an STA network or its configuration, but not both")
    return make_weights(
        configs.model,
        configs.tracker,
        states["rts"],
        sta=StaWeights(configs.sta, states["sta"]) if configs.sta else None,
        quality=document.quality,
        provenance=document.provenance,
        licence=document.licence,
        where=str(path),
    )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a safetensors file's metadata and copy of its tensors, which else are views of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    end = 8 + int.from_bytes(head, "little")
    if len(head) < 8 or end > size:
        raise WeightsError(f"{path}: the header goes to byte {end}, the file ends at byte {size}; fetch it again")
    if end > _MAX_HEADER_BYTES:
        raise WeightsError(f"{path}: the header goes to byte {end}, beyond any weights file's; this is none")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever damage makes of the decoder, it is the file's fault
        reason = _tensor_beyond(path, end, size) or str(error)[:200] or type(error).__name__
        raise WeightsError(f"{path}: does not fit its header, bytes 8 to {end}: {reason}; fetch it again") from None


def _tensor_beyond(path: Path, start: int, size: int) -> str:
    """Say which tensor reaches beyond the end of a file that cannot be read, if that is what is wrong with it."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(start)[8:])
        ends = {key: start + entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"}
        key = min((key for key, end in ends.items() if end > size), key=lambda key: ends[key])
    except Exception:  # it is the header itself
        return ""
    return f"tensor {brief(key)} goes to byte {ends[key]}, the file ends at byte {size}"


def _parse_document(text: str, path: Path) -> Document:
    try:
        document = Document.model_validate_json(text)
        content = json.loads(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}: metadata {_ENTRY}: {brief(place)}: {first['msg'][:200]}") from None
    except (SettingsError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: metadata {_ENTRY}: {str(error)[:200]}") from None
    if too_large := _too_large(document.config):
        raise WeightsError(f"{path}: metadata {_ENTRY}: {too_large}")
    if content.pop("sha256") != _sha256(content):
        raise WeightsError(f"{path}: metadata {_ENTRY} is not as it was written (sha256 differs); fetch the file again")
    return document


def _too_large(configs: _Configs) -> str:
    """Name a setting with which a file could fill the memory or never end."""
    for config in (configs.tracker, configs.sta):
        for name, limit in _LIMITS.items():
            value = getattr(config, name, 0)
            if max(value if isinstance(value, tuple) else (value,)) > limit:
                return f"{name} is {value}; at most {limit} is sensible"
    return ""


def _named(weights: Weights) -> dict[str, Tensor]:
    """Return all tensors under their names in a file."""
    named = {f"rts.{key}": value for key, value in weights.state.items()}
    if weights.sta:
        named.update({f"sta.{key}": value for key, value in weights.sta.state.items()})
    return named


def _backbone_once(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the STA network's backbone where it is the tracker's own; `load_weights_file` puts it back."""
    shared = [key for key in tensors if key.startswith(f"sta.{_BACKBONE}")]
    for key in shared:
        ours = tensors.get(f"rts.{key.removeprefix('sta.')}")
        if ours is None or not torch.equal(ours, tensors[key]):
            return tensors
    return {key: value for key, value in tensors.items() if key not in shared}


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of each tensor as it is after loading: dtype, shape and values, row-major, little-endian."""
    return {key: _digest(value) for key, value in sorted(tensors.items())}


def _digest(value: Tensor) -> str:
    value = value.float() if value.dtype == torch.float16 else value
    sha256 = hashlib.sha256(f"{value.dtype} {list(value.shape)}\n".encode())
    sha256.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _off_default(config: ModelConfig | StaConfig | TrackerConfig) -> dict[str, Any]:
    defaults = type(config)().to_dict()
    return {name: value for name, value in config.to_dict().items() if value != defaults[name]}
