"""J and F against a second computation from the definitions with other libraries, on real masks and made ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from rts_batch.evaluation.measures.curves import boundary_accuracy, region_similarity
from rts_batch.evaluation.measures.davis import MeasureStatistics, ObjectScores, davis_scores, score_object, summarise
from tests.support.places import shared_folder

Mask = NDArray[np.bool_]

CHANGES: dict[str, Callable[[Mask], Mask]] = {
    "none": lambda mask: mask,
    "dilated": lambda mask: cv2.dilate(mask.view(np.uint8), np.ones((9, 9), np.uint8)).view(np.bool_),
    "eroded": lambda mask: cv2.erode(mask.view(np.uint8), np.ones((15, 15), np.uint8)).view(np.bool_),
    "shifted": lambda mask: np.roll(mask, (7, -12), (0, 1)),
    "half deleted": lambda mask: mask & (np.arange(mask.shape[1]) < np.flatnonzero(mask.any(0)).mean()),
    "deleted": np.zeros_like,
    "everything": np.ones_like,
}


def made_masks() -> list[Mask]:
    """Shapes at the border, in the corners, of one pixel, noisy, and none."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[:61, :97]
    return [
        (rows - 30) ** 2 + (columns - 50) ** 2 < 20**2,
        (rows < 5) | (columns > 90),
        (rows > 55) & (columns > 80),
        (rows == 60) & (columns == 96),
        (rows == 0) & (columns == 0),
        random.random((61, 97)) < 0.03,
        cv2.blur(random.random((61, 97)), (9, 9)) > 0.5,
        np.zeros((61, 97), bool),
    ]


def literal_boundary_accuracy(mask: Mask, truth: Mask) -> float:
    """F from its definition, by distances between contour pixels over the whole image (SciPy)."""
    ndimage = pytest.importorskip("scipy.ndimage", reason="the second computation of F needs SciPy")
    radius = math.ceil(0.008 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))

    def contour(values: Mask) -> Mask:
        # Beyond the image's end stands the last row or column once more, so nothing differs there.
        padded = np.pad(values, ((0, 1), (0, 1)), mode="edge")
        others = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        return np.logical_or.reduce([values != other for other in others])

    def part(ours: Mask, other: Mask) -> float:
        return float((ndimage.distance_transform_edt(~other)[ours] <= radius).mean())

    ours, true = contour(mask), contour(truth)
    if not ours.any() and not true.any():
        return 1.0
    precision = part(ours, true) if ours.any() and true.any() else float(not ours.any())
    recall = part(true, ours) if ours.any() and true.any() else float(not true.any())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def coco_region_similarity(mask: Mask, truth: Mask) -> float:
    encoded = [coco.encode(np.asfortranarray(one.astype(np.uint8))) for one in (mask, truth)]
    return float(coco.iou(encoded[:1], encoded[1:], [0])[0, 0]) if (mask | truth).any() else 1.0


def compare(mask: Mask, truth: Mask) -> tuple[float, float]:
    region, boundary = region_similarity(mask, truth), boundary_accuracy(mask, truth)
    assert region == pytest.approx(coco_region_similarity(mask, truth), abs=1e-9)
    assert boundary == pytest.approx(literal_boundary_accuracy(mask, truth), abs=1e-9)
    return region, boundary


def test_made_masks_score_as_the_definitions_say() -> None:
    truths = made_masks()
    masks = [*truths, *(np.roll(mask, (1, 2), (0, 1)) for mask in truths)]
    values = [compare(mask, truth) for mask in masks for truth in truths]
    assert len({round(boundary, 3) for _, boundary in values}) > 20


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.long
def test_real_masks_score_as_the_definitions_say(change: str) -> None:
    folder = shared_folder("data/davis-dev") / "Annotations" / "480p"
    scores, expected = [], []
    for sequence in sorted(folder.iterdir())[::3]:
        truths = [np.asarray(Image.open(path)) > 0 for path in sorted(sequence.glob("*.png"))[1:-1:16]]
        masks = [CHANGES[change](truth) for truth in truths]
        expected.append([compare(mask, truth) for mask, truth in zip(masks, truths, strict=True)])
        scores.append(score_object(zip(masks, truths, strict=True)))
    total = davis_scores(scores)
    region = np.mean([np.mean([j for j, _ in frames]) for frames in expected])
    boundary = np.mean([np.mean([f for _, f in frames]) for frames in expected])
    assert total.mean == pytest.approx((region + boundary) / 2, abs=1e-9)
    if change == "none":
        assert total.region == total.boundary == MeasureStatistics(1, 1, 0)
    else:
        assert total.mean < 0.99


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    empty, disk = made_masks()[-1], made_masks()[0]
    assert (region_similarity(empty, empty), boundary_accuracy(empty, empty)) == (1, 1)
    assert (region_similarity(disk, empty), boundary_accuracy(disk, empty)) == (0, 0)
    assert (region_similarity(empty, disk), boundary_accuracy(empty, disk)) == (0, 0)


def test_a_shift_within_the_tolerance_costs_no_boundary_accuracy() -> None:
    truth = np.zeros((480, 854), bool)
    truth[100:200, 300:500] = True
    assert boundary_accuracy(np.roll(truth, 8, 1), truth) == 1
    assert boundary_accuracy(np.roll(truth, 9, 1), truth) < 1
    assert boundary_accuracy(np.roll(truth, 9, 1), truth, tolerance=9) == 1


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        region_similarity(np.zeros((4, 5), bool), np.zeros((5, 4), bool))


def test_decay_is_first_quarter_minus_last_with_shared_borders() -> None:
    values = np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    # linspace(1, 9, 5) = 1, 3, 5, 7, 9: frames 1 to 3 and 7 to 9.
    assert summarise(values) == MeasureStatistics(pytest.approx(0.6), pytest.approx(5 / 9), pytest.approx(0.9 - 0.3))
    # linspace(1, 3, 5) = 1, 1.5, 2, 2.5, 3: a half goes up (2.5 becomes 3), although NumPy would round to even.
    assert summarise([1, 0.5, 0]).decay == pytest.approx((1 + 0.5) / 2 - 0)
    assert summarise(np.linspace(1, 0, 1001)).decay == pytest.approx(0.75)


def test_the_benchmark_averages_objects_not_frames() -> None:
    long, short = (MeasureStatistics(mean, mean, 0) for mean in (0.2, 0.8))
    total = davis_scores([ObjectScores(long, long), ObjectScores(short, short)])
    assert total.mean == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no object"):
        davis_scores([])
    with pytest.raises(ValueError, match="no frame"):
        summarise([])


def test_boundary_accuracy_is_fast() -> None:
    """100 frames a second on two cores; one core and a busy machine are given half of that."""
    rows, columns = np.mgrid[:480, :854]
    truth = ((rows - 240) / 200) ** 2 + ((columns - 420) / 250) ** 2 < 1
    mask = CHANGES["dilated"](truth)
    started = time.process_time()
    for _ in range(20):
        boundary_accuracy(mask, truth)
    assert 20 / (time.process_time() - started) > 50
