"""What a fused convolution does where the fused kernel fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rts_batch.model.fast.fused import FusedConv


def failing(error: Exception):
    def kernel(*arguments: object) -> torch.Tensor:
        raise error

    return kernel


@pytest.fixture
def conv() -> FusedConv:
    conv = FusedConv(nn.Conv2d(16, 16, 3, padding=1).bfloat16().requires_grad_(False), nn.ReLU)
    assert conv.fuses
    return conv


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: an illegal memory access")],
)
def test_a_fault_is_no_lack_of_a_kernel(conv: FusedConv, error: RuntimeError, monkeypatch) -> None:
    monkeypatch.setattr(torch, "cudnn_convolution_relu", failing(error), raising=False)
    with pytest.raises(RuntimeError, match="CUDA"):
        conv(torch.randn(1, 16, 8, 8).bfloat16())
    assert conv.fuses


def test_where_there_is_no_kernel_the_steps_follow_one_another(conv: FusedConv, monkeypatch, caplog) -> None:
    error = RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
    monkeypatch.setattr(torch, "cudnn_convolution_relu", failing(error), raising=False)
    x = torch.randn(1, 16, 8, 8).bfloat16()
    expected = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1).relu()
    assert torch.equal(conv(x), expected)
    assert not conv.fuses
    assert "no fused kernel" in caplog.text
