"""Triton's kernels are taken on a GPU that runs them, and nowhere else."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from rts_batch.model.fast.launchable import kernels_for


@pytest.mark.parametrize("trouble", [RuntimeError("Failed to find C compiler"), None])
def test_kernels_are_taken_where_one_can_be_launched(trouble: Exception | None, monkeypatch, caplog) -> None:
    def try_launch(device: torch.device) -> None:
        if trouble is not None:
            raise trouble

    kernels = types.ModuleType("tau")
    kernels.try_launch = try_launch
    monkeypatch.setitem(sys.modules, "rts_batch.model.fast.kernels.tau", kernels)
    kernels_for.cache_clear()
    try:
        chosen = kernels_for("tau", torch.device("cuda"))
        assert kernels_for("tau", torch.device("cpu")) is None
    finally:
        kernels_for.cache_clear()
    assert chosen is (None if trouble else kernels)
    assert ("C compiler" in caplog.text) is (trouble is not None)
