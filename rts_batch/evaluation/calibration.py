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
from rts_batch.evaluation.measures.curves import region_similarity
from rts_batch.runs.reading import Masks
from rts_batch.weights.registry import Weights, default_quality

FEWEST: Final = 50
"""Masks that a fit needs."""

LEAST_STRETCH: Final = 0.05
"""With one above zero the order of the masks stays as it is."""


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
            try:
                yield row.quality, region_similarity(row.mask(), true)
            except ValueError as error:
                raise ResultsError(f"{video.file}: frame {row.frame} of {sequence.name}: {error}") from error


def recalibrate(
    quality: QualityMap, estimates: NDArray[np.float64], ious: NDArray[np.float64], *, about: str
) -> QualityMap:
    """Return the map whose logit is stretched and shifted so that it expects the mean IoU `[N]` of estimates `[N]`."""
    near = np.clip(estimates, 1e-4, 1 - 1e-4)
    design = np.stack([np.log(near / (1 - near)), np.ones_like(near)], axis=1)
    weights = _fitted(design, ious, np.array([1.0, 0.0]))
    if weights[0] < LEAST_STRETCH:
        alone = _fitted(design[:, 1:], ious, np.zeros(1), given=LEAST_STRETCH * design[:, 0])
        weights = np.array([LEAST_STRETCH, alone[0]])
    stretch, shift = map(float, weights)
    after = np.exp(-np.logaddexp(0, -design @ weights))
    good = after[ious >= GOOD_IOU]
    threshold = round(float(np.quantile(good, GOOD_LEFT_OUT)), 3) if len(good) else quality.threshold
    return dataclasses.replace(
        quality,
        origin=f"{quality.origin}; scaled on {about}",
        threshold=threshold,
        stretch=stretch * quality.stretch,
        shift=stretch * quality.shift + shift,
    )


def _fitted(
    design: NDArray[np.float64],
    ious: NDArray[np.float64],
    prior: NDArray[np.float64],
    *,
    given: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Return the weights `[K]` of least cross entropy between IoUs `[N]` and the share of `given + design @ weights`.

    They are held near `prior` by one observation's weight, which also gives the loss one minimum.
    """

    def loss(weights: NDArray[np.float64]) -> float:
        logits = given + design @ weights
        return float((np.logaddexp(0, logits) - ious * logits).sum() + ((weights - prior) ** 2).sum() / 2)

    weights = prior
    for _ in range(100):
        expected = np.exp(-np.logaddexp(0, -(given + design @ weights)))
        slope = design.T @ (expected - ious) + (weights - prior)
        bend = (design * (expected * (1 - expected))[:, None]).T @ design + np.eye(len(prior))
        step = np.linalg.solve(bend, slope)
        # Where the estimates are far off the parabola is not the loss, and Newton's whole step leads anywhere.
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights
