"""The tracker against tracks of the published implementation: flags, memory slots and weights, boxes and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rts_batch.config import RTS50, TRACKER_RTS50, StaConfig
from rts_batch.masks import Marking
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.branches import SegmentationBranch
from rts_batch.tracking.fast import FastSegmentationBranch
from rts_batch.tracking.scene import Scene
from rts_batch.tracking.tracker import Tracker
from tests.support.parity_data import golden_fill, iou, load_golden, read_davis_mask, synthetic_frame
from tests.support.parity_tracks import (
    Synchronised,
    Track,
    flag_of,
    frames_of,
    network,
    read_track,
)

pytestmark = pytest.mark.networks

LIGHT = ("dog_loop", "lost_grey", "evict", "distractors2")
"""Tracks whose first frames are quick: they have small crops."""

HEAVY = (
    *("dog_full", "car_full", "edge_left", "edge_right_bottom", "huge", "large_1920x1080", "leave_return", "portrait"),
    *("score_edge", "size_333x187", "size_99x60", "small_320x240", "sta_beyond_right", "sta_inside", "tiny_11x13"),
    *("too_small", "wide"),
)

FREE = 4
"""Frames that run freely."""

FREE_IOU = {("dog_full", "fast"): 0.98}
"""Else 0.995. Of dog the features' rounding decides the sign of a score of ±2e-8 and so κ (see `started`), and κ one
pixel of frame 2's crop: some processors and numbers of threads give 1.0 there and others 0.984."""


@dataclass(frozen=True)
class Bounds:
    """What the masks of a whole track come to: the mean IoU, the least of some first frames and of the first 30."""

    mean: float = 0.99
    first: tuple[int, float] = (0, 0.0)
    thirty: float = 0.98


BOUNDS = {
    # Rounding grows here until the published implementation differs from itself on another number of threads.
    "dog_loop": Bounds(mean=0.93, first=(10, 0.99), thirty=0.85),
    # With the distractor thresholds on, a score that moves by rounding makes another flag.
    "distractors2": Bounds(mean=0.93, thirty=0.94),
}


def started(track: Track, *, plain: bool) -> Synchronised:
    """Returns a tracker after the track's first frame, which is held to the published start."""
    tracker, start = track.tracker(plain=plain), track.start
    prompted_mask, box = frames_of(track.folder).prompt(track.davis, track.spec)
    first = tracker.start(track.frame(0), mask=prompted_mask, box=tuple(box))
    state = tracker.state
    if prompted_mask is None:
        assert iou(first.mask, track.decode(start["mask_rle"])) >= 0.999
    assert float(state.target_scale) == start["target_scale"], "bit for bit (spec rts-tracker §14)"
    assert state.position.tolist() == start["pos"]
    assert state.base_target_size.tolist() == start["base_target_sz"]
    assert (state.lost_mask, state.mask_too_small) == (start["lost_seg"], start["seg_too_small"])
    # κ's residual has a corner where a score is zero. Of dog one score is ±2e-8 in the ninth iteration, the order of
    # the fast tracker's sums decides its sign, and κ moves by 9e-5. Else it agrees to 2e-5.
    assert float(tracker.localisation.kappa.norm()) == pytest.approx(start["kappa_norm"], rel=1e-4)
    assert float(tracker.segmentation.tau.norm()) == pytest.approx(start["tau_norm"], rel=1e-5)
    return tracker


def assert_memories(tracker: Tracker, row: dict[str, Any], where: str) -> None:
    segmentation, localisation = tracker.segmentation.memory, tracker.localisation.memory
    assert segmentation.count == row["seg_stored"], where
    assert localisation.count == min(row["clf_stored"], localisation.capacity), where
    assert segmentation.last_slot == row["seg_replaced"], where
    assert localisation.last_slot == row["clf_replaced"], where
    np.testing.assert_allclose(segmentation.weights.numpy(), row["seg_w"], atol=1e-5, err_msg=where)
    np.testing.assert_allclose(localisation.weights.numpy(), row["clf_w"], atol=1e-5, err_msg=where)


