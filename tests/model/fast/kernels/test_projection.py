"""The projection's kernels against the plain one, under Triton's interpreter, and compiled for GPUs.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rts_batch.config import RTS50, TRACKER_RTS50
from rts_batch.model.decoder import Projection
from rts_batch.model.fast import launchable
from rts_batch.model.fast.networks import FastProjection
from tests.support.interpreter import interpreted
from tests.support.offline import ARCHITECTURES, check_all, compiled_only, kernels_of

CASES = {
    # Maps, channels, height, width, size of the image.
    "twice as large": (2, 4, 3, 4, (12, 16)),
    "another size": (1, 12, 3, 4, (13, 9)),
    "as large": (1, 4, 5, 4, (10, 8)),
}


@pytest.mark.long
def test_kernels_draw_what_the_plain_projection_does() -> None:
    interpreted("tests.model.fast.kernels.test_projection")


@torch.no_grad()
def compare(case: str, device: str) -> None:
    from rts_batch.model.fast.kernels import projection as kernels

    kernels.try_launch(torch.device(device))
    torch.manual_seed(0)
    count, channels, height, width, size = CASES[case]
    plain = Projection(channels, "bicubic").to(device)
    x = torch.randn(count, channels, height, width, device=device).contiguous(memory_format=torch.channels_last)
    found = FastProjection(plain).by_kernels(kernels, x, size)
    for expected in (plain(x, size), FastProjection(plain)(x, size)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_draws_what_the_plain_projection_does(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert launchable.kernels_for("projection", torch.device("cuda")) is not None
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    compare(case, "cuda")


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_as_they_are_launched(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = TRACKER_RTS50.crop_size
    width = RTS50.decoder_dims[-1]
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.model.fast.kernels import bicubic, projection

        maps = torch.zeros(4, width, size[0] // 4, size[1] // 4)
        doubled = projection.upsample(maps, (size[0] // 2, size[1] // 2))
        planes = doubled.new_zeros(9, 4, *doubled.shape[2:])
        assert projection.draw(planes, torch.zeros(1), size).shape == (4, *size)
    assert set(compiled) == kernels_of(bicubic)
    check_all(compiled, architecture)


if __name__ == "__main__":
    for name in CASES:
        compare(name, "cpu")
