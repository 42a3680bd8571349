"""Scores a run on a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import ResultsError, UsageError
from rts_batch.evaluation.benchmarks import (
    AnyBenchmark,
    BoxBenchmark,
    MaskBenchmark,
    VotBenchmark,
    find_benchmark,
)
from rts_batch.evaluation.layouts.masks import seen_categories
from rts_batch.evaluation.layouts.sequences import BoxSequence, MaskObject, MaskSequence, image_names, read_labels
from rts_batch.evaluation.layouts.vot import VotSequence
from rts_batch.evaluation.measures.boxes import (
    OVERLAP_THRESHOLDS,
    Protocol,
    box_curves,
    got10k_overlaps,
    mean_curves,
    overlap_scores,
)
from rts_batch.evaluation.measures.curves import region_similarity
from rts_batch.evaluation.measures.davis import ObjectScores, davis_scores, score_object
from rts_batch.evaluation.measures.vot import score_sequence, vot_scores
from rts_batch.evaluation.predictions import Predictions


@dataclass(frozen=True)
class PlotLine:
    """A line of a plot: the part of the frames (0 to 1) that pass each threshold."""

    thresholds: tuple[float, ...]
    parts: tuple[float, ...]


@dataclass(frozen=True)
class BenchmarkScores:
    """The scores of a run on a benchmark, all as parts of 1; `published` in percent, as papers print them."""

    benchmark: str
    title: str
    run: str
    measures: Mapping[str, float]
    sequences: Mapping[str, Mapping[str, float]]
    """By sequence; of mask benchmarks by `<sequence>/<object>`."""
    published: Mapping[str, float]
    unchecked: tuple[str, ...] = ()
    """Published values that are not confirmed, see `Benchmark.unchecked`."""
    weights: tuple[str, ...] = ()
    """Fingerprints of the weights that the run used."""
    init: str | None = None
    """What the tracker was given, `mask` or `box`; None where the run does not say."""
    missing: tuple[str, ...] = ()
    """Sequences that the run has not finished and that are not in the scores."""
    uncounted: tuple[str, ...] = ()
    """Objects, `<sequence>/<object>`, that are annotated on the frame where they are given only; not in the scores."""
    curves: Mapping[str, PlotLine] = field(default_factory=dict)


def score(benchmark: str, root: Path, run: str, *, partial: bool = False) -> BenchmarkScores:
    """Score a run on a benchmark.

    Args:
        benchmark: its name, see `BENCHMARKS`.
        root: the folder that it is unpacked in.
        run: the run's folder, path or URI.
        partial: leave out the sequences that the run has not finished, instead of refusing.

    Raises:
        UsageError: no such benchmark, a layout that is not its own, or annotations that are not public.
        ResultsError: sequences are not finished, or what the run holds does not fit the benchmark.
    """
    chosen = find_benchmark(benchmark)
    predictions = Predictions(run)
    everything: Sequence[BoxSequence | MaskSequence | VotSequence] = chosen.sequences(root.resolve())
    missing = tuple(sequence.name for sequence in everything if not _videos(sequence) <= predictions.video_ids)
    if missing and (not partial or len(missing) == len(everything)):
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ResultsError(
            f"{run} lacks {len(missing)} of the {len(everything)} sequences of {chosen.title}: {names}; finish the run"
            + ("" if len(missing) == len(everything) else ", or score what there is with --partial")
        )
    finished = [sequence for sequence in everything if sequence.name not in missing]
    found = _measure(chosen, finished, predictions, root.resolve())
    # The paper's values for masks say nothing about a run from boxes.
    comparable = isinstance(chosen, BoxBenchmark) or predictions.init != "box"
    published = {name: value for name, value in chosen.published.items() if comparable and name in found.measures}
    return BenchmarkScores(
        benchmark=chosen.name,
        title=chosen.title,
        run=run,
        measures=found.measures,
        sequences=found.sequences,
        published=published,
        unchecked=tuple(sorted(chosen.unchecked & published.keys())),
        weights=predictions.weights,
        init=predictions.init,
        missing=missing,
        uncounted=found.uncounted,
        curves=found.curves,
    )


Scores = dict[str, float]


class _Measured(NamedTuple):
    """What `BenchmarkScores` says of them."""

    measures: Scores
    sequences: dict[str, Scores]
    curves: Mapping[str, PlotLine] = {}
    uncounted: tuple[str, ...] = ()


def _measure(chosen: AnyBenchmark, finished: Sequence[Any], predictions: Predictions, root: Path) -> _Measured:
    """Measure the benchmark's own `finished` sequences in its own way."""
    if isinstance(chosen, MaskBenchmark):
        return _score_masks(chosen, finished, predictions, seen_categories(root))
    if isinstance(chosen, VotBenchmark):
        return _score_vot(finished, predictions)
    if chosen.protocol is None:
        return _score_got10k(finished, predictions)
    return _score_boxes(finished, predictions, chosen.protocol)


