"""The scores of DAVIS 2016 and 2017: mean, recall and decay of J and F, over objects.

The first frame, which is given, and the last one do not count. A statistic of the benchmark is the mean over objects
of the statistic of each object's frames, not over frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.evaluation.measures.curves import boundary_accuracy, region_similarity

RECALL_THRESHOLD: Final = 0.5
_QUARTERS: Final = 4


@dataclass(frozen=True)
class MeasureStatistics:
    """One measure over one object's frames, or its mean over objects. All are parts of 1."""

    mean: float
    recall: float
    """Part of the frames above 0.5."""
    decay: float
    """How much worse the last quarter of the frames is than the first."""


@dataclass(frozen=True)
class ObjectScores:
    """J and F of one object in one sequence, or the benchmark's row: their means over objects."""

    region: MeasureStatistics
    boundary: MeasureStatistics

    @property
    def mean(self) -> float:
        """J&F, the benchmark's main number."""
        return (self.region.mean + self.boundary.mean) / 2


def summarise(values: Sequence[float] | NDArray[np.float64]) -> MeasureStatistics:
    """Mean, recall and decay of one measure over the frames [N] of one object.

    The quarters of decay share their border frames, as in the official kits. (Those kits count in 8 bits there, which
    goes wrong from 256 frames on; this does not.)
    """
    frames = np.asarray(values, np.float64)
    if not len(frames):
        raise ValueError("no frame to score: the first and the last do not count")
    # Half is rounded up, as MATLAB does.
    borders = np.round(np.linspace(1, len(frames), _QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = frames[: borders[1] + 1], frames[borders[-2] :]
    return MeasureStatistics(
        mean=float(frames.mean()),
        recall=float((frames > RECALL_THRESHOLD).mean()),
        decay=float(first.mean() - last.mean()),
    )


def score_object(frames: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> ObjectScores:
    """J and F of one object.

    Args:
        frames: mask and annotation, [H, W] bool each, of the frames that count: all but the first and the last.
    """
    region, boundary = [], []
    for mask, truth in frames:
        region.append(region_similarity(mask, truth))
        boundary.append(boundary_accuracy(mask, truth))
    return ObjectScores(summarise(region), summarise(boundary))


def davis_scores(objects: Collection[ObjectScores]) -> ObjectScores:
    """The benchmark's means over at least one object."""
    if not objects:
        raise ValueError("no object to score")
    return ObjectScores(_mean([scores.region for scores in objects]), _mean([scores.boundary for scores in objects]))


def _mean(statistics: Sequence[MeasureStatistics]) -> MeasureStatistics:
    return MeasureStatistics(
        mean=float(np.mean([measured.mean for measured in statistics])),
        recall=float(np.mean([measured.recall for measured in statistics])),
        decay=float(np.mean([measured.decay for measured in statistics])),
    )
