"""The official checkpoints (`rts50.pth`, `sta.pth.tar`): what their pickles say, and their tensors.

The pickle is read as data (`inert_pickle`). The entry `net` of its dictionary names the network's tensors, and only
their bytes are read; the optimiser's state, twice as large, is not. Layout: spec rts-network §14.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rts_batch.config import ModelConfig, StaConfig
from rts_batch.errors import WeightsError
from rts_batch.weights.layout import check_layout, conform, infer_config, network_layout, stored_dtype
from rts_batch.weights.pickled import Record, as_mapping, brief
from rts_batch.weights.torch_files import MAX_NUMEL, Storage, open_container, parse_storage

_REBUILD: Final = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER: Final = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_NUMPY_SCALAR: Final = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_MAX_RANK: Final = 8


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it, checked to lie within its storage. Offset and strides count elements."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: Storage
    offset: int
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class OfficialCheckpoint:
    """An open checkpoint: what its tensors are, and on demand their values. A context manager.

    `net` maps each key to its description, in the file's order. `options` are the arguments, by name, that the network
    was built with. `net_type` and `epoch` are None and `options` is empty where the file was stripped of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container = open_container(path)
        try:
            entries = as_mapping(self._container.root)
            if entries is None or "net" not in entries:
                found = ", ".join(brief(key) for key in list(entries or ())[:8]) or "no dictionary"
                raise WeightsError(
                    f"{path}: the pickle has no entry 'net' (it has {found}); expected a checkpoint of the "
                    "published tracker, such as rts50.pth"
                )
            self.net = _describe_net(entries["net"], path)
            self.net_type = entries.get("net_type") if isinstance(entries.get("net_type"), str) else None
            self.epoch = entries.get("epoch") if isinstance(entries.get("epoch"), int) else None
            self.options = _constructor_options(entries.get("constructor"))
        except WeightsError:
            self._container.close()
            raise

    def __enter__(self) -> OfficialCheckpoint:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._container.close()

    def read(self, key: str) -> Tensor:
        """Read one tensor of `net`, contiguous, on the CPU, in the stored dtype; valid after closing."""
        tensor = self.net[key]
        if not tensor.numel:
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        try:
            data = self._container.storage_bytes(tensor.storage)
        except WeightsError as error:
            raise WeightsError(f"{error} (tensor {brief(key)})") from None
        flat = torch.frombuffer(data, dtype=tensor.dtype)
        return flat.as_strided(tensor.shape, tensor.stride, tensor.offset).contiguous()


def open_checkpoint(path: str | Path) -> OfficialCheckpoint:
    """Open an official container; raise `WeightsError` naming the byte, entry or key at fault.

    Nothing in the file is run or imported; no tensor is read yet.
    """
    return OfficialCheckpoint(Path(path))


@dataclass(frozen=True)
class OfficialNetwork:
    """A checkpoint's network, every key accounted for. `config` says which of the two networks it is, `origin` names
    the file, its SHA-256 and what it says of itself."""

    config: ModelConfig | StaConfig
    state: dict[str, Tensor]
    stored_as: str
    origin: str


def load_checkpoint(path: str | Path) -> OfficialNetwork:
    """Load `rts50.pth` or `sta.pth.tar`; raise `WeightsError` naming the byte, entry or key at fault."""
    with open_checkpoint(path) as checkpoint:
        where = str(path)
        config = infer_config({key: tensor.shape for key, tensor in checkpoint.net.items()}, checkpoint.options, where)
        layout = network_layout(config)
        check_layout({key: (tensor.shape, tensor.dtype) for key, tensor in checkpoint.net.items()}, layout, where)
        state = {key: checkpoint.read(key) for key in layout}
        facts = {"net_type": checkpoint.net_type, "epoch": checkpoint.epoch}
    stored_as, state = stored_dtype(state), conform(config, state, where)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    stated = "".join(f", {name} {brief(value)}" for name, value in facts.items() if value is not None)
    return OfficialNetwork(config, state, stored_as, f"{Path(path).name}, sha256 {digest.hexdigest()}{stated}")


