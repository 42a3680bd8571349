"""Settings that make a tracker quick enough for tests."""

from __future__ import annotations

from dataclasses import replace

from rts_batch.config import TRACKER_RTS_MINI

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
