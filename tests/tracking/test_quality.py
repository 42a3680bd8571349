"""What a mask tells of itself, and the estimate that is made of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rts_batch.config import QualityMap
from rts_batch.errors import SettingsError
from rts_batch.masks import Box, Marking, State, TrackedFrame
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.quality import INPUTS, History, estimated, expected_iou
from rts_batch.tracking.scene import Scene
from rts_batch.tracking.signals import Signal, signals_of
from rts_batch.weights.registry import build_model, default_quality, load_weights
from tests.support.trackers import SMALL
from tests.support.videos import Disc, draw

FRAMES = [(image, masks[0]) for image, masks in draw(14, (320, 240), (Disc(start=(0.4, 0.4), end=(0.6, 0.6)),))]


def logits_of(sharpness: float) -> torch.Tensor:
    """A disc of radius 20 pixels in the middle, `[96, 160]`."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij")
    return sharpness * (20 - torch.hypot(y - 48, x - 80))


def flat_map(threshold: float, bias: float = 0.0) -> QualityMap:
    """One that expects the same of every mask."""
    zeros, ones = (0.0,) * len(INPUTS), (1.0,) * len(INPUTS)
    return QualityMap(
        origin="a test",
        threshold=threshold,
        inputs=INPUTS,
        lowest=(-1e9,) * len(INPUTS),
        highest=(1e9,) * len(INPUTS),
        means=zeros,
        scales=ones,
        hidden=(zeros,),
        hidden_bias=(0.0,),
        output=(1.0,),
        output_bias=bias,
    )


def test_a_sharp_mask_agrees_more_with_its_probabilities_than_a_vague_one() -> None:
    score_map, features = torch.zeros(7, 11), torch.ones(4, 6, 10)
    score_map[3, 5] = 0.8
    sharp, vague, nothing = (
        signals_of(values, score_map, features) for values in (logits_of(3), logits_of(0.1), logits_of(1) - 99)
    )
    for signal in (Signal.SOFT_IOU, Signal.SOFTER_IOU, Signal.CONFIDENCE, Signal.STABLE_1, Signal.STABLE_3):
        assert 0 <= vague[signal] < sharp[signal] <= 1, signal
    assert sharp[Signal.UNSURE] < vague[Signal.UNSURE]
    # A disc is an ellipse, its centre is under the peak, and its area is known.
    assert sharp[Signal.COMPACT] == pytest.approx(1, abs=0.02)
    assert sharp[Signal.OFF_PEAK] < 0.1
    assert float(sharp[Signal.SIZE].exp()) == pytest.approx(np.pi * 400 / (96 * 160), rel=0.02)
    assert (float(sharp[Signal.PEAK]), float(sharp[Signal.SECOND])) == (pytest.approx(0.8), 0)
    assert torch.isnan(nothing[Signal.LIKE_PROMPT])  # which nobody has given
    assert torch.isfinite(nothing).sum() == len(nothing) - 1
    assert (nothing[Signal.EMPTY], sharp[Signal.EMPTY], nothing[Signal.SOFT_IOU]) == (1, 0, 0)
    assert sharp[Signal.LENGTH :].tolist() == pytest.approx([1.0] * 4, abs=1e-3)


