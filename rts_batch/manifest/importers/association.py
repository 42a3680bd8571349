"""Which detections of successive frames are one target, where nobody says so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from rts_batch.masks import Box

LEAST_IOU: Final = 0.3
"""Overlap with a target's last box from which a box of the same category goes on with it."""


def associate(found: Sequence[tuple[int, str | None, Box]]) -> list[int]:
    """Number the targets of boxes from 1.

    On each frame the boxes are matched with the last box of each target so far, the best pair
    first; a box
    without a partner of its category and at least `LEAST_IOU` begins a new target.

    Args:
        found: frame, category and box, in order of frames.
    """
    numbers: list[int] = []
    last: list[tuple[str | None, Box]] = []
    for _, group in groupby(found, key=lambda item: item[0]):
        boxes = [(category, box) for _, category, box in group]
        partner: dict[int, int] = {}
        if last:
            overlap = np.asarray(
                coco.iou(np.array([b for _, b in boxes]), np.array([b for _, b in last]), [0] * len(last))
            )
            same = np.array([[kind == other for other, _ in last] for kind, _ in boxes])
            partner = _pairs(np.where(same & (overlap >= LEAST_IOU), overlap, 0))
        for place, item in enumerate(boxes):
            target = partner.get(place, len(last))
            if target == len(last):
                last.append(item)
            last[target] = item
            numbers.append(target + 1)
    return numbers


def _pairs(overlap: NDArray[np.float64]) -> dict[int, int]:
    """Columns by rows of a matrix [boxes, targets], the largest value first, each used once; zeros pair nothing."""
    order = np.argsort(-overlap, axis=None, kind="stable")
    pairs: dict[int, int] = {}
    for row, column in zip(*(places.tolist() for places in np.unravel_index(order, overlap.shape)), strict=True):
        if overlap[row, column] <= 0:
            break
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs
