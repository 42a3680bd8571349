"""How many blocks a launch has, and how large they are."""

from __future__ import annotations

from typing import Any

import torch


def blocks(length: int, block: int) -> int:
    """How many blocks cover a length."""
    return -(-length // block)


def power(number: int) -> int:
    """The smallest power of two that has room for a number, which is at least 1."""
    return 1 << (number - 1).bit_length()


def precision() -> dict[str, Any]:
    """How a product of float32 is made: of rounded numbers if PyTorch may too, else of three of them."""
    return {"PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3", "enable_fp_fusion": True}
