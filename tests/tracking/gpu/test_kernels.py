"""Each Triton kernel of the tracker compiles for GPUs, as it is launched; the interpreter says nothing of that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rts_batch.config import MODELS
from tests.support.offline import ARCHITECTURES, check_all, compiled_only, kernels_of, modules_of
from tests.support.slots import slot_and_branches

IMAGE = (480, 854)


@pytest.mark.long
@pytest.mark.parametrize("network", MODELS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_as_it_is_launched(
    network: str, architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.tracking.gpu import kernels
        from rts_batch.tracking.gpu.kernels.steps import KernelSteps

        steps = KernelSteps(*slot_and_branches(*MODELS[network]), IMAGE)
        steps._remember()
        steps._look()
        steps._judge()
        steps._measure()
        sample = {name: torch.zeros_like(values[0]) for name, values in steps.segmentation.slots.items()}
        steps.segmentation.insert(sample, steps.gate)
        steps.localisation.insert({"features": steps.x_c, "labels": steps.label}, steps.gate)
    assert set(compiled) == kernels_of(*modules_of(kernels))
    check_all(compiled, architecture)