def _score_boxes(sequences: Sequence[BoxSequence], predictions: Predictions, protocol: Protocol) -> _Measured:
    curves = {}
    for sequence in sequences:
        boxes = _boxes(sequence, predictions)
        curves[sequence.name] = box_curves(boxes, sequence.truth, sequence.absent, protocol)
    total = mean_curves(list(curves.values()))
    pixels = tuple(protocol.pixel_thresholds.tolist())
    lines = {
        "success": PlotLine(tuple(OVERLAP_THRESHOLDS.tolist()), tuple(total.success.tolist())),
        "precision": PlotLine(pixels, tuple(total.precision.tolist())),
        "normalised_precision": PlotLine(tuple(pixel / 100 for pixel in pixels), tuple(total.normalised.tolist())),
    }
    return _Measured(total.scores(protocol), {name: one.scores(protocol) for name, one in curves.items()}, lines)


def _score_got10k(sequences: Sequence[BoxSequence], predictions: Predictions) -> _Measured:
    values = {}
    for sequence in sequences:
        boxes = _boxes(sequence, predictions)
        with Image.open(sequence.folder / image_names(sequence.folder)[0]) as image:
            width, height = image.size
        values[sequence.name] = got10k_overlaps(boxes, sequence.truth, sequence.absent, width=width, height=height)
    per_sequence = {name: overlap_scores(one) for name, one in values.items() if len(one)}
    if not per_sequence:
        raise ResultsError("no frame counts: the target is hidden in all but the given frames")
    return _Measured(overlap_scores(np.concatenate(list(values.values()))), per_sequence)


def _boxes(sequence: BoxSequence, predictions: Predictions) -> np.ndarray[Any, np.dtype[np.float64]]:
    if len(sequence.truth) == 1 and len(image_names(sequence.folder)) > 1:
        raise UsageError(
            f"{sequence.name} is annotated in its first frame only: this benchmark's server scores it; TrackingNet's "
            "takes the archive that --archive makes, GOT-10k's one that this version does not write"
        )
    return predictions.boxes(sequence.name, start=sequence.start, frames=len(sequence.truth))


def _videos(sequence: BoxSequence | MaskSequence | VotSequence) -> set[str]:
    """The videos of a run that a sequence needs."""
    if isinstance(sequence, VotSequence):
        return {sequence.run_name(anchor) for anchor in sequence.anchors}
    return {sequence.name}


def _score_vot(sequences: Iterable[VotSequence], predictions: Predictions) -> _Measured:
    overlaps, lengths = {}, {}
    for sequence in sequences:
        overlaps[sequence.name] = list(_run_overlaps(sequence, predictions))
        lengths[sequence.name] = len(sequence.regions)
    total = vot_scores(overlaps, lengths)
    curve = PlotLine(tuple(map(float, range(len(total.curve)))), tuple(total.curve.tolist()))
    return _Measured(
        {"eao": total.eao, "accuracy": total.accuracy, "robustness": total.robustness},
        {name: asdict(score_sequence(runs)) for name, runs in overlaps.items()},
        {"eao": curve},
    )