def follow(tracker: Synchronised, track: Track, steps: int) -> list[float]:
    """Runs beside the track and returns the masks' IoUs."""
    overlaps = []
    fast = isinstance(tracker.segmentation, FastSegmentationBranch)
    least = FREE_IOU.get((track.spec["name"], "fast" if fast else "plain"), 0.995)
    for step in range(1, steps + 1):
        row, where = track.rows[step], f"{track.spec['name']} frame {step}"
        tracker.row, tracker.free = row, step <= FREE
        tracker.kappa_before = track.rows[step - 1]["kappa_norm"] if step > FREE and track.is_grey(step) else None
        result = tracker.step(track.frame(step))
        if "rle" not in row:
            continue
        overlap = iou(result.mask, track.decode(row["rle"]))
        if step <= FREE:
            assert overlap >= least, where
            assert result.score == pytest.approx(row["max_score"], abs=0.005), where
            assert np.abs(np.array(result.box) - row["bbox"]).max() <= 1, where
            assert result.area == result.mask.sum(), where
        assert (flag_of(tracker) == "not_found") == (row["flag"] == "not_found"), where
        assert (tracker.state.lost_mask, tracker.state.mask_too_small) == (row["lost_seg"], row["seg_too_small"]), where
        assert_memories(tracker, row, where)
        overlaps.append(overlap)
    return overlaps


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "fast"])
@pytest.mark.parametrize("name", LIGHT)
def test_first_frames_equal_the_published_track(
    name: str, plain: bool, parity_folder: Path, davis_folder: Path
) -> None:
    track = read_track(name, parity_folder, davis_folder)
    follow(started(track, plain=plain), track, min(FREE, len(track.rows)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("plain", "threads"), [(True, 1), (False, 2)], ids=["plain, 1 thread", "fast, 2 threads"])
@pytest.mark.parametrize("name", [*LIGHT, *HEAVY])
def test_whole_tracks_equal_the_published_ones(
    name: str, plain: bool, threads: int, parity_folder: Path, davis_folder: Path, on_threads: Callable[[int], None]
) -> None:
    on_threads(threads)
    track, bounds = read_track(name, parity_folder, davis_folder), BOUNDS.get(name, Bounds())
    overlaps = follow(started(track, plain=plain), track, len(track.rows))
    assert np.mean(overlaps) >= bounds.mean
    assert min(overlaps[:30]) >= bounds.thirty
    count, least = bounds.first
    assert min(overlaps[:count], default=1.0) >= least


@pytest.fixture
def on_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        pytest.param("multi_cows", False, id="multi_cows-fast"),
        pytest.param("multi_later", False, marks=pytest.mark.slow, id="multi_later-fast"),
        pytest.param("multi_later", True, marks=pytest.mark.slow, id="multi_later-plain"),
    ],
)
def test_several_targets_equal_the_published_track(
    name: str, plain: bool, parity_folder: Path, davis_folder: Path
) -> None:
    track = read_track(name, parity_folder, davis_folder)
    spec = track.spec
    kind = partial(Synchronised, segmentation=SegmentationBranch if plain else FastSegmentationBranch)
    scene = Scene(network(parity_folder, plain=plain), track.config(), single=False, tracker=kind)
    annotation = read_davis_mask(davis_folder, spec["seq"], 0)
    masks = {
        name: annotation if name == "1" else frames_of(parity_folder).rectangle((480, 854), spec["boxes"][name])
        for name in spec["appear"]
    }
    if spec["appear"]["2"] == 0:
        masks["2"] &= ~annotation
    boxes = spec.get("prompt_boxes", spec["boxes"])
    later = []
    for place, row in enumerate(track.rows.values()):
        prompts = {
            int(name): Marking(masks[name], tuple(map(float, boxes[name])))
            for name, appears in spec["appear"].items()
            if appears == place
        }
        for name, tracker in scene.trackers.items():
            tracker.row, tracker.free = row["objects"][str(name)], place <= FREE
        results = scene.step(track.frame(place), prompts)
        assert sorted(map(str, results)) == sorted(row["objects"])
        for name, theirs in row["objects"].items():
            ours, where = results[int(name)], f"target {name} frame {place}"
            overlap = iou(ours.mask, track.decode(theirs["rle"]))
            if place <= FREE and theirs["area"] > 1000:
                assert overlap >= 0.99, where
            if place <= FREE and "flag" in theirs:
                assert flag_of(scene.trackers[int(name)]) == theirs["flag"], where
                assert ours.score == pytest.approx(theirs["max_score"], abs=0.01), where
            if theirs["area"] == 0:
                assert (ours.box is None) == (ours.area == 0)
            if place > FREE and name == "1":
                later.append(overlap)
    assert np.mean(later) >= 0.9


