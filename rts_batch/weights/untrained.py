"""Random weights that are the same on every machine: for demos and tests until trained ones exist."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from rts_batch.weights.layout import Layout


def untrained_state(layout: Layout, seed: int = 0) -> dict[str, Tensor]:
    """Fill a network's layout as fresh training would begin (spec rts-network §13), from keys and `seed` alone.

    Convolutions are uniform with a variance of 2 / fan-in, drawn per key by PCG64, so neither torch's generators nor
    the order of keys matter. Returns key → CPU tensor, float32 and int64.
    """
    return {key: _fill(key, shape, seed).to(dtype) for key, (shape, dtype) in layout.items()}


def _fill(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    leaf = key.rsplit(".", 1)[-1]
    if key.endswith("samp_w_pred.bias") or leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return torch.ones(shape)
    if leaf == "filter_reg":
        return torch.full(shape, 0.01)
    if len(shape) < 2 or key.endswith("samp_w_pred.weight"):
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
    unit = 2 * draw.random(shape, dtype=np.float32) - 1
    return torch.from_numpy(unit * np.float32(math.sqrt(6 / math.prod(shape[1:]))))
