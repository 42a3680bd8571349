"""Success, precision and GOT-10k's overlaps against literal computations of what the official tools do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rts_batch.evaluation.measures.boxes import (
    LASOT,
    OTB,
    TRACKINGNET,
    box_curves,
    centre_errors,
    fill_missing,
    got10k_overlaps,
    mean_curves,
    overlap_scores,
    overlaps,
)

Boxes = NDArray[np.float64]
FRAMES = 200


def made_sequence(seed: int) -> tuple[Boxes, Boxes]:
    """A tracker's boxes, some of them missing, and the annotation, all somewhere in or around 640×480."""
    random = np.random.default_rng(seed)
    truth = np.concatenate([random.uniform(-20, 500, (FRAMES, 2)), random.uniform(10, 150, (FRAMES, 2))], axis=1)
    drift = random.normal(0, 1, (FRAMES, 4)) * np.linspace(0, 40, FRAMES)[:, None]
    boxes = truth + drift
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    boxes[random.random(FRAMES) < 0.05] = np.nan
    return boxes, truth


def intersection_over_union(a: Boxes, b: Boxes) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def literal_errors(boxes: Boxes, truth: Boxes) -> tuple[list[float], list[float], list[float]]:
    """Overlap, centre error and normalised centre error of each frame, frame by frame as the tools have it."""
    results = [truth[0], *boxes[1:]]
    for i in range(1, len(results)):
        if np.isnan(results[i]).any() or results[i][2] <= 0 or results[i][3] <= 0:
            results[i] = results[i - 1]
    overlap, error, normalised = [], [], []
    for ours, true in zip(results, truth, strict=True):
        overlap.append(intersection_over_union(ours, true))
        dx = ours[0] + (ours[2] - 1) / 2 - true[0] - (true[2] - 1) / 2
        dy = ours[1] + (ours[3] - 1) / 2 - true[1] - (true[3] - 1) / 2
        error.append((dx**2 + dy**2) ** 0.5)
        normalised.append(((dx / true[2]) ** 2 + (dy / true[3]) ** 2) ** 0.5)
    return overlap, error, normalised


def test_curves_of_nfs_and_uav123_leave_absent_frames_out() -> None:
    for seed in range(3):
        boxes, truth = made_sequence(seed)
        overlap, error, normalised = literal_errors(boxes, truth)
        shown = np.ones(FRAMES, bool)
        shown[50:90] = False
        truth[~shown] = np.nan
        scores = box_curves(boxes, truth, np.zeros(FRAMES, bool), OTB).scores(OTB)
        counted = [i for i in range(FRAMES) if shown[i]]
        success = [np.mean([overlap[i] > step / 20 for i in counted]) for step in range(21)]
        assert scores["success"] == pytest.approx(np.mean(success), abs=1e-9)
        assert scores["precision"] == pytest.approx(np.mean([error[i] <= 20 for i in counted]), abs=1e-9)
        assert scores["normalised_precision"] == pytest.approx(np.mean([normalised[i] <= 0.2 for i in counted]))
        assert 0.1 < scores["success"] < 0.9


def test_lasot_counts_absent_frames_as_failures_and_boxes_with_a_zero_as_minus_one() -> None:
    boxes, truth = made_sequence(4)
    overlap, error, normalised = literal_errors(boxes, truth)
    absent = np.zeros(FRAMES, bool)
    absent[30:60] = True
    truth[100:110, 2:] = 0
    for i in range(FRAMES):
        if min(truth[i]) <= 0:
            overlap[i] = error[i] = normalised[i] = -1
    scores = box_curves(boxes, truth, absent, LASOT).scores(LASOT)
    counted = [i for i in range(FRAMES) if not absent[i]]
    success = [sum(overlap[i] > step / 20 for i in counted) / FRAMES for step in range(21)]
    assert scores["success"] == pytest.approx(np.mean(success), abs=1e-9)
    assert scores["precision"] == pytest.approx(sum(error[i] <= 20 for i in counted) / FRAMES, abs=1e-9)
    assert scores["normalised_precision"] == pytest.approx(sum(normalised[i] <= 0.2 for i in counted) / FRAMES)


