"""How well boxes follow the annotated ones: success, precision, normalised precision, and GOT-10k's overlap measures.

Boxes are [N, 4] float64: x, y, w, h in pixels; NaN where there is none. Each benchmark's own tool is the reference;
what sets them apart is in `Protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
Values = NDArray[np.float64]

OVERLAP_THRESHOLDS: Final = np.linspace(0, 1, 21)
"""Of the success plot; a frame counts where its overlap is above."""
_AT: Final = 20
"""Precision is read at 20 pixels, normalised precision at 0.20."""


@dataclass(frozen=True)
class Protocol:
    """How one benchmark's tool turns the frames of a sequence into its scores."""

    absent_fails: bool = False
    """Frames without the target count as failures instead of being left out (LaSOT divides by all frames)."""
    rounded: bool = False
    """Boxes are rounded to whole pixels first."""
    areas: bool = False
    """Precision and normalised precision, too, are areas under their curves (by trapezoids, 21 thresholds)."""

    @property
    def pixel_thresholds(self) -> Values:
        """Of the precision plot; a frame counts where its centre error is not above. Normalised: hundredths of it."""
        return np.linspace(0, 50, 21 if self.areas else 51)


OTB: Final = Protocol()
"""NFS and UAV123."""
LASOT: Final = Protocol(absent_fails=True)
TRACKINGNET: Final = Protocol(rounded=True, areas=True)


@dataclass(frozen=True)
class BoxCurves:
    """The parts of the frames that pass each threshold; of one sequence, or the mean over sequences."""

    success: Values
    """[21], over `OVERLAP_THRESHOLDS`."""
    precision: Values
    """Over the protocol's pixel thresholds."""
    normalised: Values
    """Over hundredths of them."""

    def scores(self, protocol: Protocol) -> dict[str, float]:
        """The benchmark's numbers, as parts of 1."""
        if protocol.areas:
            return {
                "success": _area(self.success),
                "precision": _area(self.precision),
                "normalised_precision": _area(self.normalised),
            }
        return {
            "success": float(self.success.mean()),
            "precision": float(self.precision[_AT]),
            "normalised_precision": float(self.normalised[_AT]),
        }


def overlaps(boxes: Boxes, truth: Boxes) -> Values:
    """Intersection over union [N] of each pair of boxes; 0 where both are empty."""
    corner = np.maximum(boxes[:, :2], truth[:, :2])
    end = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = np.clip(end - corner, 0, None).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + truth[:, 2:].prod(axis=1) - shared
    result: Values = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def centre_errors(boxes: Boxes, truth: Boxes, *, normalised: bool = False) -> Values:
    """Distance [N] of the centres, in pixels or as a part of the annotated box's size."""
    # The tools write a centre as x + (w - 1) / 2 or x + (w + 1) / 2; in the difference that is the same.
    difference = boxes[:, :2] + boxes[:, 2:] / 2 - truth[:, :2] - truth[:, 2:] / 2
    if normalised:
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = difference / truth[:, 2:]
    distance: Values = np.hypot(difference[:, 0], difference[:, 1])
    return distance


def fill_missing(boxes: Boxes) -> Boxes:
    """Give frames without a box, or with an empty one, the box before, as the tools do; the first must have one."""
    with np.errstate(invalid="ignore"):
        present = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    last = np.maximum.accumulate(np.where(present, np.arange(len(boxes)), 0))
    return boxes[last]


def box_curves(boxes: Boxes, truth: Boxes, absent: NDArray[np.bool_], protocol: Protocol) -> BoxCurves:
    """The curves of one sequence. The first frame's box is given and counts as right.

    Args:
        boxes: [N, 4], the tracker's.
        truth: [N, 4], the annotation; NaN where there is none.
        absent: [N] bool, where the annotation says that the target is not to be seen.
        protocol: the benchmark's rules.
    """
    boxes = fill_missing(np.concatenate([truth[:1], boxes[1:]]))
    if protocol.rounded:
        boxes, truth = np.round(boxes), np.round(truth)
    annotated = np.isfinite(truth).all(axis=1) & ~absent
    boxes, shown = boxes[annotated], truth[annotated]
    overlap, error = overlaps(boxes, shown), centre_errors(boxes, shown)
    normalised = centre_errors(boxes, shown, normalised=True)
    if protocol.absent_fails:
        # Where a number of the annotation is not above 0, LaSOT's tool takes -1 for overlap and errors.
        positive = (shown > 0).all(axis=1)
        overlap, error, normalised = (np.where(positive, values, -1) for values in (overlap, error, normalised))
    frames = len(truth) if protocol.absent_fails else max(len(shown), 1)
    pixels = protocol.pixel_thresholds
    return BoxCurves(
        success=(overlap[:, None] > OVERLAP_THRESHOLDS).sum(axis=0) / frames,
        precision=(error[:, None] <= pixels).sum(axis=0) / frames,
        normalised=(normalised[:, None] <= pixels / 100).sum(axis=0) / frames,
    )


def mean_curves(curves: Sequence[BoxCurves]) -> BoxCurves:
    """The mean over sequences, which all weigh the same."""
    return BoxCurves(
        success=np.mean([curve.success for curve in curves], axis=0),
        precision=np.mean([curve.precision for curve in curves], axis=0),
        normalised=np.mean([curve.normalised for curve in curves], axis=0),
    )


def got10k_overlaps(boxes: Boxes, truth: Boxes, absent: NDArray[np.bool_], *, width: int, height: int) -> Values:
    """The overlaps of a GOT-10k sequence's frames that count: after the first, target visible, boxes cut to the image.

    Args:
        boxes: [N, 4], the tracker's.
        truth: [N, 4], the annotation.
        absent: [N] bool, where nothing of the target is visible (`cover.label` is 0).
        width: of the frames, in pixels.
        height: of the frames, in pixels.
    """
    boxes = fill_missing(np.concatenate([truth[:1], boxes[1:]]))
    counted = ~absent[1:] & np.isfinite(truth[1:]).all(axis=1)
    return overlaps(_cut(boxes[1:][counted], width, height), _cut(truth[1:][counted], width, height))


def overlap_scores(values: Values) -> dict[str, float]:
    """GOT-10k's numbers for the overlaps [N] of all frames of all sequences; frames, not sequences, weigh the same.

    They are the average overlap, and the success rates above 0.5 and 0.75.
    """
    return {"ao": float(values.mean()), "sr50": float((values > 0.5).mean()), "sr75": float((values > 0.75).mean())}


def _cut(boxes: Boxes, width: int, height: int) -> Boxes:
    size = np.array([width, height], np.float64)
    corner = np.clip(boxes[:, :2], 0, size)
    # The size stays as it is where the corner moves: so does GOT-10k's tool.
    return np.concatenate([corner, np.clip(boxes[:, 2:], 0, size - corner)], axis=1)


def _area(curve: Values) -> float:
    """Area under a curve over equal steps of the unit interval, by trapezoids."""
    return float((curve[:-1] + curve[1:]).mean() / 2)