@pytest.mark.parametrize(("cells", "places"), [((6, 10), (4, 6)), ((6, 10), (7, 11)), ((20, 35), (11, 19))])
def test_what_is_seen_at_the_peak_lies_under_it(cells: tuple[int, int], places: tuple[int, int]) -> None:
    """A score map has one place more a side than its branch's features, which are half as fine as these, or as fine."""
    (down, across), features = places, torch.ones(4, *cells)
    height, width = 16 * cells[0], 16 * cells[1]
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    for row, column in ((down // 2, across // 2), (1, across - 2), (down - 1, 0)):
        off = torch.hypot(y - row * height / (down - 1), x - column * width / (across - 1))
        for logits, seen in ((60 - off, 1.0), (off - 60, 0.0)):
            score_map = torch.zeros(down, across)
            score_map[row, column] = 0.8
            found = signals_of(logits, score_map, features)
            assert found[Signal.SEEN_AT_PEAK] == pytest.approx(seen, abs=0.05), (row, column)


def test_a_map_takes_what_it_has_not_seen_for_the_most_extreme_that_it_has() -> None:
    units = replace(
        flat_map(0.5), hidden=((1.0,) * len(INPUTS),), lowest=(0.0,) * len(INPUTS), highest=(1.0,) * len(INPUTS)
    )
    edge, beyond = np.ones((1, len(INPUTS))), np.full((1, len(INPUTS)), 50.0)
    assert expected_iou(units, edge) == expected_iou(units, beyond)
    assert 0 < expected_iou(units, -beyond)[0] < expected_iou(units, edge)[0] < 1


def test_an_input_that_is_not_known_counts_as_the_mean() -> None:
    likeness = INPUTS.index("like_prompt")
    inputs = np.ones((3, len(INPUTS)))
    inputs[:, likeness] = np.nan, 0.3, 0.5
    units = replace(flat_map(0.5), hidden=((1.0,) * len(INPUTS),), means=(0.3,) * len(INPUTS))
    unknown, mean, more = expected_iou(units, inputs / len(INPUTS) + np.where(inputs == 1, 0.3, 0))
    assert 0 < unknown < 1
    units = replace(units, hidden=(tuple(float(place == likeness) for place in range(len(INPUTS))),))
    unknown, mean, more = expected_iou(units, inputs)
    assert unknown == mean < more


def test_the_chance_to_lie_on_the_target_counts_as_a_factor() -> None:
    inputs = np.zeros((1, len(INPUTS)))
    units = replace(flat_map(0.5), hidden_bias=(1.0,), output=(1.0,), output_bias=0.5)
    unit = np.tanh(1.0)
    alone, chance = (1 / (1 + np.exp(-logit)) for logit in (unit + 0.5, 2 * unit - 1))
    both = replace(units, on_target=(2.0,), on_target_bias=-1.0)
    assert expected_iou(units, inputs)[0] == pytest.approx(alone)
    assert expected_iou(both, inputs)[0] == pytest.approx(alone * chance)
    scaled = expected_iou(replace(both, stretch=0.5, shift=0.2), inputs)[0]
    logit = np.log(alone * chance / (1 - alone * chance))
    assert scaled == pytest.approx(1 / (1 + np.exp(-0.5 * logit - 0.2)))
    with pytest.raises(SettingsError, match="do not fit together"):
        replace(both, on_target=(2.0, 1.0))


def test_a_map_of_an_earlier_version_keeps_its_fingerprint() -> None:
    """It stands beside the masks that it judged, and a run goes on with it."""
    values = flat_map(0.5).to_dict()
    assert not {"on_target", "on_target_bias", "lost_below", "stretch", "shift"} & set(values)
    assert QualityMap.from_dict(values) == flat_map(0.5)
    later = replace(flat_map(0.5), on_target=(1.0,), shift=0.1)
    assert QualityMap.from_dict(later.to_dict()) == later
    assert later.fingerprint != flat_map(0.5).fingerprint


def frame_at(box: Box, *, area: int = 400) -> TrackedFrame:
    signals = (0.9,) * Signal.LENGTH + (1.0, 0.0)
    nothing = np.zeros((0, 0), np.bool_)
    return TrackedFrame(nothing, (0, 0, 0, 0), box, area, 0.8, 0.9, "tracked", signals)


@pytest.mark.parametrize(
    ("said", "area", "lost_below", "judged"),
    [
        ("tracked", 400, 0.5, "lost"),
        ("uncertain", 400, 0.5, "lost"),
        ("tracked", 400, 0.2, "uncertain"),  # more likely on its target than that, but of low quality
        ("uncertain", 400, 0.2, "uncertain"),
        ("tracked", 400, 0.0, "uncertain"),  # an earlier version's map calls nothing lost
        ("mask_lost", 0, 0.5, "mask_lost"),  # there is no mask to lie elsewhere
        ("lost", 0, 0.5, "lost"),
    ],
)
def test_a_mask_that_is_not_likely_to_lie_on_its_target_is_lost(
    said: State, area: int, lost_below: float, judged: State
) -> None:
    chance = 1 / (1 + np.exp(1.0))  # 0.27
    quality = replace(flat_map(0.6), on_target=(0.0,), on_target_bias=-1.0, lost_below=lost_below)
    frame = replace(frame_at((10, 10, 20, 20), area=area), state=said, mask=np.ones((2, 2), np.bool_))
    found = History.from_prompt(frame_at((10, 10, 20, 20)), from_box=False).judge(frame, quality)
    assert (found.state, found.quality) == (judged, pytest.approx(0.5 * chance))
    assert (found.area, found.mask.tolist()) == (area, frame.mask.tolist())  # nobody need track again to see it


def test_the_chance_to_lie_on_the_target_is_told_apart_from_how_good_a_mask_is() -> None:
    inputs = np.zeros((2, len(INPUTS)))
    quality = replace(flat_map(0.6), on_target=(0.0,), on_target_bias=-1.0, stretch=0.5, shift=3.0)
    assert estimated(quality, inputs)[1] == pytest.approx([1 / (1 + np.exp(1.0))] * 2)
    assert estimated(flat_map(0.6), inputs)[1].tolist() == [1, 1]
    with pytest.raises(SettingsError, match="between 0 and 1"):
        replace(quality, lost_below=1.5)


def test_a_mask_that_lies_elsewhere_than_the_one_before_is_remembered() -> None:
    history = History.from_prompt(frame_at((10, 10, 20, 20)), from_box=False)
    places = [INPUTS.index(name) for name in ("overlap", "lowest_overlap")]
    follow = [(15, 10, 20, 20), (90, 10, 20, 20), (92, 10, 20, 20)]
    seen = [history.inputs(frame_at(box))[places].tolist() for box in follow]
    assert seen[0] == [pytest.approx(300 / 500)] * 2
    assert seen[1] == [0, 0]
    assert seen[2] == [pytest.approx(360 / 440), 0]
    # Without a mask there is nothing to compare, and the next one is compared with the last that there was.
    assert history.inputs(frame_at((0, 0, 0, 0), area=0))[places].tolist() == [1, 0]
    assert history.inputs(frame_at((92, 10, 20, 20)))[places].tolist() == [1, 0]


def test_a_history_of_an_earlier_version_is_gone_on_with() -> None:
    history = History.from_prompt(frame_at((10, 10, 20, 20)), from_box=False)
    values = history.snapshot()
    for name in ("box", "lowest_overlap"):
        del values[name]
    inputs = History.restore({**values, "centre": (20.0, 20.0)}).inputs(frame_at((15, 10, 20, 20)))
    assert inputs is not None
    assert inputs[INPUTS.index("lowest_overlap")] == 1


def test_a_map_whose_parts_do_not_fit_together_is_refused() -> None:
    with pytest.raises(SettingsError, match="do not fit together"):
        replace(flat_map(0.5), means=(0.0,))


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(load_weights("rts-mini"))


def scene(model: Any, quality: QualityMap | None, tracker: Any = fast_tracker, single: bool = True) -> Scene:
    return Scene(model, SMALL, single=single, tracker=tracker, quality=quality)


def run(opened: Scene, targets: tuple[int, ...] = (1,)) -> list[dict[int, Any]]:
    first = {object_id: Marking(mask=np.roll(FRAMES[0][1], 30 * place, 1)) for place, object_id in enumerate(targets)}
    return [dict(opened.step(image, first if place == 0 else None)) for place, (image, _) in enumerate(FRAMES)]


@pytest.mark.long
def test_prompts_have_no_estimate_and_all_else_has(model: Any) -> None:
    quality = default_quality()
    assert quality is not None
    assert set(quality.inputs) <= set(INPUTS)
    for found in (run(scene(model, quality)), run(scene(model, quality, single=False), (1, 2))):
        assert all(frame.quality is None and frame.state == "prompt" for frame in found[0].values())
        values = [frame.quality for frames in found[1:] for frame in frames.values()]
        assert all(0 <= value <= 1 for value in values)
        assert len(set(values)) > 5
    assert {frame.quality for frames in run(scene(model, None)) for frame in frames.values()} == {None}


@pytest.mark.long
def test_a_mask_below_the_threshold_is_uncertain_and_nothing_else_changes(model: Any) -> None:
    sure, unsure = (run(scene(model, flat_map(0.5, bias))) for bias in (1.0, -1.0))
    assert {frames[1].state for frames in sure[1:]} == {"tracked"}
    assert {frames[1].state for frames in unsure[1:]} == {"uncertain"}
    for one, other in zip(sure, unsure, strict=True):
        np.testing.assert_array_equal(one[1].mask, other[1].mask)


@pytest.mark.long
def test_the_tracker_of_gpus_measures_the_same(model: Any) -> None:
    tracker = partial(GpuTracker, network=BatchedNetwork(model, SMALL))
    quality = default_quality()
    for expected, found in zip(run(scene(model, quality)), run(scene(model, quality, tracker)), strict=True):
        if expected[1].quality is not None:
            assert found[1].signals == pytest.approx(expected[1].signals, abs=2e-2)
            assert found[1].quality == pytest.approx(expected[1].quality, abs=5e-3)


@pytest.mark.long
def test_a_scene_gone_on_with_elsewhere_estimates_the_same(model: Any) -> None:
    quality = default_quality()
    opened = scene(model, quality)
    opened.step(FRAMES[0][0], {1: Marking(mask=FRAMES[0][1])})
    for image, _ in FRAMES[1:6]:
        opened.step(image)  # which nobody looks at
    other = scene(model, quality)
    other.restore(opened.snapshot())
    for image, _ in FRAMES[6:]:
        assert opened.step(image)[1].quality == other.step(image)[1].quality is not None


@pytest.mark.long
def test_a_snapshot_that_did_not_keep_the_prompt_is_gone_on_with(model: Any) -> None:
    """As those of an earlier version are, which knew no `like_prompt`."""
    quality = default_quality()
    opened, other = scene(model, quality), scene(model, quality)
    opened.step(FRAMES[0][0], {1: Marking(mask=FRAMES[0][1])})
    for image, _ in FRAMES[1:4]:
        opened.step(image)
    other.restore(opened.snapshot())
    earlier = other.trackers[1].snapshot()
    for name in ("prompt_features", "prompt_coverage"):
        del earlier["state"][name]
    other.trackers[1].restore(earlier)
    expected, found = opened.step(FRAMES[4][0])[1], other.step(FRAMES[4][0])[1]
    np.testing.assert_array_equal(expected.mask, found.mask)
    assert expected.signals is not None
    assert found.signals is not None
    assert np.isnan(found.signals[Signal.LIKE_PROMPT])
    assert np.isfinite(expected.signals).all()
    assert found.quality is not None
    assert 0 < found.quality < 1


@pytest.mark.long
def test_a_prompt_begins_the_history_anew(model: Any) -> None:
    quality = default_quality()
    corrected, fresh = scene(model, quality), scene(model, quality)
    for place, (image, mask) in enumerate(FRAMES[:6]):
        corrected.step(image, {1: Marking(mask=mask)} if place in (0, 5) else None)
    fresh.step(FRAMES[5][0], {1: Marking(mask=FRAMES[5][1])})
    assert corrected._estimates.snapshot() == fresh._estimates.snapshot()
