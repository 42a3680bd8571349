"""The tracker's parts and rules, on small inputs and with the specification's own values."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from rts_batch.config import RTS_MINI, TRACKER_RTS50, TRACKER_RTS_MINI, TrackerConfig
from rts_batch.errors import CheckpointError, PromptError
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.model.rts import RTS
from rts_batch.tracking.first_frame import gaussian_blur
from rts_batch.tracking.gpu.region import Grid
from rts_batch.tracking.gpu.region import place_region as place_region_on_device
from rts_batch.tracking.localisation import localise
from rts_batch.tracking.memory import SampleMemory
from rts_batch.tracking.motion import moments
from rts_batch.tracking.region import paste_scores, place_region, sample_image, sample_mask
from rts_batch.tracking.scene import Scene, soft_aggregation
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.registry import build_model, load_weights
from tests.support.parity_data import iou, synthetic_frame

CROP = (480, 832)

# Spec rts-tracker §2: image size, position, scale, border → corners (tl_y, tl_x, br_y, br_x), position, scale.
REGIONS = [
    ((720, 1280), (300.7, 600.2), 0.5, "inside_major", (180.5, 392.5, 421, 809), (300.25, 600.25), 0.500821),
    ((720, 1280), (300.7, 600.2), 1.3, "inside_major", (0, 60, 624.5, 1141.5), (311.75, 600.25), 1.300461),
    ((720, 1280), (300.7, 600.2), 1.5, "inside_major", (0, 0, 720.5, 1248.5), (359.75, 623.75), 1.500821),
    ((720, 1280), (300.7, 600.2), 2.5, "inside_major", (-9, 0, 729.5, 1280.5), (359.75, 639.75), 1.538802),
    ((720, 1280), (10, 20), 0.5, "inside_major", (0, 0, 240.5, 416.5), (119.75, 207.75), 0.500821),
    ((720, 1280), (700, 1270), 0.5, "inside_major", (479.5, 863.5, 720, 1280), (599.25, 1071.25), 0.500821),
    ((360, 640), (180, 340), 0.9, "inside_major", (-4, -0.5, 365.5, 640), (180.25, 319.25), 0.769812),
    ((360, 640), (180, 340), 0.6674, "inside_major", (20.5, 63, 341, 618.5), (180.25, 340.25), 0.667688),
    ((360, 640), (10, 20), 0.6674, "replicate", (-149.5, -257, 171, 298.5), (10.25, 20.25), 0.667688),
    ((1080, 1920), (500, 900), 3.2, "replicate", (-268.5, -429, 1269, 2233.5), (499.75, 901.75), 3.201622),
    ((640, 480), (300, 200), 1.2, "inside_major", (12.5, -259, 589, 739.5), (300.25, 239.75), 1.200581),
    ((640, 480), (300, 200), 3.0, "inside_major", (0, -314, 640.5, 795.5), (319.75, 240.25), 1.333954),
]


@pytest.mark.parametrize(("size", "position", "scale", "border", "corners", "centre", "sample_scale"), REGIONS)
def test_search_region_lies_where_the_specification_says(
    size, position, scale, border, corners, centre, sample_scale
) -> None:
    extent = torch.tensor(scale) * torch.tensor(CROP, dtype=torch.float32)
    region = place_region(torch.tensor(position, dtype=torch.float32), extent, size, CROP, border)
    assert [*region.top_left.tolist(), *region.bottom_right.tolist()] == list(corners)
    assert region.position.tolist() == list(centre)
    assert float(region.scale) == pytest.approx(sample_scale, abs=1e-6)
    assert int(region.rows.min()) >= 0
    assert int(region.rows.max()) < size[0]


@pytest.mark.parametrize(("size", "stride"), [(31.0, 2), (32.0, 3), (41.0, 3), (20.0, 1), (5.0, 1)])
def test_the_stride_of_a_large_region_is_rounded_in_double(size: float, stride: int) -> None:
    # 3.1 as a float32 is less than 3.1, and 3.1 − 0.1 in float32 is 3 (spec rts-tracker §14).
    region = place_region(torch.tensor([50.0, 50.0]), torch.tensor([size, size]), (100, 100), (10, 10), "replicate")
    assert int(region.rows[3] - region.rows[2]) == stride
    grid = Grid((10, 10), (100, 100), torch.device("cpu"))
    assert place_region_on_device(torch.tensor([50.0, 50.0]), torch.tensor([size, size]), grid).stride[0] == stride


def test_crop_repeats_edges_of_images_and_zeroes_masks() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, :, 0] = 200
    region = place_region(torch.tensor([20.0, 5.0]), torch.tensor([40.0, 40.0]), (40, 60), (32, 32), "replicate")
    crop = sample_image(image, region)
    assert crop.shape == (1, 3, 32, 32)
    assert float(crop[..., :8].min()) == 200
    mask = sample_mask(torch.ones(40, 60), region)
    assert mask.shape == (32, 32)
    assert mask[16, 0] == 0
    assert mask[16, -1] == 1


def test_scores_return_to_where_their_crop_came_from() -> None:
    region = place_region(torch.tensor([50.0, 80.0]), torch.tensor([64.0, 64.0]), (100, 160), (64, 64))
    logits = torch.full((64, 64), -5.0)
    logits[32 - 8 : 32 + 8, 32 - 8 : 32 + 8] = 5.0
    scores, (y0, x0, y1, x1) = paste_scores(logits, region, (100, 160))
    rows, columns = (scores > 0).any(1).nonzero().flatten(), (scores > 0).any(0).nonzero().flatten()
    assert abs(float(rows.float().mean()) - 50) <= 1
    assert abs(float(columns.float().mean()) - 80) <= 1
    outside = torch.ones_like(scores, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    assert bool((scores[outside] == -100).all())
    assert bool((scores[~outside] > -100).all())


def test_memory_weights_follow_the_published_sequence() -> None:
    memory = SampleMemory(32, 0.1, minimum_initial_weight=0.25)
    memory.start({"x": torch.zeros(1, 2)})
    first_weight, slots = {}, []
    for update in range(1, 36):
        slots.append(memory.insert({"x": torch.full((2,), float(update))}))
        first_weight[update] = float(memory.weights[0])
    expected = {1: 0.9174, 2: 0.8403, 10: 0.3979, 14: 0.2680, 15: 0.2500, 31: 0.2500}
    for update, weight in expected.items():
        assert first_weight[update] == pytest.approx(weight, abs=5e-5)
    assert slots == [*range(1, 32), 1, 2, 3, 4]
    assert memory.stored("x")[1, 0] == 32
    assert memory.stored("x")[0, 0] == 0


def test_instance_memory_forgets_its_first_samples_when_the_specification_says() -> None:
    memory = SampleMemory(50, 0.01)
    memory.start({"x": torch.zeros(5, 1)})
    evicted = {}
    for update in range(1, 352):
        slot = memory.insert({"x": torch.ones(1)})
        if update == 1:
            assert memory.weights[:6].tolist() == pytest.approx([0.198039] * 5 + [0.009803], abs=1e-6)
        if slot < 5:
            evicted[slot] = update
    assert sorted(evicted.values()) == [346, 347, 348, 349, 350]


def test_paper_memory_keeps_the_first_samples_and_replaces_the_oldest() -> None:
    memory = SampleMemory(8, 0.3, replacement="oldest", protect_initial=True)
    memory.start({"x": torch.zeros(5, 1)})
    assert [memory.insert({"x": torch.ones(1)}) for _ in range(8)] == [5, 6, 7, 5, 6, 7, 5, 6]


def test_moments_of_a_uniform_block() -> None:
    probabilities = torch.zeros(100, 120)
    probabilities[30:50, 40:80] = 1
    found = moments(probabilities)
    assert found is not None
    assert found[0].tolist() == pytest.approx([39.5, 59.5])
    assert found[1].tolist() == pytest.approx([23.065, 46.174], abs=1e-3)
    assert moments(torch.zeros(10, 10)) is None
    one_row = torch.zeros(10, 10)
    one_row[3] = 1
    assert moments(one_row) is None


def test_blur_darkens_the_border_as_published() -> None:
    blurred = gaussian_blur(torch.full((1, 3, 40, 40), 100.0), (3.0, 1.0))
    assert float(blurred[0, 0, 0, 0]) == pytest.approx(39.87, abs=0.005)
    assert float(blurred[0, 0, 20, 20]) == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "probabilities"),
    [
        ((2, -1), (0.012157, 0.940993, 0.046849)),
        ((0.5,), (0.268941, 0.731059)),
        ((-4, -3), (0.995322, 0.001258, 0.003420)),
    ],
)
def test_soft_aggregation_has_the_published_values(scores, probabilities) -> None:
    labels, merged = soft_aggregation(torch.tensor(scores, dtype=torch.float32).view(-1, 1, 1))
    assert merged.flatten().tolist() == pytest.approx(probabilities[1:], abs=1e-6)
    assert int(labels) == int(np.argmax(probabilities))


def localised(peaks: dict[tuple[int, int], float], config: TrackerConfig):
    score_map = torch.zeros(16, 27)
    for place, value in peaks.items():
        score_map[place] = value
    region = place_region(torch.tensor([240.0, 416.0]), torch.tensor([480.0, 832.0]), (480, 832), CROP)
    return localise(score_map, region, torch.tensor([240.0, 416.0]), torch.tensor([80.0, 80.0]), config)


def test_localisation_finds_the_peak_and_its_displacement() -> None:
    found = localised({(10, 15): 0.8}, TRACKER_RTS50)
    assert found.flag == "normal"
    assert found.score == pytest.approx(0.8)
    # (10, 15) less the centre (7.5, 13), times 32 pixels a cell, times a scale of nearly one
    assert found.displacement.tolist() == pytest.approx([80.0, 64.0], rel=2e-3)
    assert localised({(10, 15): 0.29}, TRACKER_RTS50).flag == "not_found"


def test_a_second_peak_counts_only_where_its_threshold_lets_it() -> None:
    two = {(8, 13): 0.8, (3, 3): 0.7}
    assert localised(two, TRACKER_RTS50).flag == "normal"
    assert localised(two, replace(TRACKER_RTS50, hard_negative_threshold=0.5)).flag == "hard_negative"
    assert localised({(8, 13): 0.8, (8, 14): 0.7}, replace(TRACKER_RTS50, hard_negative_threshold=0.5)).flag == "normal"
    distractor = localised({(3, 3): 0.8, (8, 13): 0.7}, replace(TRACKER_RTS50, distractor_threshold=0.5))
    assert distractor.flag == "hard_negative"
    assert distractor.displacement.norm() < 32


# ---- whole trackers, on the small network --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini() -> RTS:
    return build_model(load_weights("rts-mini-untrained"), torch.device("cpu"))


SMALL = replace(TRACKER_RTS_MINI, crop_size=(96, 160), not_found_threshold=0.0, init_iterations=5, initial_warps=())


def clip(count: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    return [synthetic_frame(height, width, t)[0] for t in range(count)]


def assert_equal(first: TrackedFrame, second: TrackedFrame) -> None:
    np.testing.assert_array_equal(first.mask, second.mask)
    for name in ("region", "box", "area", "score", "confidence", "state"):
        assert getattr(first, name) == getattr(second, name), name


def test_tracked_frames_agree_with_themselves(mini: RTS) -> None:
    frames = clip(8)
    tracker = Tracker(mini, SMALL)
    first = tracker.start(frames[0], mask=synthetic_frame(96, 128, 0)[1])
    assert first.state == "prompt"
    assert first.score is None
    np.testing.assert_array_equal(first.mask, synthetic_frame(96, 128, 0)[1])
    for frame in frames[1:]:
        result = tracker.step(frame)
        assert result.mask.shape == frame.shape[:2]
        assert result.area == result.mask.sum()
        y0, x0, y1, x1 = result.region
        outside = result.mask.copy()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()
        assert result.score is not None
        if result.area:
            assert result.confidence is not None
            assert 0.5 <= result.confidence <= 1
        assert result.state in ("tracked", "uncertain", "mask_lost", "lost")


@pytest.mark.parametrize("rules", ["code", "paper"])
@pytest.mark.long
def test_a_restored_tracker_goes_on_bit_for_bit(mini: RTS, rules) -> None:
    config = replace(SMALL, rules=rules, memory_size=6, localisation_memory_size=7)
    frames = clip(14)
    tracker = Tracker(mini, config)
    tracker.start(frames[0], mask=synthetic_frame(96, 128, 0)[1])
    for frame in frames[1:8]:
        tracker.step(frame)
    snapshot = tracker.snapshot()
    expected = [tracker.step(frame) for frame in frames[8:]]
    fresh = Tracker(mini, config)
    fresh.restore(snapshot)
    for ours, theirs in zip([fresh.step(frame) for frame in frames[8:]], expected, strict=True):
        assert_equal(ours, theirs)
    # The snapshot is untouched by the steps after it and serves again.
    tracker.restore(snapshot)
    assert_equal(tracker.step(frames[8]), expected[0])


@pytest.mark.long
def test_a_restored_scene_goes_on_bit_for_bit(mini: RTS) -> None:
    frames = clip(10)
    second = np.zeros((96, 128), bool)
    second[10:30, 10:40] = True
    scene = Scene(mini, SMALL, single=False)
    scene.step(frames[0], {3: Marking(mask=synthetic_frame(96, 128, 0)[1])})
    scene.step(frames[1])
    results = scene.step(frames[2], {1: Marking(mask=second)})
    assert list(results) == [1, 3]
    assert results[1].state == "prompt"
    np.testing.assert_array_equal(results[1].mask, second)
    assert not (results[1].mask & results[3].mask).any()
    scene.step(frames[3])
    snapshot = scene.snapshot()
    expected = [scene.step(frame) for frame in frames[4:]]
    fresh = Scene(mini, SMALL, single=False)
    fresh.restore(snapshot)
    for frame, theirs in zip(frames[4:], expected, strict=True):
        ours = fresh.step(frame)
        assert list(ours) == list(theirs) == [1, 3]
        for object_id in ours:
            assert_equal(ours[object_id], theirs[object_id])
        assert not (ours[1].mask & ours[3].mask).any()


@pytest.mark.parametrize("single", [True, False])
def test_a_corrected_scene_goes_on_bit_for_bit(mini: RTS, single: bool) -> None:
    frames = clip(9)
    moved = np.roll(synthetic_frame(96, 128, 3)[1], 20, axis=1)
    scene = Scene(mini, SMALL, single=single)
    scene.step(frames[0], {1: Marking(mask=synthetic_frame(96, 128, 0)[1])})
    for frame in frames[1:3]:
        scene.step(frame)
    corrected = scene.step(frames[3], {1: Marking(mask=moved)})[1]
    assert corrected.state == "prompt"
    np.testing.assert_array_equal(corrected.mask, moved)
    assert scene.trackers[1].state.frame_number == 4
    rows, columns = np.nonzero(moved)
    place = scene.trackers[1].state.position.tolist()
    assert place == pytest.approx([(rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2])
    snapshot = scene.snapshot()
    expected = [scene.step(frame)[1] for frame in frames[4:]]
    fresh = Scene(mini, SMALL, single=single)
    fresh.restore(snapshot)
    for frame, theirs in zip(frames[4:], expected, strict=True):
        assert_equal(fresh.step(frame)[1], theirs)


def test_a_further_prompt_stays_in_memory_and_what_was_tracked_before_it_goes() -> None:
    memory = SampleMemory(8, 0.1, minimum_initial_weight=0.25)
    memory.start({"x": torch.zeros(2, 1)})
    for value in range(1, 10):
        memory.insert({"x": torch.full((1,), float(value))})
    memory.anchor({"x": torch.full((1,), 100.0)})
    assert memory.stored("x").flatten().tolist() == [0, 0, 100]
    assert memory.stored_weights.tolist() == [0.25, 0.25, 0.5]
    for value in range(1, 30):
        memory.insert({"x": torch.full((1,), float(value))})
    kept = memory.stored("x").flatten().tolist()
    assert kept[:3] == [0, 0, 100]
    assert sorted(kept[3:]) == [25, 26, 27, 28, 29]
    assert memory.weights[:3].tolist() == pytest.approx([0.0625, 0.0625, 0.125], rel=0.01)
    memory.anchor({"x": torch.full((1,), 200.0)})
    assert memory.stored("x").flatten().tolist() == [0, 0, 100, 200]
    assert memory.stored_weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])


def test_an_instance_memory_protects_its_anchors_only() -> None:
    memory = SampleMemory(8, 0.5)
    memory.start({"x": torch.zeros(2, 1)})
    memory.anchor({"x": torch.full((1,), 100.0)})
    for value in range(1, 30):
        memory.insert({"x": torch.full((1,), float(value))})
    kept = memory.stored("x").flatten().tolist()
    assert 0 not in kept
    assert kept[2] == 100
    memory.anchor({"x": torch.full((1,), 200.0)})
    assert memory.stored("x").flatten().tolist() == [100, 200]
    assert memory.stored_weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("capacity", [2, 6, 8])
def test_many_anchors_leave_room_for_other_samples(capacity: int) -> None:
    memory = SampleMemory(capacity, 0.1, minimum_initial_weight=0.25)
    memory.start({"x": torch.zeros(1, 1)})
    for value in range(1, 20):
        memory.anchor({"x": torch.full((1,), float(value))})
        stored = memory.stored("x").flatten().tolist()
        assert stored[0] == 0
        assert stored[-1] == value
        assert stored == sorted(stored)
        assert len(stored) <= max(capacity // 2 + 1, 2)
    memory.insert({"x": torch.full((1,), 20.0)})
    if capacity > 2:
        assert {0.0, 19.0, 20.0} <= set(memory.stored("x").flatten().tolist())


def test_restoring_rubbish_is_our_own_error(mini: RTS) -> None:
    scene, tracker = Scene(mini, SMALL, single=True), Tracker(mini, SMALL)
    for rubbish in ({}, {"single": True}, {"single": False, "targets": {}, "merged": {}}, {"state": 3}):
        content = io.BytesIO()
        torch.save(rubbish, content)
        with pytest.raises(CheckpointError, match="scene of"):
            scene.restore(content.getvalue())
        with pytest.raises(CheckpointError, match="the tracker's state cannot be read"):
            scene.restore(content.getvalue()[:-100])
        with pytest.raises(CheckpointError):
            tracker.restore(rubbish)


def test_a_state_from_before_the_published_roundings_is_gone_on_with_and_a_later_one_refused(mini: RTS) -> None:
    frames = clip(6)
    tracker = Tracker(mini, SMALL)
    tracker.start(frames[0], mask=synthetic_frame(96, 128, 0)[1])
    tracker.step(frames[1])
    snapshot = tracker.snapshot()
    before = {**snapshot, "state": {name: value for name, value in snapshot["state"].items() if name != "version"}}
    # That code's scale of a start could differ in the last place.
    before["state"]["target_scale"] = torch.nextafter(before["state"]["target_scale"], torch.tensor(9.0))
    gone_on = Tracker(mini, SMALL)
    gone_on.restore(before)
    for frame in frames[2:]:
        found, expected = gone_on.step(frame), tracker.step(frame)
        assert found.state == expected.state
        assert iou(found.mask, expected.mask) >= 0.99
    later = {**snapshot, "state": {**snapshot["state"], "version": 3}}
    with pytest.raises(CheckpointError, match="version 3, and this code goes on with 1 and 2; begin the video again"):
        gone_on.restore(later)


def test_prompts_that_do_not_fit_are_refused(mini: RTS) -> None:
    frame = clip(1)[0]
    tracker = Tracker(mini, SMALL)
    with pytest.raises(PromptError, match="the mask is 64×48, the frame 128×96"):
        tracker.start(frame, mask=np.ones((48, 64), bool))
    with pytest.raises(PromptError, match="empty"):
        tracker.start(frame, mask=np.zeros((96, 128), bool))
    with pytest.raises(PromptError, match="no box-to-mask network"):
        tracker.start(frame, box=(10, 10, 20, 20))
    with pytest.raises(PromptError, match="mask or a box"):
        tracker.start(frame)
    mask = synthetic_frame(96, 128, 0)[1]
    with pytest.raises(PromptError, match="outside the frame"):
        tracker.start(frame, mask=mask, box=(500, 10, 20, 20))
    tracker.start(frame, mask=mask)
    with pytest.raises(PromptError, match="sizes must not change"):
        tracker.step(np.zeros((50, 60, 3), np.uint8))
    scene = Scene(mini, SMALL, single=True)
    scene.step(frame, {1: Marking(mask=mask)})
    with pytest.raises(PromptError, match="one target only"):
        scene.step(frame, {2: Marking(mask=mask)})


def run(model: RTS, config: TrackerConfig, count: int) -> tuple[Tracker, list[TrackedFrame]]:
    tracker = Tracker(model, config)
    tracker.start(clip(1)[0], mask=synthetic_frame(96, 128, 0)[1])
    return tracker, [tracker.step(frame) for frame in clip(count)[1:]]


def test_without_conditioning_the_masks_do_not_depend_on_the_scores(mini: RTS) -> None:
    plain = replace(SMALL, update_target_model=False, localisation_fallback=False)
    without = replace(plain, localisation_conditioning=False)
    # A learner that never runs leaves κ at its start, so the score maps differ; only conditioning lets the mask see it.
    for config, same in ((plain, False), (without, True)):
        _, first = run(mini, config, 3)
        _, second = run(mini, replace(config, localisation_init_iterations=0), 3)
        assert first[0].score != second[0].score
        assert (first[0].confidence == second[0].confidence) is same


def test_the_fallback_decides_where_a_lost_target_is_searched(mini: RTS) -> None:
    # No mask is ever large enough, so only the localisation branch can move the search.
    lost = replace(SMALL, min_mask_area=1e9)
    with_fallback, _ = run(mini, lost, 4)
    without, results = run(mini, replace(lost, localisation_fallback=False), 4)
    assert without.state.position.tolist() == pytest.approx(run(mini, lost, 1)[0].state.position.tolist())
    assert with_fallback.state.position.tolist() != without.state.position.tolist()
    assert all(result.state in ("uncertain", "mask_lost", "lost") for result in results)


def test_paper_rules_store_and_train_on_the_papers_schedule(mini: RTS) -> None:
    config = replace(SMALL, dense_frames=4, train_interval=3, min_mask_area=0.0, not_found_threshold=0.0)
    stored = {}
    for rules in ("code", "paper"):
        tracker = Tracker(mini, replace(config, rules=rules))
        tracker.start(clip(1)[0], mask=synthetic_frame(96, 128, 0)[1])
        counts = []
        for frame in clip(11)[1:]:
            tracker.step(frame)
            counts.append(tracker.localisation.memory.count)
        stored[rules] = counts
    assert stored["code"] == [*range(6, 16)]
    # Frames 2 and 3 are dense; then every third frame after the last that was stored.
    assert stored["paper"] == [6, 7, 7, 7, 8, 8, 8, 9, 9, 9]


def test_settings_that_make_no_sense_are_refused() -> None:
    from rts_batch.errors import SettingsError

    for wrong in ({"crop_size": (100, 100)}, {"rules": "both"}, {"memory_size": 1}, {"not_found_threshold": -1}):
        with pytest.raises(SettingsError):
            TrackerConfig(**wrong)
    assert RTS_MINI.from_dict(RTS_MINI.to_dict()) == RTS_MINI
    with pytest.raises(SettingsError, match="no setting 'colour'"):
        TrackerConfig.from_dict({"colour": 1})