def test_trackingnet_rounds_boxes_and_takes_areas() -> None:
    boxes, truth = made_sequence(5)
    boxes[np.isnan(boxes)] = 30
    overlap, error, normalised = literal_errors(np.round(boxes), np.round(truth))
    scores = box_curves(boxes, truth, np.zeros(FRAMES, bool), TRACKINGNET).scores(TRACKINGNET)

    def area(values: list[float], highest: float, *, above: bool) -> float:
        steps = [step * highest / 20 for step in range(21)]
        curve = [np.mean([value > step if above else value <= step for value in values]) for step in steps]
        return float(np.trapezoid(curve, np.linspace(0, 1, 21)))

    assert scores["success"] == pytest.approx(area(overlap, 1, above=True), abs=1e-9)
    assert scores["precision"] == pytest.approx(area(error, 50, above=False), abs=1e-9)
    assert scores["normalised_precision"] == pytest.approx(area(normalised, 0.5, above=False), abs=1e-9)


def test_overlaps_and_errors_equal_got10ks() -> None:
    metrics = pytest.importorskip("got10k.utils.metrics", reason="pip install --no-deps got10k shapely")
    boxes, truth = made_sequence(6)
    boxes = fill_missing(np.concatenate([truth[:1], boxes[1:]]))
    assert overlaps(boxes, truth) == pytest.approx(metrics.rect_iou(boxes, truth), abs=1e-9)
    assert centre_errors(boxes, truth) == pytest.approx(metrics.center_error(boxes, truth), abs=1e-9)
    visible = np.random.default_rng(0).random(FRAMES) > 0.2
    ours = got10k_overlaps(boxes, truth, ~visible, width=640, height=480)
    theirs = metrics.rect_iou(boxes[1:].copy(), truth[1:].copy(), bound=(640, 480))[visible[1:]]
    assert ours == pytest.approx(theirs, abs=1e-9)
    scores = overlap_scores(ours)
    assert scores == pytest.approx({"ao": theirs.mean(), "sr50": (theirs > 0.5).mean(), "sr75": (theirs > 0.75).mean()})


def test_got10k_cuts_boxes_to_the_image_and_leaves_the_given_frame_out() -> None:
    truth = np.array([[0, 0, 10, 10], [90, 0, 20, 10], [0, 0, 10, 10]], float)
    boxes = np.array([[50, 50, 1, 1], [95, 0, 30, 10], [0, 0, 10, 5]], float)
    values = got10k_overlaps(boxes, truth, np.zeros(3, bool), width=100, height=100)
    assert values == pytest.approx([0.5, 0.5])  # 95 to 100 of 90 to 100
    assert overlap_scores(values)["sr50"] == 0  # above, not from


def test_frames_without_a_box_take_the_box_before() -> None:
    boxes = np.array([[1, 1, 5, 5], [np.nan] * 4, [2, 2, 0, 5], [3, 3, 4, 4]], float)
    assert fill_missing(boxes)[:, 0].tolist() == [1, 1, 1, 3]


def test_sequences_weigh_the_same_whatever_their_length() -> None:
    truth = np.tile([10.0, 10, 20, 20], (100, 1))
    right = box_curves(truth, truth, np.zeros(100, bool), OTB)
    wrong = box_curves(truth[:3] + np.array([500, 0, 0, 0]), truth[:3], np.zeros(3, bool), OTB)
    assert right.scores(OTB) == {"success": 20 / 21, "precision": 1, "normalised_precision": 1}
    total = mean_curves([right, wrong]).scores(OTB)
    assert total["precision"] == pytest.approx((1 + 1 / 3) / 2)  # the given frame is right in both
