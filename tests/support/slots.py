"""A slot of zeros, for steps of which no network is needed, beside another in a network of two places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rts_batch.config import ModelConfig, TrackerConfig
from rts_batch.tracking.branches import LocalisationBranch, SegmentationBranch
from rts_batch.tracking.gpu.network import Slot
from rts_batch.tracking.gpu.steps import Branches


def slot_and_branches(
    config: ModelConfig, tracker_config: TrackerConfig, *, crop_size: tuple[int, int] | None = None, device: str = "cpu"
) -> tuple[Any, Branches]:
    """A slot for a network's shapes, and branches with a first sample in their memories."""
    height, width = crop_size or tracker_config.crop_size
    if crop_size is not None:
        tracker_config = SimpleNamespace(**{**vars(tracker_config), "crop_size": crop_size})  # type: ignore[assignment]
    cells = (height // 16, width // 16)
    coarse = (-(-cells[0] // 2), -(-cells[1] // 2))
    channels, filters, kernel = config.feature_dim, config.num_filters, config.target_filter_size

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, device=device)

    score_map = (1, coarse[0] + 1, coarse[1] + 1)
    encoded = zeros(2, 1, filters, *cells)
    model = SimpleNamespace(config=config, label_encoder=lambda masks: (encoded, encoded))
    inputs = (
        zeros(2, 3, height, width),
        zeros(2, height, width),
        zeros(2, filters, channels, kernel, kernel),
        zeros(2, 1, channels, config.localisation_filter_size, config.localisation_filter_size),
    )
    outputs = (
        zeros(2, channels, *cells),
        zeros(2, channels, *coarse),
        zeros(2, *score_map[1:]),
        zeros(2, height, width),
    )
    owner = SimpleNamespace(
        model=model,
        config=tracker_config,
        device=torch.device(device),
        engine=SimpleNamespace(pool=None),
        at_once=2,
        inputs=inputs,
        outputs=outputs,
        captured=lambda function: function,
    )
    slot = Slot(owner)  # type: ignore[arg-type]
    branches = Branches(SegmentationBranch(model, tracker_config), LocalisationBranch(model, tracker_config))  # type: ignore[arg-type]
    pixels = (cells[0] + 2) * (cells[1] + 2)
    maps = {"labels": zeros(1, filters, pixels), "weights": zeros(1, filters, pixels)}
    branches.segmentation.memory.start({"features": zeros(1, pixels, channels), **maps})
    branches.localisation.memory.start({"features": zeros(1, channels, *coarse), "labels": zeros(*score_map)})
    return slot, branches
