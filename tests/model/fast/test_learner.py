"""Who learns τ: Triton's kernels on a GPU that runs them. What is learned is tested beside the networks."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from rts_batch.model.fast import learner


@pytest.mark.parametrize("trouble", [RuntimeError("Failed to find C compiler"), None])
def test_kernels_learn_where_one_can_be_launched(trouble: Exception | None, monkeypatch, caplog) -> None:
    def try_launch(device: torch.device) -> None:
        if trouble is not None:
            raise trouble

    kernels = types.ModuleType("tau")
    kernels.try_launch = try_launch
    monkeypatch.setitem(sys.modules, "rts_batch.model.fast.kernels.tau", kernels)
    monkeypatch.delattr("rts_batch.model.fast.kernels.tau", raising=False)
    learner._kernels.cache_clear()
    try:
        chosen = learner._kernels(torch.device("cuda"))
    finally:
        learner._kernels.cache_clear()
    assert chosen is (None if trouble else kernels)
    assert ("C compiler" in caplog.text) is (trouble is not None)


def test_a_cpu_knows_nothing_of_them(monkeypatch) -> None:
    monkeypatch.setattr(learner, "_kernels", lambda device: 1 / 0)
    features, filters = torch.rand(2, 25, 16), torch.rand(1, 2, 16, 3, 3)
    assert learner.scores_of(features, filters, 3).shape == (2, 2, 25)
