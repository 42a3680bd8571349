"""What Triton kernels share, bit for bit as the plain tracker has it; `TRITON_INTERPRET=1` runs it without a GPU."""

from __future__ import annotations

import os

import pytest
import torch

from rts_batch.tracking.motion import scale_of_target, scale_to_follow
from rts_batch.tracking.region import stride_of

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA")
tl = pytest.importorskip("triton.language")
common = pytest.importorskip("rts_batch.tracking.gpu.kernels.common")

COUNT = 256


@triton.jit
def scales(sizes, base_sizes, ratios, found, area_scale, area, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    height, width = tl.load(sizes + 2 * at), tl.load(sizes + 2 * at + 1)
    base_height, base_width = tl.load(base_sizes + 2 * at), tl.load(base_sizes + 2 * at + 1)
    tl.store(found + at, common.scale_of(height, width, area_scale, tl.zeros([COUNT], tl.float32) + area))
    tl.store(found + COUNT + at, common.scale_to_follow(height, width, base_height, base_width))
    tl.store(found + 2 * COUNT + at, common.stride_of(tl.load(ratios + at)))


def test_scales_and_strides_have_the_plain_ones_bits() -> None:
    if not torch.cuda.is_available() and not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("no CUDA device")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    sizes, base_sizes = 800 * torch.rand(COUNT, 2, generator=generator) + 4, torch.rand(COUNT, 2, generator=generator)
    whole = torch.arange(1.0, 1 + COUNT // 2) % 8 + 1.1
    ratios = torch.cat([whole, torch.nextafter(whole, torch.tensor(9.0))])
    found = torch.zeros(3, COUNT, device=device)
    inputs = (values.to(device) for values in (sizes, base_sizes, ratios))
    common.launch(scales, (1,), *inputs, found, 6.0, 480.0 * 832.0, COUNT=COUNT)
    expected = [
        [scale_of_target(size, 6.0, (480, 832)) for size in sizes],
        [scale_to_follow(size, base) for size, base in zip(sizes, base_sizes, strict=True)],
        [stride_of(ratio) for ratio in ratios],
    ]
    assert torch.equal(found.cpu(), torch.tensor(expected))
