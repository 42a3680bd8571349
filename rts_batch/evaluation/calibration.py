"""Fits the quality of weights to annotated footage: what a run estimated, against the IoU that its masks have.

The estimate's order stays as it is; what it says as a number is stretched and shifted (Platt's scaling of its logit).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.config import GOOD_IOU, GOOD_LEFT_OUT, QualityMap
from rts_batch.errors import ResultsError, UsageError
from rts_batch.evaluation.benchmarks import find_benchmark
from rts_batch.evaluation.layouts.sequences import MaskSequence, read_labels
from rts_batch.masks import jaccard
from rts_batch.runs.reading import Masks
from rts_batch.weights.registry import Weights, default_quality

__all__ = ["calibrated", "estimates_and_ious", "recalibrate"]

FEWEST: Final = 50
"""Masks that a fit needs."""


def calibrated(weights: Weights, benchmark: str, root: Path, run: str) -> Weights:
    """Return the weights with a map that fits a run of theirs on an annotated benchmark.

    Raises:
        UsageError: a benchmark without masks.
        ResultsError: the run is not of these weights and their map, or has too few estimates.
    """
    quality = weights.quality or default_quality()
    if quality is None:
        raise UsageError("these weights have no quality map to fit, and this installation has no default one")
    for video in Masks(run):
        if video.weights != weights.fingerprint:
            raise ResultsError(f"{run}: {video.video_id!r} was tracked with other weights; name those with --weights")
    estimates, ious = estimates_and_ious(benchmark, root, run, quality)
    fitted = recalibrate(quality, estimates, ious, about=f"{len(ious)} masks of {benchmark}")
    return dataclasses.replace(weights, quality=fitted)


def estimates_and_ious(
    benchmark: str, root: Path, run: str, quality: QualityMap
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the quality and the IoU of every annotated row that has a quality, `[N]` each."""
    pairs = []
    masks = Masks(run)
    for sequence in find_benchmark(benchmark).sequences(root.resolve()):
        if not isinstance(sequence, MaskSequence):
            raise UsageError(f"{benchmark} is not annotated with masks, so no IoU is known")
        pairs += list(_pairs(sequence, masks, quality))
    if len(pairs) < FEWEST:
        raise ResultsError(f"{run} has {len(pairs)} annotated masks with a quality; a fit needs {FEWEST}")
    estimates, ious = np.array(pairs).T
    return estimates, ious


def _pairs(sequence: MaskSequence, masks: Masks, quality: QualityMap) -> Iterator[tuple[float, float]]:
    video = masks.video(sequence.name)
    said = video.quality
    if said is not None and said.get("map") != quality.fingerprint:
        raise ResultsError(f"{video.file}: its quality is of another map; track it again with these weights")
    for row in video.rows([target.object_id for target in sequence.objects]):
        if row.quality is not None and row.frame in sequence.labels:
            true = sequence.mask(read_labels(sequence.labels[row.frame]), row.object_id)
            yield row.quality, jaccard(row.mask(), true)


def recalibrate(
    quality: QualityMap, estimates: NDArray[np.float64], ious: NDArray[np.float64], *, about: str
) -> QualityMap:
    """Return the map whose logit is stretched and shifted so that it expects the mean IoU `[N]` of estimates `[N]`."""
    near = np.clip(estimates, 1e-4, 1 - 1e-4)
    logits = np.log(near / (1 - near))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    weights, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(50):  # Newton's steps of the cross entropy, held near the map as it is by one observation's weight
        expected = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (expected - ious) + (weights - prior)
        bend = (design * (expected * (1 - expected))[:, None]).T @ design + np.eye(2)
        weights = weights - np.linalg.solve(bend, slope)
        weights[0] = max(weights[0], 0.05)  # the order must stay
    stretch, shift = map(float, weights)
    after = 1 / (1 + np.exp(-design @ weights))
    good = after[ious >= GOOD_IOU]
    threshold = round(float(np.quantile(good, GOOD_LEFT_OUT)), 3) if len(good) else quality.threshold
    return dataclasses.replace(
        quality,
        origin=f"{quality.origin}; scaled on {about}",
        threshold=threshold,
        stretch=stretch * quality.stretch,
        shift=stretch * quality.shift + shift,
    )
