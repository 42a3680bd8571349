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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bias_of_a_map_to_add_is_added_by_who_adds_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    last, beside = (FusedConv(nn.Conv2d(16, 24, 3, padding=1).to(dtype).requires_grad_(False)) for _ in range(2))
    x, y = torch.randn(2, 16, 7, 9, dtype=dtype), torch.randn(2, 16, 7, 9, dtype=dtype)
    expected = last(x, beside(y))
    last.add_bias_of(beside)
    assert beside.bias is None
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(last(x, beside(y)), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_of_single_pixels_and_its_bias_are_one_product(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 24, 1).to(dtype).requires_grad_(False)
    x = torch.randn(2, 16, 7, 9, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile() as profile:
        found = FusedConv(plain)(x)
    assert {"aten::addmm"} == {event.key for event in profile.key_averages()} & {"aten::addmm", "aten::conv2d"}
    torch.testing.assert_close(found, plain(x), rtol=2e-2, atol=2e-2)
    unlike = FusedConv(nn.Conv2d(3, 24, 1).to(dtype).requires_grad_(False))
    assert unlike(x[:, :3]).shape == found.shape
