"""Quality maps: what is fitted, and on what it is judged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rts_batch.tracking.quality import INPUTS, expected_iou
from rts_batch.tracking.signals import Signal
from rts_batch.training.mini.quality import OF_THE_FRAME, Judged, auroc, fit_map, measured, threshold_of
from rts_batch.training.mini.quality_runs import Runs


def runs(count: int, seed: int) -> Runs:
    """Frames whose IoU is their soft IoU, a little off; a tenth of the targets is gone."""
    rng = np.random.default_rng(seed)
    iou = rng.uniform(0, 1, count)
    present = rng.random(count) > 0.1
    iou[~present] *= 0.1
    signals = rng.normal(size=(count, Signal.LENGTH + 3)).astype(np.float32)
    signals[:, Signal.SOFT_IOU] = np.clip(iou + rng.normal(0, 0.02, count), 0, 1)
    area = np.full(count, 500)
    nothing = np.zeros(count, bool)
    box = np.tile([5.0, 5.0, 20.0, 25.0], (count, 1))
    return Runs(np.arange(count) // 20, signals, box, area, area, nothing, nothing, present, iou)


@pytest.mark.long
def test_a_map_expects_the_iou_of_what_it_has_not_seen() -> None:
    seen, other = runs(1500, 0), runs(600, 1)
    quality = fit_map(seen.inputs(), seen.iou, origin="a test", steps=300)
    judged = Judged.by(quality, other.inputs())
    estimates, lost = judged.iou, judged.lost(other)
    threshold = threshold_of(judged, other)
    found, said = measured(estimates, other, threshold), measured(estimates, other, threshold, lost)
    assert found["auroc"] > 0.97
    assert found["mean_error"] < 0.08
    assert said["good_doubted"] == pytest.approx(0.02, abs=0.01)
    assert found["absent_doubted"] > 0.9
    assert said["absent_lost"] == pytest.approx(lost[~other.present].mean())
    assert said["absent_lost"] > 0.5 > 0.1 > said["good_lost"]
    assert (found["absent_lost"], found["good_lost"]) == (0, 0)  # the tracker itself has called nothing so
    assert set(quality.inputs) < set(INPUTS)
    assert dataclasses.replace(quality, threshold=0.5).fingerprint != quality.fingerprint


@pytest.mark.long
def test_equal_runs_make_equal_maps() -> None:
    inputs = runs(200, 0).inputs()
    iou = runs(200, 0).iou
    quality = fit_map(inputs, iou, origin="a test", steps=40)
    assert quality == fit_map(inputs, iou, origin="a test", steps=40)
    # How good a mask on its target is, is read off nothing but what one frame's output says.
    other = [place for place, name in enumerate(quality.inputs) if name not in OF_THE_FRAME]
    assert 0 < len(other) < len(quality.inputs)
    for row, output, on_target in zip(quality.hidden, quality.output, quality.on_target, strict=True):
        assert (output == 0) != (on_target == 0)
        assert any(row[place] for place in other) == (on_target != 0)


@pytest.mark.long
def test_a_mask_that_lies_elsewhere_is_known_by_what_says_nothing_of_masks_on_their_target() -> None:
    seen = runs(1500, 2)
    inputs, area = seen.inputs(), INPUTS.index("area_against_recent")
    rng, elsewhere = np.random.default_rng(3), np.arange(1500) % 4 == 0
    inputs[:, area] = rng.normal(0, 0.1, 1500) + np.where(elsewhere, 2.0, 0.0)
    iou = np.where(elsewhere, 0.0, np.clip(inputs[:, INPUTS.index("soft_iou")], 0.2, 1))
    quality = fit_map(inputs, iou, origin="a test", steps=300)
    like = inputs.copy()
    like[:, area] = 0.0
    on, off = expected_iou(quality, like), expected_iou(quality, np.where(np.arange(len(INPUTS)) == area, 2.0, inputs))
    assert off.max() < 0.2
    assert np.abs(on - np.clip(inputs[:, INPUTS.index("soft_iou")], 0.2, 1)).mean() < 0.1


def test_joined_runs_keep_their_clips_apart() -> None:
    joined = Runs.joined([runs(40, 0), runs(60, 1)])
    assert np.array_equal(joined.clip, np.arange(100) // 20)


def test_auroc_counts_pairs() -> None:
    estimates, bad = np.array([0.1, 0.5, 0.5, 0.9]), np.array([True, True, False, False])
    assert auroc(estimates, bad) == (4 - 0.5) / 4
