"""Settings that make a tracker quick enough for tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rts_batch.config import TRACKER_RTS_MINI
from rts_batch.model.fast import networks
from rts_batch.model.rts import RTS
from rts_batch.weights.registry import build_model, load_weights

SMALL = replace(
    TRACKER_RTS_MINI,
    crop_size=(96, 160),
    not_found_threshold=0.0,
    init_iterations=8,
    dense_frames=20,
    train_interval=4,
    memory_size=12,
    localisation_memory_size=8,
)


def as_on_a_gpu(device: str = "cpu") -> RTS:
    """Return `rts-mini` as a GPU runs it, without OpenVINO, which would be made ready anew for each crop and batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.compiled, "is_available", lambda: False)
        return networks.fast(build_model(load_weights("rts-mini"), device))
