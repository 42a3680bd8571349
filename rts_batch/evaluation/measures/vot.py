"""The measures of VOT2020-ST: expected average overlap, accuracy and robustness, from runs that begin at anchors.

Kristan et al., *The Eighth Visual Object Tracking VOT2020 Challenge Results*, ECCV workshops 2020. A run is never
started again: it ends at its first failure. Where the paper leaves room, vot-toolkit's answers on a made data set
decide; the tests hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

FAILURE_OVERLAP: Final = 0.1
"""A tracker fails where the overlap is not above …"""
FAILURE_FRAMES: Final = 10
"""… on so many frames in a row, the first of which counts as the failure."""
EAO_INTERVAL: Final = (115, 755)
"""Lengths of runs over which the expected average overlap is averaged: from the first to before the second."""


@dataclass(frozen=True)
class SequenceScores:
    """One sequence, as parts of 1."""

    accuracy: float
    """Mean overlap on the frames before the failures."""
    robustness: float
    """Part of the frames that lie before the failures."""


@dataclass(frozen=True)
class VotScores:
    """The benchmark's numbers, as parts of 1."""

    eao: float
    accuracy: float
    robustness: float
    curve: Values
    """[755], the overlap that is to be expected of a run of so many frames."""


def frames_before_failure(overlaps: Values) -> int | None:
    """How many frames of a run [N], the anchor included, come before its failure; None where it does not fail."""
    low = np.asarray(overlaps) <= FAILURE_OVERLAP
    low[0] = False  # the anchor's mask is given
    for frame in range(1, len(low) - FAILURE_FRAMES + 1):
        if low[frame : frame + FAILURE_FRAMES].all():
            return frame
    return None


def score_sequence(runs: Sequence[Values]) -> SequenceScores:
    """The scores of one sequence.

    Args:
        runs: the overlaps [N] of each run, in the order in which the frames were tracked. The first is the anchor's,
            whose mask is given: it counts as a frame, but its overlap as 0, as vot-toolkit has it.
    """
    tracked = sum(_tracked(run) for run in runs)
    overlap = sum(float(run[1 : _tracked(run)].sum()) for run in runs)
    return SequenceScores(accuracy=overlap / tracked, robustness=tracked / sum(map(len, runs)))


def vot_scores(sequences: Mapping[str, Sequence[Values]], lengths: Mapping[str, int]) -> VotScores:
    """The benchmark's scores.

    Args:
        sequences: the runs of each sequence, see `score_sequence`.
        lengths: the frames of each sequence, whose robustness weighs as many.
    """
    scores = {name: score_sequence(runs) for name, runs in sequences.items()}
    tracked = {name: sum(_tracked(run) for run in runs) for name, runs in sequences.items()}
    curve = _expected_overlap([run for runs in sequences.values() for run in runs])
    return VotScores(
        eao=float(curve[EAO_INTERVAL[0] :].mean()),
        accuracy=_weighted({name: one.accuracy for name, one in scores.items()}, tracked),
        robustness=_weighted({name: one.robustness for name, one in scores.items()}, lengths),
        curve=curve,
    )


def _tracked(run: Values) -> int:
    before = frames_before_failure(run)
    return len(run) if before is None else before


def _weighted(values: Mapping[str, float], weights: Mapping[str, int]) -> float:
    return sum(value * weights[name] for name, value in values.items()) / sum(weights[name] for name in values)


def _expected_overlap(runs: Sequence[Values]) -> Values:
    """The mean over runs of their average overlaps up to each frame.

    A run that did not fail counts up to its own length, one that failed at any length, with overlap 0 from the failure
    on. The anchor is not counted; past a failed run's own length vot-toolkit divides by one frame less than that.
    """
    longest = EAO_INTERVAL[1]
    total, counted = np.zeros(longest), np.zeros(longest)
    for run in runs:
        before = frames_before_failure(run)
        overlaps = np.where(np.arange(len(run)) < _tracked(run), run, 0.0)
        overlaps[0] = 0
        divisors = np.maximum(np.arange(longest), 1)
        divisors[len(run) :] -= 1
        sums = np.zeros(longest)
        shown = min(len(run), longest)
        sums[:shown] = np.cumsum(overlaps)[:shown]
        sums[shown:] = sums[shown - 1]
        end = shown if before is None else longest
        total[:end] += sums[:end] / divisors[:end]
        counted[:end] += 1
    return np.divide(total, counted, out=np.zeros(longest), where=counted > 0)