def _run_overlaps(sequence: VotSequence, predictions: Predictions) -> Iterator[NDArray[np.float64]]:
    """The overlaps of each of a sequence's runs, in the order in which its frames were tracked."""
    for anchor in sequence.anchors:
        frames = sequence.frames_of(anchor)
        found = predictions.masks(
            sequence.run_name(anchor), 1, start=min(frames), wanted=range(min(frames), max(frames) + 1)
        )
        try:
            overlaps = np.array([region_similarity(mask, sequence.truth(frame)) for frame, mask in found])
        except ValueError as error:
            raise ResultsError(f"{sequence.run_name(anchor)}: {error}") from error
        yield overlaps if anchor.forward else overlaps[::-1]


def _score_masks(
    benchmark: MaskBenchmark,
    sequences: Iterable[MaskSequence],
    predictions: Predictions,
    seen: frozenset[str] | None,
) -> _Measured:
    davis = benchmark.kind == "davis"
    uncounted: list[str] = []
    scores: dict[str, ObjectScores] = {}
    is_seen: dict[str, bool] = {}
    for sequence in sequences:
        labels = cache(lambda frame, paths=sequence.labels: read_labels(paths[frame]))
        for target in sequence.objects:
            name = f"{sequence.name}/{target.object_id}"
            wanted = _frames_that_count(sequence, target, skip_last=davis)
            if not wanted:
                uncounted.append(name)
                continue
            pairs = (
                (mask, sequence.mask(labels(frame), target.object_id))
                for frame, mask in predictions.masks(sequence.name, target.object_id, start=target.start, wanted=wanted)
            )
            try:
                scores[name] = score_object(pairs)
            except ValueError as error:
                raise ResultsError(f"{name}: {error}") from error
            is_seen[name] = seen is None or target.category in seen
    per_object = {
        name: {"j": one.region.mean, "f": one.boundary.mean, "j_and_f": one.mean} for name, one in scores.items()
    }
    if davis:
        total = davis_scores(scores.values())
        measures = {
            "j_and_f": total.mean,
            **{f"j_{name}": value for name, value in asdict(total.region).items()},
            **{f"f_{name}": value for name, value in asdict(total.boundary).items()},
        }
        return _Measured(measures, per_object)
    if not scores:
        raise UsageError(f"{', '.join(uncounted[:5])}: no object has an annotated frame that counts")
    measures = _youtubevos_measures(per_object, is_seen if seen is not None else None)
    return _Measured(measures, per_object, uncounted=tuple(uncounted))


def _frames_that_count(sequence: MaskSequence, target: MaskObject, *, skip_last: bool) -> list[int]:
    """Those annotated after the one that is given; of DAVIS not the sequence's last. Empty where there is none."""
    frames = target.annotated if target.annotated is not None else sorted(sequence.labels)
    last = len(sequence.frames) - 1
    wanted = [frame for frame in frames if frame > target.start and not (skip_last and frame == last)]
    if absent := [frame for frame in wanted if frame not in sequence.labels]:
        raise UsageError(
            f"{sequence.name}: frame {sequence.frames[absent[0]]} has no annotation; where they are not public, the "
            "benchmark's server scores: make the archive to hand in with --archive"
        )
    if not wanted and target.annotated is None:
        raise UsageError(f"{sequence.name}: object {target.object_id} has no annotated frame that counts")
    return wanted


def _youtubevos_measures(objects: Mapping[str, Mapping[str, float]], is_seen: Mapping[str, bool] | None) -> Scores:
    """Means over objects; G, the mean of J and F over seen and unseen categories, needs both kinds."""
    measures = {name: float(np.mean([scores[name] for scores in objects.values()])) for name in ("j", "f")}
    if is_seen is None or len(set(is_seen.values())) < 2:
        return measures
    for group, wanted in (("seen", True), ("unseen", False)):
        for name in ("j", "f"):
            values = [one[name] for key, one in objects.items() if is_seen[key] is wanted]
            measures[f"{name}_{group}"] = float(np.mean(values))
    parts = [measures[f"{name}_{group}"] for name in ("j", "f") for group in ("seen", "unseen")]
    return {"g": float(np.mean(parts)), **measures}
