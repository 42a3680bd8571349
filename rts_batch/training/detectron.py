"""Detectron's model files: a pickle of Python 2 with NumPy arrays in it, read as data."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.errors import WeightsError
from rts_batch.weights.inert_pickle import read_pickle
from rts_batch.weights.pickled import Record, as_mapping

MAX_BLOBS_BYTES: Final = 1 << 30
"""Detectron keeps its arrays inside the pickle; a Mask R-CNN on ResNet-50 has less than this."""

_STEM = re.compile(r"(?:res_)?conv1(?P<kind>_w|_bn_s|_bn_b)")
_BLOCK = re.compile(r"res(?P<stage>[2-5])_(?P<block>\d+)_branch(?P<branch>1|2a|2b|2c)(?P<kind>_w|_bn_s|_bn_b)")


def is_plain_pickle(path: Path) -> bool:
    """Whether a file is a bare pickle and neither of PyTorch's containers."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    legacy = bytes.fromhex("6cfc9c46f9206aa85019")  # PyTorch's magic number, inside its first pickle
    return head[:2] != b"PK" and legacy not in head


def read_blobs(path: Path) -> dict[str, Tensor]:
    """Read Detectron's blobs under the usual names, ResNet's alone."""
    with path.open("rb") as file:
        root, _ = read_pickle(file, str(path), limit=MAX_BLOBS_BYTES)
    blobs = as_mapping(root) or {}
    blobs = as_mapping(blobs.get("blobs")) or blobs
    state: dict[str, Tensor] = {}
    for name, value in blobs.items():
        key = _usual_name(name) if isinstance(name, str) else None
        if key is not None:
            try:
                state[key] = torch.from_numpy(read_array(value))
            except ValueError as error:
                raise WeightsError(f"{path}: blob {name!r} {error}") from None
    if not state:
        raise WeightsError(f"{path}: a pickle without Detectron's blobs of a ResNet (conv1_w, res2_0_branch2a_w, …)")
    return state


def _usual_name(blob: str) -> str | None:
    """`res2_0_branch2a_bn_s` → `layer1.0.bn1.weight`; None for what is not the backbone's."""
    match = _STEM.fullmatch(blob) or _BLOCK.fullmatch(blob)
    if match is None:
        return None
    kind = match["kind"]
    leaf = "bias" if kind == "_bn_b" else "weight"
    if match.re is _STEM:
        return f"{'conv1' if kind == '_w' else 'bn1'}.{leaf}"
    block = f"layer{int(match['stage']) - 1}.{match['block']}"
    if match["branch"] == "1":
        return f"{block}.downsample.{0 if kind == '_w' else 1}.{leaf}"
    return f"{block}.{'conv' if kind == '_w' else 'bn'}{'abc'.index(match['branch'][1]) + 1}.{leaf}"


def read_array(value: Any) -> NDArray[np.float32]:
    """Return a pickled NumPy array of floats that `read_pickle` described; raise `ValueError` on anything else."""
    if not (isinstance(value, Record) and value.callee_name.endswith("multiarray._reconstruct")):
        raise ValueError("is no NumPy array")
    match value.state:
        case (int(), tuple(shape), Record(callee_name="numpy.dtype", args=(str(code), *_)), bool(column_major), data):
            raw = _raw_bytes(data)
        case _:
            raise ValueError("is a NumPy array of an unknown kind")
    sizes = [size for size in shape if isinstance(size, int) and 0 <= size < 1 << 31]
    if code not in ("f4", "f8", "f2") or len(sizes) != len(shape):
        raise ValueError(f"is an array of {code!r}, expected floating-point numbers")
    dtype = np.dtype(f"<{code}")
    if raw is None or len(raw) != math.prod(sizes) * dtype.itemsize:
        raise ValueError("is an array whose bytes do not fit its shape")
    values = np.frombuffer(raw, dtype).reshape(sizes, order="F" if column_major else "C")
    return values.astype(np.float32, order="C")


def _raw_bytes(data: Any) -> bytes | None:
    """The bytes of an array as Python 2 (a string), Python 3 or its older protocols (an encoded text) pickle them."""
    if isinstance(data, Record) and data.callee_name == "_codecs.encode" and data.args:
        data = data.args[0]
    if isinstance(data, str):
        return data.encode("latin-1")
    return data if isinstance(data, bytes) else None
