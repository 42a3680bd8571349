"""A quality map fitted to a run on annotated sequences."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rts_batch.config import QualityMap
from rts_batch.errors import ResultsError
from rts_batch.evaluation.calibration import calibrated, recalibrate
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.tracking.quality import INPUTS, expected_iou
from rts_batch.weights.registry import Weights, default_quality, load_weights, save_weights
from tests.support.run_folders import row_of

FRAMES, SIZE = 80, (40, 60)


@pytest.fixture
def quality() -> QualityMap:
    found = default_quality()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights("rts-mini")


def write(tmp_path: Path, weights: Weights, quality: QualityMap, frames: int = FRAMES) -> tuple[Path, str]:
    """A sequence in DAVIS's layout, and a run whose masks have half the truth and a quality of 0.9."""
    root, run = tmp_path / "DAVIS", tmp_path / "run"
    labels, pictures = (root / kind / "480p" / "one" for kind in ("Annotations", "JPEGImages"))
    for folder in (labels, pictures, run / "masks"):
        folder.mkdir(parents=True)
    truth, found = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    truth[10:30, 10:30], found[10:20, 10:30] = True, True
    path = run / "masks" / "one-0123456789abcdef.parquet"
    with ResultsWriter(path, targets={1: {}}, weights=weights.fingerprint) as writer:
        for frame in range(frames):
            cv2.imwrite(str(labels / f"{frame:05d}.png"), truth.astype(np.uint8) * 255)
            cv2.imwrite(str(pictures / f"{frame:05d}.jpg"), np.zeros((*SIZE, 3), np.uint8))
            first = frame == 0
            row = row_of(truth if first else found, frame, "prompt" if first else "tracked", video_id="one")
            writer.add(row._replace(quality=None if first else 0.9))
        writer.close(frames=frames, quality={"map": quality.fingerprint, "threshold": 0.4})
    return root, str(run)


@pytest.mark.long
def test_the_estimates_become_what_the_masks_are_worth(tmp_path: Path, weights: Weights) -> None:
    before = weights.quality
    assert before is not None
    root, run = write(tmp_path, weights, before)
    after = calibrated(weights, "davis2016", root, run)
    assert after.fingerprint == weights.fingerprint
    assert after.quality is not None
    save_weights(after, tmp_path / "fitted.safetensors")
    assert load_weights(tmp_path / "fitted.safetensors").quality == after.quality
    inputs = np.random.default_rng(0).normal(size=(200, len(INPUTS)))
    was, now = (expected_iou(one, inputs) for one in (before, after.quality))
    assert np.array_equal(np.argsort(was), np.argsort(now))
    assert np.interp(0.9, np.sort(was), np.sort(now)) < 0.75
    with pytest.raises(ResultsError, match="of another map"):
        calibrated(after, "davis2016", root, run)


@pytest.mark.long
def test_few_masks_and_other_weights_are_refused(tmp_path: Path, weights: Weights, quality: QualityMap) -> None:
    assert weights.quality is not None
    root, run = write(tmp_path, weights, weights.quality, frames=20)
    with pytest.raises(ResultsError, match="has 19 annotated masks with a quality; a fit needs 50"):
        calibrated(weights, "davis2016", root, run)
    other = dataclasses.replace(weights, tracker_config=dataclasses.replace(weights.tracker_config, memory_size=20))
    with pytest.raises(ResultsError, match="tracked with other weights"):
        calibrated(other, "davis2016", root, run)


def test_a_scaled_map_expects_the_mean(quality: QualityMap) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(2000, len(INPUTS)))
    estimates = expected_iou(quality, inputs)
    ious = np.clip(0.3 * estimates + 0.05 + rng.normal(0, 0.02, 2000), 0, 1)
    after = expected_iou(recalibrate(quality, estimates, ious, about="a test"), inputs)
    assert np.abs(after - ious).mean() < 0.5 * np.abs(estimates - ious).mean()
    assert after.mean() == pytest.approx(ious.mean(), abs=0.01)


def loss(stretch: float, shift: float, estimates: NDArray[np.float64], ious: NDArray[np.float64]) -> float:
    """The cross entropy of IoUs and what estimates `[N]` become, with one observation's weight on a map as it is."""
    logits = stretch * np.log(estimates / (1 - estimates)) + shift
    held = ((stretch - 1) ** 2 + shift**2) / 2
    return float((np.sum(np.logaddexp(0, logits) - ious * logits) + held) / len(ious))


@pytest.mark.parametrize(
    ("said", "true"),
    [((0.95, 0.99), (0.3, 0.7)), ((0.985, 0.998), (0.1, 0.5)), ((0.02, 0.08), (0.7, 0.9)), ((0.2, 0.95), (0.9, 0.1))],
    ids=["far too sure", "surer still", "far too careful", "the other way round"],
)
def test_a_map_that_is_far_off_is_fitted_as_well_as_can_be(
    quality: QualityMap, said: tuple[float, float], true: tuple[float, float]
) -> None:
    """Newton's whole steps ended with a shift of hundreds, and a quality of 0 or 1 for every mask."""
    estimates, ious = np.linspace(*said, 600), np.linspace(*true, 600)
    fitted = recalibrate(quality, estimates, ious, about="a test")
    stretch = fitted.stretch / quality.stretch
    shift = fitted.shift - stretch * quality.shift
    best = min(loss(a, b, estimates, ious) for a in np.linspace(0.05, 3, 60) for b in np.linspace(-6, 6, 121))
    assert loss(stretch, shift, estimates, ious) <= best + 1e-9
    assert stretch >= 0.05
    after = 1 / (1 + np.exp(-stretch * np.log(estimates / (1 - estimates)) - shift))
    assert after.mean() == pytest.approx(ious.mean(), abs=0.01)


@pytest.mark.long
def test_annotations_of_another_size_are_named(tmp_path: Path, weights: Weights) -> None:
    assert weights.quality is not None
    root, run = write(tmp_path, weights, weights.quality)
    label = root / "Annotations/480p/one/00007.png"
    cv2.imwrite(str(label), np.ones((SIZE[0] * 2, SIZE[1] * 2), np.uint8))
    with pytest.raises(ResultsError, match=r"one-0123456789abcdef\.parquet: frame 7 of one: .*\(40, 60\)"):
        calibrated(weights, "davis2016", root, run)