@pytest.mark.parametrize(
    "run", ["mask", *(pytest.param(name, marks=pytest.mark.slow) for name in ("box", "mask_thr0.05"))]
)
def test_tracker_equals_the_golden_numbers(run: str) -> None:
    rows = load_golden()["tracker"][run]
    model = RTS(RTS50)
    model.load_state_dict(golden_fill("rts50"))
    sta = STA(StaConfig())
    sta.load_state_dict(golden_fill("sta"))
    threshold = 0.05 if run == "mask_thr0.05" else 0.30
    config = replace(TRACKER_RTS50, not_found_threshold=threshold)
    tracker = Synchronised(model.requires_grad_(False), config, sta=sta)
    frame, mask = synthetic_frame(240, 320, 0)
    first = rows[0]
    assert int(mask.sum()) == first["mask_sum"]
    box = tuple(map(float, first["init_bbox"]))
    result = tracker.start(frame, box=box) if run == "box" else tracker.start(frame, mask=mask)
    assert result.area == pytest.approx(first["init_mask_used_sum"], abs=3)
    assert float(tracker.state.target_scale) == pytest.approx(first["target_scale"], rel=1e-6)
    assert_filters(tracker, first)
    for row in rows[1:]:
        tracker.row = row
        result = tracker.step(synthetic_frame(240, 320, row["frame"] - 1)[0])
        state, where = tracker.state, f"{run} frame {row['frame']}"
        assert max(tracker.apart.values()) <= 1e-4, where
        corners = [*state.region.top_left.flip(0).tolist(), *state.region.bottom_right.flip(0).tolist()]
        x0, y0, w, h = row["clf_search_area"]
        assert corners == [x0, y0, x0 + w + 1, y0 + h + 1], where
        assert result.score == pytest.approx(row["clf_max_score"], rel=1e-3), where
        assert flag_of(tracker) == row["flag"], where
        assert list(result.box) == pytest.approx(row["target_bbox"], abs=1), where
        assert result.area == pytest.approx(row["mask_pixels"], rel=1e-3), where
        assert float(state.probabilities.sum()) == pytest.approx(row["prob_sum"], rel=1e-3), where
        assert state.lost_mask == row["is_lost_seg"], where
        assert state.mask_too_small == row["seg_too_small"], where
        segmentation, localisation = tracker.segmentation.memory, tracker.localisation.memory
        for memory, key in ((segmentation, "seg_weights"), (localisation, "clf_weights")):
            np.testing.assert_allclose(memory.weights[: len(row[key])].numpy(), row[key], atol=2e-6)
        assert_filters(tracker, row)


def assert_filters(tracker: Tracker, row: dict[str, Any]) -> None:
    assert float(tracker.segmentation.tau.abs().mean()) == pytest.approx(row["seg_filter_abs_mean"], rel=1e-3)
    assert float(tracker.localisation.kappa.abs().mean()) == pytest.approx(row["clf_filter_abs_mean"], rel=1e-3)
