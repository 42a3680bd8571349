"""Maps of 0 and 1 as float32, made without a map of bool, and of bool, made by NumPy.

PyTorch casts bool to float32 on a CPU some ten times slower than it compares straight into float32, and compares into
bool as slowly; a frame takes a dozen such maps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def above(values: Tensor, threshold: float = 0.0) -> Tensor:
    """Return 1 where `values`, `[…] float32`, exceed a threshold, else 0, as float32."""
    return torch.gt(values, threshold, out=torch.empty_like(values))


def at_least(values: Tensor, threshold: float) -> Tensor:
    """Return 1 where `values`, `[…] float32`, reach a threshold, else 0, as float32."""
    return torch.ge(values, threshold, out=torch.empty_like(values))


def positive(values: Tensor) -> Tensor:
    """Return where `values`, `[…] float32`, exceed 0, as bool."""
    return torch.from_numpy(values.numpy() > 0) if values.device.type == "cpu" else values > 0