def _describe_net(value: Any, path: Path) -> dict[str, StoredTensor]:
    entries = as_mapping(value)
    if not entries:
        raise WeightsError(f"{path}: the entry 'net' is not a dictionary of tensors")
    net: dict[str, StoredTensor] = {}
    for key, entry in entries.items():
        if not isinstance(key, str):
            raise WeightsError(f"{path}: net has a key {brief(key)} that is no text")
        try:
            net[key] = _describe_tensor(entry)
        except ValueError as error:
            raise WeightsError(f"{path}: net[{brief(key)}] {error}") from None
    claimed, size = sum(tensor.numel * tensor.dtype.itemsize for tensor in net.values()), path.stat().st_size
    if claimed > size:
        raise WeightsError(f"{path}: the tensors of net claim {claimed} bytes, the file has {size}")
    return net


def _describe_tensor(entry: Any) -> StoredTensor:
    """Read `_rebuild_tensor_v2(storage, offset, shape, stride, …)`, bare or as a parameter; else raises ValueError."""
    if isinstance(entry, Record) and entry.callee_name in _REBUILD_PARAMETER and entry.args:
        entry = entry.args[0]
    if not isinstance(entry, Record) or entry.callee_name not in _REBUILD:
        made_by = f" (made by {brief(entry.callee_name)})" if isinstance(entry, Record) else ""
        raise ValueError(f"is not a tensor but a {type(entry).__name__}{made_by}")
    if not isinstance(entry.args, tuple) or len(entry.args) < 4:
        raise ValueError("describes a tensor with too few values")
    storage, offset, shape, stride = (
        parse_storage(entry.args[0]),
        entry.args[1],
        _sizes(entry.args[2]),
        _sizes(entry.args[3]),
    )
    if storage is None:
        raise ValueError("lies in a storage of an unknown kind")
    if shape is None or stride is None or len(shape) != len(stride) or not _is_size(offset):
        raise ValueError("has an impossible shape, stride or offset")
    tensor = StoredTensor(shape, storage.dtype, storage, storage.start + offset, stride)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if tensor.numel > storage.numel or (tensor.numel and last >= storage.numel):
        raise ValueError(
            f"of shape {list(shape)} reaches beyond its storage {brief(storage.key)} of {storage.numel} values"
        )
    return tensor


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a shape or stride, written as a tuple or as torch.Size; None where it is neither."""
    if isinstance(value, Record) and value.callee_name == "torch.Size" and value.args:
        value = value.args[0]
    if not isinstance(value, list | tuple) or len(value) > _MAX_RANK:
        return None
    return tuple(value) if all(map(_is_size, value)) else None


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_NUMEL


def _constructor_options(constructor: Any) -> dict[str, Any]:
    """Return the keyword arguments that the network was built with: plain values as they are, anything else inert."""
    options = as_mapping(constructor.attributes.get("kwds")) if isinstance(constructor, Record) else None
    return {key: _plain(value) for key, value in (options or {}).items() if isinstance(key, str)}


def _plain(value: Any) -> Any:
    """Turn a list into a tuple and a NumPy scalar into a number."""
    if isinstance(value, list):
        return tuple(value)
    match value:
        case Record(callee_name=name, args=(Record(callee_name="numpy.dtype", args=(str(code), *_)), data)) if (
            name in _NUMPY_SCALAR and code in ("b1", "i4", "i8", "f4", "f8")
        ):
            raw = _raw_bytes(data)
            return np.frombuffer(raw, "<" + code)[0].item() if len(raw) == int(code[1]) else value
    return value


def _raw_bytes(data: Any) -> bytes:
    """Return bytes, which protocol 2 writes as a call that encodes text as Latin-1."""
    match data:
        case Record(callee_name="_codecs.encode", args=(str(text), *_)):
            return text.encode("latin-1", "replace")
    return data if isinstance(data, bytes) else b""
