"""A mask from a box, drawn anew by the tracker itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rts_batch.config import TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.first_frame import mask_within
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.registry import build_model, build_sta, load_weights
from tests.support.parity_data import iou, synthetic_frame

BOX = (30.0, 20.0, 70.0, 60.0)


@pytest.fixture(scope="module")
def networks() -> tuple[RTS, STA, TrackerConfig]:
    weights = load_weights("rts-mini")
    sta = build_sta(weights)
    assert sta is not None
    config = replace(weights.tracker_config, crop_size=(160, 272), init_iterations=5, initial_warps=())
    return build_model(weights), sta, config


def test_nothing_outside_a_box_belongs_to_its_mask() -> None:
    drawn = mask_within(torch.ones(8, 10), (2.9, -1.5, 3.9, 4.0))
    assert drawn.sum() == 9
    assert drawn[:3, 2:5].all()


@pytest.mark.long
@pytest.mark.parametrize("make", [Tracker, fast_tracker])
def test_a_refined_mask_is_the_boxs_mask_tracked_into_its_own_frame(networks, make) -> None:
    model, sta, config = networks
    frame = synthetic_frame(96, 128, 0)[0]
    plain = make(model, replace(config, box_refinements=0), sta=sta)
    first = plain.start(frame, box=BOX).mask
    x, y, w, h = (int(value) for value in BOX)
    inside = np.zeros_like(first)
    inside[y : y + h, x : x + w] = True
    expected = plain.step(frame).mask & inside
    assert expected.sum() > config.min_mask_area
    assert (expected != first).any()
    refined = make(model, replace(config, box_refinements=1), sta=sta)
    np.testing.assert_array_equal(refined.start(frame, box=BOX).mask, expected)


@pytest.mark.long
def test_the_trackers_of_devices_refine_alike(networks) -> None:
    model, sta, config = networks
    frame = synthetic_frame(96, 128, 0)[0]
    refining = replace(config, box_refinements=1)
    ours = GpuTracker(model, refining, sta=sta).start(frame, box=BOX).mask
    assert iou(ours, Tracker(model, refining, sta=sta).start(frame, box=BOX).mask) >= 0.99


@pytest.mark.long
def test_a_correction_with_a_box_keeps_what_was_learned(networks) -> None:
    model, sta, config = networks
    frames = [synthetic_frame(96, 128, number)[0] for number in range(4)]
    mask = synthetic_frame(96, 128, 0)[1]
    tracker = Tracker(model, replace(config, box_refinements=1), sta=sta)
    tracker.start(frames[0], mask=mask)
    tracker.step(frames[1])
    before = tracker.snapshot()
    corrected = tracker.correct(frames[2], box=BOX)
    after = tracker.step(frames[3])
    tracker.restore(before)
    tracker.correct(frames[2], mask=corrected.mask, box=BOX)
    np.testing.assert_array_equal(tracker.step(frames[3]).mask, after.mask)


@pytest.mark.long
def test_a_mask_too_small_to_be_tracked_stays_as_it_is(networks) -> None:
    model, sta, config = networks
    frame = synthetic_frame(96, 128, 0)[0]
    small = (30.0, 20.0, 9.0, 9.0)
    masks = [
        Tracker(model, replace(config, box_refinements=count), sta=sta).start(frame, box=small).mask for count in (0, 1)
    ]
    np.testing.assert_array_equal(*masks)
