"""What follows a convolution in one kernel against one step after the other, under Triton's interpreter, and compiled.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from rts_batch.model.fast import fused, launchable
from rts_batch.model.fast.fused import FusedConv
from tests.support.interpreter import interpreted
from tests.support.offline import ARCHITECTURES, check_all, compiled_only, kernels_of

ACTIVATIONS = (None, nn.ReLU, nn.ReLU6)
TYPES = (torch.float32, torch.bfloat16)


@pytest.mark.long
def test_a_kernel_does_what_the_steps_do() -> None:
    interpreted("tests.model.fast.kernels.test_epilogue")


@torch.no_grad()
def compare(device: str) -> None:
    """Run convolutions with the kernel and without."""
    from rts_batch.model.fast.kernels import epilogue as kernels

    kernels.try_launch(torch.device(device))
    torch.manual_seed(0)
    cases = product(ACTIVATIONS, TYPES, (False, True), (1, 3), (24, 1))
    for activation, dtype, adds, size, channels in cases:
        conv = FusedConv(nn.Conv2d(16, channels, size, padding=size // 2).to(device, dtype), activation)
        conv.fuses = False
        x = 3 * torch.randn(2, 16, 7, 9, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        added = torch.randn(2, channels, 7, 9, device=device, dtype=dtype) if adds else None
        fused.kernels_for = lambda name, device: None
        expected = conv(x, added)
        fused.kernels_for = lambda name, device: kernels
        found = conv(x, added)
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.is_contiguous(memory_format=torch.channels_last)
        tolerance = 1e-6 if dtype == torch.float32 else 2e-2  # rounded once, not after each step
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
def test_on_a_gpu_a_kernel_does_what_the_steps_do(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert launchable.kernels_for("epilogue", torch.device("cuda")) is not None
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(fused, "kernels_for", fused.kernels_for)  # which is put back afterwards
    compare("cuda")


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_as_they_are_launched(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.model.fast.kernels import epilogue, pointwise

        for activation, dtype, adds, channels in product(ACTIVATIONS, TYPES, (False, True), (96, 15)):
            y = torch.zeros(4, channels, 30, 52, dtype=dtype).contiguous(memory_format=torch.channels_last)
            epilogue.finish(y, y.new_zeros(channels), y.clone() if adds else None, activation)
    assert set(compiled) == kernels_of(pointwise)
    check_all(compiled, architecture)


if __name__ == "__main__":
    compare("cpu")
