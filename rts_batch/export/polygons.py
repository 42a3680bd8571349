"""Masks as polygons along the edges of their pixels, which COCO's own filling makes the same masks of."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int64]
"""`[N, 2]`: x and y of corners of pixels."""


def mask_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return a polygon `[x, y, x, y, …]` for each part of a mask [H, W], as COCO's segmentation has them.

    A part's holes belong to its polygon, by lines of no width that lead to them and back.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    polygons = []
    for part in range(1, count):
        x, y, w, h = boxes[part, :4]
        inside = labels[y : y + h, x : x + w] == part
        polygon = _traced(inside)
        polygons.append([float(side) for side in (polygon + np.array([x, y])).ravel()])
    return polygons


def _traced(part: NDArray[np.bool_]) -> Points:
    """Trace a part and its holes, which may in turn enclose what hangs on to the part by a corner."""
    polygon = _outline(part)
    for hole in _holes(part):
        polygon = _joined(polygon, _traced(hole))
    return polygon


def _holes(part: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    around = np.pad(~part, 1, constant_values=True)
    count, labels = cv2.connectedComponents(around.view(np.uint8), connectivity=4)
    return [labels[1:-1, 1:-1] == hole for hole in range(1, count) if hole != labels[0, 0]]


def _outline(part: NDArray[np.bool_]) -> Points:
    """Trace the edges of the pixels around a part in one piece, whose holes are not looked at."""
    height, width = part.shape
    # A pixel becomes the 3×3 points of its corners, edges and middle, so that what is traced lies on its edges.
    points = cv2.dilate(_spread(part, 2 * height + 1, 2 * width + 1), np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(points, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    (contour,) = (found[:, 0].astype(np.int64) for found in contours)
    following = np.roll(contour, -1, axis=0)
    # It cuts inner corners, where the mask has the point between.
    between = np.stack([contour[:, 0], following[:, 1]], axis=1)
    other = np.stack([following[:, 0], contour[:, 1]], axis=1)
    between[points[between[:, 1], between[:, 0]] == 0] = other[points[between[:, 1], between[:, 0]] == 0]
    slanted = (contour != following).all(axis=1)
    path = np.stack([contour, np.where(slanted[:, None], between, contour)], axis=1).reshape(-1, 2)
    path = path[(path != np.roll(path, 1, axis=0)).any(axis=1)]
    before, after = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    corners: Points = path[(before != after).any(axis=1)] // 2
    return corners


def _spread(part: NDArray[np.bool_], height: int, width: int) -> NDArray[np.uint8]:
    spread = np.zeros((height, width), np.uint8)
    spread[1::2, 1::2] = part
    return spread


def _joined(polygon: Points, hole: Points) -> Points:
    """Lead a polygon to a hole, around it and back the same way, along edges of pixels as everywhere."""
    x, y = (np.subtract.outer(polygon[:, axis], hole[:, axis]) for axis in (0, 1))
    here, there = np.unravel_index(int((x * x + y * y).argmin()), x.shape)
    elbow = np.array([[polygon[here, 0], hole[there, 1]]])
    around = np.concatenate([np.roll(hole, -int(there), axis=0), hole[there : there + 1]])
    return np.concatenate([polygon[: here + 1], elbow, around, elbow, polygon[here:]])
