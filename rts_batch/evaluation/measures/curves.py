"""How well a mask covers the annotated one: region similarity J and boundary accuracy F, as DAVIS defines them.

Perazzi et al., *A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation*, CVPR 2016. The official
kits are the reference wherever the paper leaves room; tests compare with a second, literal computation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.masks import jaccard

BOUNDARY_TOLERANCE: Final = 0.008
"""How far two contours may lie apart and still match, as a part of the image's diagonal."""

Mask = NDArray[np.bool_]


def region_similarity(mask: Mask, truth: Mask) -> float:
    """J: intersection over union of two masks [H, W] bool; 1 where both are empty."""
    _check_sizes(mask, truth)
    return jaccard(mask, truth)


def boundary_accuracy(mask: Mask, truth: Mask, *, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F: harmonic mean of the precision and the recall of a mask's contour; 1 where neither mask has a contour.

    A contour pixel is right where the other contour passes within a disk around it, whose radius is the tolerance
    times the diagonal, rounded up to whole pixels.

    Args:
        mask: [H, W] bool, the mask to judge.
        truth: [H, W] bool, the annotation.
        tolerance: as a part of the image's diagonal (below 1), or in pixels (from 1 on).
    """
    _check_sizes(mask, truth)
    region = _shared_region(mask, truth)
    if region is None:
        return 1.0
    contour, true_contour = _contour(mask[region]), _contour(truth[region])
    if not contour.any() or not true_contour.any():
        # One has a contour: one of precision and recall is 0. None has: both masks are empty or fill the image.
        return float(not contour.any() and not true_contour.any())
    radius = math.ceil(tolerance if tolerance >= 1 else tolerance * math.hypot(*mask.shape))
    precision = _part_near(contour, true_contour, radius)
    recall = _part_near(true_contour, contour, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _check_sizes(mask: Mask, truth: Mask) -> None:
    if mask.shape != truth.shape or mask.ndim != 2:
        raise ValueError(f"a mask of shape {mask.shape} cannot be compared with an annotation of shape {truth.shape}")


def _shared_region(mask: Mask, truth: Mask) -> tuple[slice, slice] | None:
    """The part of the image that holds both masks and the contours around them; None where both are empty."""
    either = (mask | truth).view(np.uint8)
    x, y, width, height = cv2.boundingRect(either)
    if not width:
        return None
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _contour(mask: Mask) -> NDArray[np.uint8]:
    """The pixels [H, W] that differ from their right, lower or lower right neighbour, as the Berkeley benchmark has it.

    The last row looks only to the right, the last column only down, the last pixel is none.
    """
    values = np.ascontiguousarray(mask).view(np.uint8)
    contour = np.zeros_like(values)
    here = values[:-1, :-1]
    contour[:-1, :-1] = (here ^ values[:-1, 1:]) | (here ^ values[1:, :-1]) | (here ^ values[1:, 1:])
    contour[-1, :-1] = values[-1, :-1] ^ values[-1, 1:]
    contour[:-1, -1] = values[:-1, -1] ^ values[1:, -1]
    return contour


def _part_near(contour: NDArray[np.uint8], other: NDArray[np.uint8], radius: int) -> float:
    """The part of a contour's pixels that has a pixel of the other within `radius` pixels."""
    near = cv2.dilate(other, _disk(radius))
    return float(np.count_nonzero(contour & near) / np.count_nonzero(contour))


@lru_cache(maxsize=16)
def _disk(radius: int) -> NDArray[np.uint8]:
    """The pixels [2r + 1, 2r + 1] whose centres are no further than `radius` from the middle one."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
