"""The learner of τ in Triton kernels against the plain one, under Triton's interpreter, and compiled for GPUs.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rts_batch.config import MODELS
from rts_batch.model.fast import learner
from rts_batch.model.fast.learner import Samples, Taps, border
from rts_batch.model.learner import apply_filter
from rts_batch.model.target_model import TargetModel
from tests.support.interpreter import interpreted
from tests.support.offline import check_all, compiled_only, kernels_of

CASES = {
    # Filters, channels, height, width, samples, steps, λ; several shares of the pixels, and blocks that are not full.
    "as rts50": (16, 72, 5, 9, 2, 2, torch.tensor([0.3])),
    "as rts-mini": (15, 24, 3, 7, 3, 1, 0.3),
    "few": (5, 16, 3, 5, 2, 3, torch.tensor([0.01])),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_kernels_take_the_plain_learners_steps(case: str) -> None:
    interpreted("tests.model.fast.kernels.test_tau", case)


def compare(case: str) -> None:
    from rts_batch.model.fast.kernels import tau as kernels

    kernels.try_launch(torch.device("cpu"))
    kernels.PROGRAMS, kernels.PIXELS = 3, 64
    filters, channels, height, width, count, iterations, reg = CASES[case]
    torch.manual_seed(0)
    features, start = torch.randn(count, channels, height, width), 0.1 * torch.randn(1, filters, channels, 3, 3)
    labels, weights = torch.rand(count, filters, height, width), torch.rand(count, filters, height, width)
    pixels = border(features, 3).transpose(1, 2).contiguous()
    assert kernels.takes(start, pixels)
    scores = kernels.scores_of(pixels, start, width)
    assert_close(inner(scores, width), apply_filter(features[:, None], start)[:, 0])
    maps = (border(labels, 3), border(weights, 3), scores)
    before = [values.clone() for values in (start, pixels, *maps)]
    found = [kernels.fit(start, Samples(pixels, *maps), width=width, reg=reg, iterations=iterations) for _ in range(2)]
    for mine, again in zip(*found, strict=True):
        assert torch.equal(mine, again), "sums in another order"
    for values, old in zip((start, pixels, *maps), before, strict=True):
        assert torch.equal(values, old), "what is given stays as it is"
    tau, followed = found[0]
    model = TargetModel(0, channels, filters, 3)
    model.filter_optimizer.residual_module.filter_reg.data.fill_(float(reg))
    plain = model.learn(features[:, None], labels[:, None], weights[:, None], iterations=iterations, start=start)[-1]
    assert_close(tau, plain)
    assert_close(inner(followed, width), apply_filter(features[:, None], plain)[:, 0])
    learner._arranged = lambda features, filters, width: Taps(features, filters.shape[-1], width)
    shifted, _ = learner.fit(start, Samples(pixels, *maps), width=width, reg=reg, iterations=iterations)
    assert_close(tau, shifted)


@pytest.mark.long
@pytest.mark.parametrize("case", ["as rts50", "few"])
def test_slots_that_are_empty_are_not_read(case: str) -> None:
    interpreted("tests.model.fast.kernels.test_tau", case, "empty")


def compare_empty(case: str) -> None:
    from rts_batch.model.fast.kernels import tau as kernels

    kernels.PROGRAMS, kernels.PIXELS = 3, 64
    filters, channels, height, width, count, iterations, reg = CASES[case]
    torch.manual_seed(0)
    start = 0.1 * torch.randn(1, filters, channels, 3, 3)

    def with_slots(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, torch.full((5, *values.shape[1:]), torch.nan)])

    pixels = border(torch.randn(count, channels, height, width), 3).transpose(1, 2).contiguous()
    labels, weights = (border(torch.rand(count, filters, height, width), 3) for _ in range(2))
    samples = Samples(pixels, labels, weights, kernels.scores_of(pixels, start, width))
    filled = torch.tensor([count])
    scores = kernels.scores_of(with_slots(pixels), start, width, filled)
    assert torch.equal(inner(scores[:count], width), inner(samples.scores, width))
    memory = Samples(*(with_slots(values) for values in samples[:4]), filled)
    options = {"width": width, "reg": reg, "iterations": iterations}
    tau, followed = kernels.fit(start, memory, **options)
    expected, scores = kernels.fit(start, samples, **options)
    assert_close(tau, expected)  # more slots are other shares of the sum
    assert_close(inner(followed[:count], width), inner(scores, width))


def inner(bordered: torch.Tensor, width: int) -> torch.Tensor:
    return bordered.unflatten(-1, (-1, width + 2))[..., 1:-1, 1:-1]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.long
@pytest.mark.parametrize(
    ("architecture", "rounded", "network"),
    [(90, False, "rts50"), (90, True, "rts-mini"), pytest.param(80, False, "rts-mini", marks=pytest.mark.slow)],
)
def test_kernels_compile_as_they_are_launched(
    architecture: int, rounded: bool, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tracker = MODELS[network]
    height, width = (side // 16 for side in tracker.crop_size)
    samples, pixels = tracker.memory_size, (height + 2) * (width + 2)
    features = torch.zeros(samples, pixels, model.feature_dim)
    maps = [torch.zeros(samples, model.num_filters, pixels)] * 3
    start = torch.zeros(1, model.num_filters, model.feature_dim, 3, 3)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", rounded)
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.model.fast.kernels import descent, products, tau

        assert tau.takes(start, features)
        tau.scores_of(features, start, width)
        filled = torch.ones(1, dtype=torch.int64)
        for samples in (Samples(features, *maps), Samples(features, *maps, filled)):
            tau.fit(start, samples, width=width, reg=0.1, iterations=tracker.update_iterations)
    assert set(compiled) == kernels_of(products, descent)
    check_all(compiled, architecture)


@pytest.mark.gpu
@pytest.mark.parametrize("network", MODELS)
@pytest.mark.parametrize(("rounded", "tolerance"), [(False, 1e-4), (True, 1e-2)])
def test_a_gpu_takes_the_plain_learners_steps(
    network: str, rounded: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    shape, tracker = MODELS[network]
    height, width = (side // 16 for side in tracker.crop_size)
    torch.manual_seed(0)
    features = torch.randn(8, shape.feature_dim, height, width, device="cuda")
    labels, weights = (torch.rand(8, shape.num_filters, height, width, device="cuda") for _ in range(2))
    start = 0.1 * torch.randn(1, shape.num_filters, shape.feature_dim, 3, 3, device="cuda")
    pixels = border(features, 3).transpose(1, 2).contiguous()
    assert learner._kernels_for(start, pixels) is not None
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", rounded)
    scores = learner.scores_of(pixels, start, width)
    maps = (border(labels, 3), border(weights, 3), scores)
    found = [learner.fit(start, Samples(pixels, *maps), width=width, reg=0.1, iterations=3) for _ in range(2)]
    assert all(torch.equal(mine, again) for mine, again in zip(*found, strict=True))
    tau = found[0][0]
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(learner, "kernels_for", lambda name, device: None)
    plain, _ = learner.fit(start, Samples(pixels, *maps), width=width, reg=0.1, iterations=3)
    assert (tau - plain).norm() <= tolerance * plain.norm()


def test_other_filters_are_left_to_pytorch() -> None:
    kernels = pytest.importorskip("rts_batch.model.fast.kernels.tau", reason="Triton is not installed")
    features = torch.zeros(2, 35, 16)
    assert kernels.takes(torch.zeros(1, 16, 16, 3, 3), features)
    assert not kernels.takes(torch.zeros(1, 17, 16, 3, 3), features)
    assert not kernels.takes(torch.zeros(1, 16, 16, 5, 5), features)
    assert not kernels.takes(torch.zeros(1, 16, 16, 3, 3), features.transpose(0, 1))
    assert not kernels.takes(torch.zeros(1, 16, 16, 3, 3), features.half())


if __name__ == "__main__":
    compare_empty(sys.argv[1]) if "empty" in sys.argv else compare(sys.argv[1])
