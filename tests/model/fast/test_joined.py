"""The network's joined steps against one after the other, under Triton's interpreter, and compiled.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from rts_batch.config import MODELS, Profile
from rts_batch.model.backbones import Backbone, MobileNetV2, ResNet50
from rts_batch.model.decoder import ChannelAttention, TargetScoreEncoder
from rts_batch.model.fast import fused, joined, launchable, networks, packed
from rts_batch.model.fast.fused import FusedConv
from rts_batch.model.fast.joined import JoinedAttention, JoinedMobileNetV2, JoinedNorm, JoinedResNet50
from rts_batch.model.layers import InstanceL2Norm
from rts_batch.weights.registry import build_model, load_weights
from tests.support.interpreter import interpreted
from tests.support.offline import ARCHITECTURES, check_all, compiled_only, kernels_of

TYPES = (torch.float32, torch.bfloat16)
SUBJECTS = ("image", "norm", "mixing")


@pytest.mark.long
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_kernel_does_what_the_steps_do(subject: str) -> None:
    interpreted("tests.model.fast.test_joined", subject)


def map_of(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype).contiguous(memory_format=torch.channels_last)


def image_cases(device: str) -> Iterator[tuple[Callable[[], Tensor], float]]:
    """The crop for the first convolution, as the backbone and the convolution leave it."""
    for backbone in (ResNet50(), MobileNetV2()):
        for dtype in TYPES:
            prepared = prepared_backbone(backbone.to(device), dtype)
            crop = 255 * torch.rand(2, 3, 6, 50, device=device)

            def first(prepared: Backbone = prepared, crop: Tensor = crop, dtype: torch.dtype = dtype) -> Tensor:
                image = prepared.normalise(crop).to(dtype)
                missing = 8 - image.shape[1] if dtype == torch.bfloat16 else 0
                return nn.functional.pad(image, (0, 0, 0, 0, 0, missing))

            # The interpreter cuts numbers off where a GPU rounds them.
            yield first, 2**-7 if (device, dtype) == ("cpu", torch.bfloat16) else 0.0


def prepared_backbone(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """A backbone whose first convolution is that of a GPU."""
    if isinstance(backbone, ResNet50):
        prepared = JoinedResNet50.__new__(JoinedResNet50)
        nn.Module.__init__(prepared)
        prepared.register_buffer("mean", backbone.mean)
        prepared.conv1 = FusedConv(backbone.conv1.to(dtype))
        return prepared
    assert isinstance(backbone, MobileNetV2)
    conv = FusedConv(backbone.features[0][0].to(dtype))
    return JoinedMobileNetV2(backbone, nn.ModuleList([nn.Sequential(conv)]))


def norm_cases(device: str) -> Iterator[tuple[Callable[[], Tensor], float]]:
    norm = JoinedNorm(InstanceL2Norm(0.7))
    for dtype in TYPES:
        for shape in ((2, 24, 11, 23), (1, 8, 3, 5)):
            x = 5 * map_of(*shape, dtype=dtype, device=device)
            yield (lambda x=x: norm(x)), 1e-6
            yield (lambda x=x: norm(x.mT)), 1e-6  # which lies in no order of PyTorch's


def mixing_cases(device: str) -> Iterator[tuple[Callable[[], Tensor], float]]:
    for dtype in TYPES:
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # rounded once, not after each step
        for deeper, deepest in (((7, 9), False), ((14, 18), False), ((5, 4), False), ((1, 1), True)):
            attention = JoinedAttention(ChannelAttention(12, deepest=deepest), nn.Identity())
            given = (
                map_of(2, 12, 14, 18, dtype=dtype, device=device),
                map_of(2, 12, 1, 1, dtype=dtype, device=device),
                map_of(2, 12, *deeper, dtype=dtype, device=device),
            )
            yield (lambda attention=attention, given=given: attention.mixed(*given)), tolerance
        encoder = packed._joined_encoder(TargetScoreEncoder(12, 5, 20))
        for size in ((7, 9), (14, 18), (28, 36), (3, 4)):
            reduced = map_of(2, 20, 14, 18, dtype=dtype, device=device)
            scores = torch.randn(2, 5, *size, device=device, dtype=dtype)
            yield (lambda encoder=encoder, given=(reduced, scores): encoder.joined(*given)), tolerance


CASES = {"image": image_cases, "norm": norm_cases, "mixing": mixing_cases}


@torch.no_grad()
def compare(subject: str, device: str) -> None:
    """Run the steps with the kernels and without."""
    kernels = importlib.import_module(f"rts_batch.model.fast.kernels.{subject}")
    kernels.try_launch(torch.device(device))
    torch.manual_seed(0)
    for run, tolerance in CASES[subject](device):
        joined.kernels_for = lambda name, device: None
        expected = run()
        joined.kernels_for = lambda name, device: kernels
        found = run()
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.long
@pytest.mark.parametrize("profile", ["exact", "bf16"])
def test_a_whole_network_of_kernels_is_the_plain_one(profile: str) -> None:
    interpreted("tests.model.fast.test_joined", "network", profile)


@torch.no_grad()
def compare_network(profile: Profile) -> None:
    """Run `rts-mini` as on a GPU, but for cuDNN, and as it is."""
    asked = set()

    def kernels_for(name: str, device: torch.device) -> ModuleType:
        asked.add(name)
        return importlib.import_module(f"rts_batch.model.fast.kernels.{name}")

    plain = build_model(load_weights("rts-mini"), "cpu")
    packed.packed, networks.compiled.is_available = FusedConv, lambda: False
    quick = networks.fast(plain, profile=profile)
    for module in (fused, networks, joined):
        module.kernels_for = kernels_for
    torch.manual_seed(0)
    crops, tau = 255 * torch.rand(2, 3, 64, 96), 0.05 * torch.randn(2, *plain.target_model.filter_shape)
    score_map, results = torch.rand(1, 2, 3, 4), []
    for network in (quick, plain):
        found = network.extract(crops)
        logits = network.segment(found.segmentation[None], found.maps, tau, score_map)
        results.append((found.segmentation, found.localisation, logits))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() <= (1e-5 if profile == "exact" else 0.03) * theirs.norm()
    assert asked == {"epilogue", *SUBJECTS}


@pytest.mark.gpu
@pytest.mark.parametrize("subject", SUBJECTS)
def test_on_a_gpu_a_kernel_does_what_the_steps_do(subject: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert launchable.kernels_for(subject, torch.device("cuda")) is not None
    monkeypatch.setattr(joined, "kernels_for", joined.kernels_for)  # which is put back afterwards
    compare(subject, "cuda")


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_as_they_are_launched(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.model.fast.kernels import bilinear, crops, energy, image, mixing, norm

        mean = torch.ones(3, 1, 1)
        for model, tracker in MODELS.values():
            height, width = tracker.crop_size
            image.normalise(torch.zeros(2, 3, height, width), mean, mean, torch.zeros(1, 3, 1, 1))
            half = torch.zeros(1, 8, 1, 1, dtype=torch.bfloat16)
            image.normalise(torch.zeros(2, 3, height, width), mean, None, half, flipped=True)
            for dtype in TYPES:
                features = map_of(2, model.feature_dim, height // 16, width // 16, dtype=dtype, device="cpu")
                norm.normalise(features, 0.1)
                for channels, stride in zip(model.decoder_dims, (32, 16, 8, 4), strict=True):
                    shallow = map_of(2, channels, height // stride, width // stride, dtype=dtype, device="cpu")
                    deeper = map_of(2, channels, 3, 5, dtype=dtype, device="cpu")
                    mixing.attend(shallow, deeper[:, :, :1, :1], deeper)
                    mixing.join(shallow, features[:, : model.num_filters])
    assert set(compiled) == kernels_of(crops, energy, bilinear)
    check_all(compiled, architecture)


if __name__ == "__main__":
    if sys.argv[1] == "network":
        compare_network(cast(Profile, sys.argv[2]))
    else:
        compare(sys.argv[1], "cpu")
