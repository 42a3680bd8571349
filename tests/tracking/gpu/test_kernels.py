"""Each Triton kernel of the tracker compiles for GPUs, as it is launched; the interpreter says nothing of that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rts_batch.config import MODELS
from rts_batch.tracking.branches import LocalisationBranch, SegmentationBranch
from rts_batch.tracking.gpu.steps import Branches
from tests.support.offline import check, compiled_only, kernels_of, modules_of

IMAGE = (480, 854)


@pytest.mark.long
@pytest.mark.parametrize("network", MODELS)
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_kernel_compiles_as_it_is_launched(
    network: str, architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.tracking.gpu import kernels
        from rts_batch.tracking.gpu.kernels.steps import KernelSteps

        steps = KernelSteps(*slot_and_branches(network), IMAGE)
        steps._remember()
        steps._look()
        steps._judge()
        sample = {name: torch.zeros_like(values[0]) for name, values in steps.segmentation.slots.items()}
        steps.segmentation.insert(sample, steps.gate)
        steps.localisation.insert({"features": steps.x_c, "labels": steps.label}, steps.gate)
    assert set(compiled) == kernels_of(*modules_of(kernels))
    for launches in compiled.values():
        for kernel in launches:
            check(kernel, architecture)


def slot_and_branches(network: str) -> tuple[Any, Branches]:
    """A slot of zeros for a network's shapes, and branches with a first sample in their memories."""
    config, tracker_config = MODELS[network]
    height, width = tracker_config.crop_size
    cells = (height // 16, width // 16)
    channels, filters, kernel = config.feature_dim, config.num_filters, config.target_filter_size
    coarse = (height // 32, width // 32)
    score_map = (1, coarse[0] + 1, coarse[1] + 1)
    model = SimpleNamespace(config=config)
    owner = SimpleNamespace(
        model=model, config=tracker_config, device=torch.device("cpu"), engine=SimpleNamespace(pool=None)
    )
    slot = SimpleNamespace(
        network=owner,
        crops=torch.zeros(1, 3, height, width),
        previous_masks=torch.zeros(1, height, width),
        tau=torch.zeros(1, filters, channels, kernel, kernel),
        kappa=torch.zeros(1, 1, channels, config.localisation_filter_size, config.localisation_filter_size),
        segmentation_features=torch.zeros(1, channels, *cells),
        localisation_features=torch.zeros(1, channels, *coarse),
        score_maps=torch.zeros(score_map),
        logits=torch.zeros(1, height, width),
        segmentation=None,
        localisation=None,
    )
    branches = Branches(SegmentationBranch(model, tracker_config), LocalisationBranch(model, tracker_config))  # type: ignore[arg-type]
    pixels = (cells[0] + 2) * (cells[1] + 2)
    maps = {"labels": torch.zeros(1, filters, pixels), "weights": torch.zeros(1, filters, pixels)}
    branches.segmentation.memory.start({"features": torch.zeros(1, pixels, channels), **maps})
    branches.localisation.memory.start(
        {"features": torch.zeros(1, channels, *coarse), "labels": torch.zeros(score_map)}
    )
    return slot, branches
