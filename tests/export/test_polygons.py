"""Polygons that are filled by COCO's own tool."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from rts_batch.export.polygons import mask_polygons


def filled(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(polygons, height, width)))).astype(bool)


def noise(seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((23, 31)) < share


def blobs(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    field = cv2.GaussianBlur(random.random((120, 160)).astype(np.float32), (0, 0), float(random.uniform(1, 6)))
    return field > np.quantile(field, random.uniform(0.2, 0.9))


@pytest.mark.parametrize(
    "mask", [noise(n, share) for n, share in enumerate((0.03, 0.2, 0.5, 0.8, 0.97))] + [blobs(n) for n in range(40)]
)
def test_filled_again_they_are_the_mask(mask: np.ndarray) -> None:
    polygons = mask_polygons(mask)
    assert len(polygons) == cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1
    assert all(len(polygon) >= 8 for polygon in polygons)
    assert np.array_equal(filled(polygons, *mask.shape), mask)


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((9, 12), bool)
    mask[2:5, 3:10] = True
    (polygon,) = mask_polygons(mask)
    assert sorted(zip(polygon[::2], polygon[1::2], strict=True)) == [(3, 2), (3, 5), (10, 2), (10, 5)]
