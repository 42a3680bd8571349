"""Measures how well `quality` knows the IoU of a mask: on a folder in DAVIS's layout, every frame but the prompts.

    python -m benchmarks.quality DAVIS_FOLDER WEIGHTS --out benchmarks/results/quality [--runs RUNS.npz]

Each sequence is tracked from its first mask and from the box around it. Writes OUT.json and the reliability curve
OUT.svg; `--runs` keeps what was tracked, or takes it from there. The folder must not have been used to fit the map.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.config import QualityMap
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.quality import INPUTS, expected_iou
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.mini.quality import Judged, measured
from rts_batch.training.mini.quality_runs import Runs, track
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import Weights, load_weights

BINS = 10
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--out", type=Path, required=True, help="results without their suffix")
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(options.weights)
    runs = kept_runs(options.runs, lambda: clip_runs(davis_clips(options.davis), weights))
    assert weights.quality is not None, "the weights have no map; fit one with rts_batch.training.mini.quality"
    inputs = runs.inputs()
    quality = expected_iou(weights.quality, inputs)
    results = {
        "fingerprint": weights.fingerprint,
        "map": weights.quality.fingerprint,
        "threshold": weights.quality.threshold,
        "data": options.davis.name,
        "starts": {
            name: results_of(quality, inputs, runs, which, weights.quality)
            for name, which in (("mask", ~runs.from_box), ("box", runs.from_box))
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    options.out.with_suffix(".svg").write_text(reliability_svg(quality, runs))
    print(json.dumps(results, indent=1))


def kept_runs(path: Path | None, track_all: Callable[[], Runs]) -> Runs:
    """Return what was tracked before, where `path` has it; otherwise track, and keep it there if there is a path."""
    if path and path.is_file():
        return Runs.load(path)
    runs = track_all()
    if path:
        runs.save(path)
    return runs


def clip_runs(clips: Iterable[tuple[TruthClip, bool]], weights: Weights) -> Runs:
    """Track clips, each from its first mask or, where it says so, from that mask's box."""
    model, sta = fast_networks(weights, "cpu")
    rows: list[dict[str, Any]] = []
    for number, (clip, box) in enumerate(clips):
        tracker = fast_tracker(model, weights.tracker_config, sta=sta)
        rows.extend({"clip": number, **row} for row in track(tracker, clip, box=box))
    return Runs.of(rows)


def davis_clips(folder: Path) -> Iterator[tuple[TruthClip, bool]]:
    """Yield every sequence to be tracked from its first mask, and then all of them from that mask's box."""
    names = sorted(path.name for path in (folder / "Annotations" / "480p").iterdir())
    for box in (False, True):
        for name in names:
            yield read_clip(folder, name), box


def read_clip(folder: Path, name: str) -> TruthClip:
    """Read one sequence whole."""
    labels = sorted((folder / "Annotations" / "480p" / name).glob("*.png"))
    masks = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in labels])
    pictures = folder / "JPEGImages" / "480p" / name
    frames = np.stack([cv2.imread(str(pictures / f"{path.stem}.jpg"))[..., ::-1] for path in labels])
    return TruthClip(frames, masks, np.zeros_like(masks))


def results_of(
    quality: NDArray[np.float64],
    inputs: NDArray[np.float64],
    runs: Runs,
    which: NDArray[np.bool_],
    judged_by: QualityMap,
) -> dict[str, Any]:
    """Return the measures of the estimate, of `confidence` and of `score` over some frames, and risk by coverage."""
    some = Runs(**{name: values[which] for name, values in vars(runs).items()})
    marks = {"quality": quality[which]}
    marks |= {
        name: inputs[which, INPUTS.index(column)] for name, column in (("confidence", "confidence"), ("score", "peak"))
    }
    lost = Judged.by(judged_by, inputs[which]).lost(some, judged_by.lost_below)
    found: dict[str, Any] = {}
    for name, values in marks.items():
        judged = (judged_by.threshold, lost) if name == "quality" else (-np.inf,)
        found[name] = {key: round(float(value), 4) for key, value in measured(values, some, *judged).items()}
        found[name]["by_coverage"] = {str(share): round(risk, 4) for share, risk in coverage(values, some.iou)}
    return found


def coverage(marks: NDArray[np.float64], iou: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Yield the mean IoU of the best-marked part of the frames, for each of `COVERAGES`."""
    order = np.argsort(-marks, kind="stable")
    for share in COVERAGES:
        yield share, float(iou[order[: max(1, round(share * len(order)))]].mean())


def reliability_svg(quality: NDArray[np.float64], runs: Runs) -> str:
    """Draw the mean IoU of the frames in each tenth of the estimate's range; a point's size is their number."""
    size, margin = 320, 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size + 2 * margin} {size + 2 * margin}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        "<title>Reliability: mean IoU of frames by their quality</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<path d="M{margin} {margin + size}L{margin + size} {margin}" stroke="#999" stroke-dasharray="4 4"/>',
        f'<rect x="{margin}" y="{margin}" width="{size}" height="{size}" fill="none" stroke="#444"/>',
        f'<text x="{margin + size / 2}" y="{2 * margin + size - 8}" text-anchor="middle">quality</text>',
        f'<text transform="translate(14 {margin + size / 2}) rotate(-90)" text-anchor="middle">mean IoU</text>',
    ]
    for step in range(0, 11, 2):
        at = size * step / 10
        parts.append(f'<text x="{margin + at}" y="{margin + size + 16}" text-anchor="middle">{step / 10:g}</text>')
        parts.append(f'<text x="{margin - 6}" y="{margin + size - at + 4}" text-anchor="end">{step / 10:g}</text>')
    for name, which, colour in (("mask", ~runs.from_box, "#0b63c5"), ("box", runs.from_box, "#c2410c")):
        points = list(reliability(quality[which], runs.iou[which]))
        line = " ".join(f"{margin + size * x:.1f},{margin + size * (1 - y):.1f}" for x, y, _ in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for x, y, share in points:
            radius = 2 + 14 * share**0.5
            at = f'cx="{margin + size * x:.1f}" cy="{margin + size * (1 - y):.1f}"'
            parts.append(f'<circle {at} r="{radius:.1f}" fill="{colour}" fill-opacity="0.35"/>')
        place = 20 if name == "mask" else 36
        parts.append(f'<text x="{margin + 10}" y="{margin + place}" fill="{colour}">started from a {name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def reliability(quality: NDArray[np.float64], iou: NDArray[np.float64]) -> Iterator[tuple[float, float, float]]:
    """Yield the mean quality, the mean IoU and the share of the frames of each tenth of the range that has any."""
    tenths = np.minimum((quality * BINS).astype(int), BINS - 1)
    for tenth in np.unique(tenths):
        which = tenths == tenth
        yield float(quality[which].mean()), float(iou[which].mean()), float(which.mean())


if __name__ == "__main__":
    main()
