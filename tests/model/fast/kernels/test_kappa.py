"""The learner of κ in Triton kernels against the plain one, under Triton's interpreter, and compiled for GPUs.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rts_batch.config import MODELS
from rts_batch.model.fast import instance, launchable
from rts_batch.model.instance_model import InstanceModel
from tests.support.interpreter import interpreted
from tests.support.offline import check_all, compiled_only, kernels_of

CASES = {
    # Channels, height, width, samples, steps; blocks that are not full, and several of them.
    "wide": (72, 5, 14, 2, 2),
    "small": (16, 3, 4, 3, 3),
    "no step": (16, 3, 4, 1, 0),
}


@pytest.mark.long
def test_kernels_take_the_plain_learners_steps() -> None:
    interpreted("tests.model.fast.kernels.test_kappa")


def compare(case: str, device: str, tolerance: float = 1e-5) -> None:
    from rts_batch.model.fast.kernels import kappa as kernels

    kernels.try_launch(torch.device(device))
    channels, height, width, count, iterations = CASES[case]
    torch.manual_seed(0)
    model = InstanceModel(8, channels, 4, hinge_threshold=0.05, activation_leak=0.1, reg=0.3).to(device)
    features = torch.randn(count, channels, height, width, device=device)
    labels = torch.rand(count, height + 1, width + 1, device=device).pow(8)
    weights = torch.rand(count, device=device)
    weights[-1] *= count == 1  # a slot that is empty yet
    start = 0.1 * torch.randn(1, 1, channels, 4, 4, device=device)
    given = (start, features, labels, weights)
    before = [values.clone() for values in given]
    instance.kernels_for = lambda name, device: kernels
    found, again = (instance.fit(model, *given, iterations=iterations) for _ in range(2))
    assert torch.equal(found, again), "sums in another order"
    for values, old in zip(given, before, strict=True):
        assert torch.equal(values, old), "what is given stays as it is"
    instance.kernels_for = lambda name, device: None
    plain = instance.fit(model, *given, iterations=iterations)
    assert found.shape == plain.shape
    assert (found - plain).norm() <= tolerance * plain.norm()

    # Slots that are empty are not read, and change no sum.
    slots = [torch.cat([values, torch.full_like(values, torch.nan)]) for values in (features, labels, weights)]
    instance.kernels_for = lambda name, device: kernels
    filled = torch.tensor([count], device=device)
    assert torch.equal(instance.fit(model, start, *slots, filled=filled, iterations=iterations), found)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_takes_the_plain_learners_steps(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert launchable.kernels_for("kappa", torch.device("cuda")) is not None
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(instance, "kernels_for", instance.kernels_for)  # which is put back afterwards
    compare(case, "cuda", tolerance=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("architecture", "rounded", "network"),
    [(90, False, "rts50"), (90, True, "rts-mini"), pytest.param(80, False, "rts-mini", marks=pytest.mark.slow)],
)
def test_kernels_compile_as_they_are_launched(
    architecture: int, rounded: bool, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tracker = MODELS[network]
    height, width = (side // 32 for side in tracker.crop_size)
    count = tracker.localisation_memory_size
    features = torch.zeros(count, model.feature_dim, height, width)
    labels, weights = torch.zeros(count, height + 1, width + 1), torch.ones(count)
    start = torch.zeros(1, 1, model.feature_dim, model.localisation_filter_size, model.localisation_filter_size)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", rounded)
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.model.fast.kernels import hinge, kappa

        assert kappa.takes(start, features)
        constants = kappa.Constants(model.hinge_threshold, model.activation_leak, model.localisation_reg)
        filled, iterations = torch.ones(1, dtype=torch.int64), tracker.localisation_update_iterations
        kappa.learn(start, features, labels, weights, constants, filled=filled, iterations=iterations)
    assert set(compiled) == kernels_of(hinge) | {"gradient", "descend"}
    check_all(compiled, architecture)


def test_other_filters_are_left_to_pytorch() -> None:
    kernels = pytest.importorskip("rts_batch.model.fast.kernels.kappa", reason="Triton is not installed")
    features = torch.zeros(2, 16, 5, 7)
    assert kernels.takes(torch.zeros(1, 1, 16, 4, 4), features)
    assert not kernels.takes(torch.zeros(1, 1, 16, 3, 3), features)
    assert not kernels.takes(torch.zeros(1, 2, 16, 4, 4), features)
    assert not kernels.takes(torch.zeros(1, 1, 16, 4, 4), features.transpose(2, 3))
    assert not kernels.takes(torch.zeros(1, 1, 16, 4, 4), features.half())


if __name__ == "__main__":
    for name in CASES:
        compare(name, "cpu")
