"""Measures what a single correction mends, how far it reaches, and whether `quality` knows where most is to be mended.

    python -m benchmarks.mending INDEX [INDEX…] --seconds 1500 --out benchmarks/results/mending.json

Clips of held-out pictures and films are followed with `rts-mini`, every second one from a box. Then, for a few frames
of each, drawn at random, the run is repeated with the true mask as a prompt on that frame. What is gained is the IoU,
summed over the frames from there on that show the target; a correction's rank is that of what `show --worst` expects.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality_films import film_clips
from rts_batch.masks import jaccard
from rts_batch.review.worst import expected_gains
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.quality import History, expected_iou
from rts_batch.training.clips.batches import clip_generator
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.mini.quality_runs import long_clip, start_on
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import Weights, load_weights

SEED = 4200
CORRECTIONS = 3
"""Of each clip, at most."""
SMALLEST = 100
"""Pixels of a target that is corrected."""
DISTANCES = ((1, 4), (4, 8), (8, 16), (16, 30), (30, 60))
SHARES = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Correction:
    """One prompt in the middle of a clip; arrays from the corrected frame on, `[N]`."""

    clip: int
    before: NDArray[np.float64]
    """IoU without the correction."""
    after: NDArray[np.float64]
    """IoU with it."""
    quality: NDArray[np.float64]
    """The estimates without it."""
    visible: NDArray[np.bool_]

    @property
    def gain(self) -> float:
        return float((self.after - self.before)[self.visible].sum())

    @property
    def expected(self) -> float:
        return float(expected_gains(1.0 - self.quality)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexes", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights("rts-mini")
    report = summary(list(corrections(clips(options.indexes), weights, options.seconds)), weights)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def clips(indexes: list[Path]) -> Iterator[TruthClip]:
    """Yield two drawn clips and one of real footage in turns, until there is no more footage."""
    stills, films = read_index(indexes, split="held-out"), Films.read(indexes, split="held-out")
    for number, film in enumerate(film_clips(indexes[-1])):
        yield film
        for drawn in (2 * number, 2 * number + 1):
            yield long_clip(stills, films, clip_generator(SEED, drawn))


def corrections(clips: Iterator[TruthClip], weights: Weights, seconds: float) -> Iterator[Correction]:
    """Track clips, and again with each correction, until the time is up."""
    model, sta = fast_networks(weights, "cpu")
    rng, until = np.random.default_rng(SEED), time.monotonic() + seconds
    for number, clip in enumerate(clips):
        if time.monotonic() > until:
            return
        box = bool(number % 2)
        tracker = fast_tracker(model, weights.tracker_config, sta=sta)
        history = History.from_prompt(start_on(tracker, clip, box=box), from_box=box)
        places = sorted(set(rng.integers(3, len(clip.frames) - 5, CORRECTIONS).tolist()))
        states, before, inputs = {}, [], []
        for place in range(1, len(clip.frames)):
            if place in places:
                states[place] = tracker.snapshot()
            frame = tracker.step(clip.frames[place])
            before.append(jaccard(frame.mask, clip.masks[place]))
            inputs.append(history.inputs(frame))
        assert weights.quality is not None
        quality = expected_iou(weights.quality, np.array(inputs))
        for place, state in states.items():
            if clip.masks[place].sum() >= SMALLEST:
                again = fast_tracker(model, weights.tracker_config, sta=sta)
                again.restore(state)
                again.correct(clip.frames[place], mask=clip.masks[place])
                pairs = zip(clip.frames[place + 1 :], clip.masks[place + 1 :], strict=True)
                after = [1.0, *(jaccard(again.step(image).mask, mask) for image, mask in pairs)]
                visible = clip.masks[place:].any((1, 2))
                rest = np.array(before[place - 1 :])
                yield Correction(number, rest, np.array(after), quality[place - 1 :], visible)


def summary(found: list[Correction], weights: Weights) -> dict[str, Any]:
    """Return the shares that are mended by distance, and the gain of those that are expected to bring most."""
    gains, expected = (np.array([getattr(each, name) for each in found]) for name in ("gain", "expected"))
    order = np.argsort(-expected)
    assert weights.quality is not None
    return {
        "fingerprint": weights.fingerprint,
        "map": weights.quality.fingerprint,
        "clips": len({each.clip for each in found}),
        "corrections": len(found),
        "gain": {
            "of all": round(float(gains.mean()), 2),
            "expected of all": round(float(expected.mean()), 2),
            **{
                f"of the {share:.0%} expected to bring most": round(
                    float(gains[order[: max(1, round(share * len(order)))]].mean()), 2
                )
                for share in SHARES
            },
            "rank correlation with what was expected": round(rank_correlation(gains, expected), 2),
        },
        "mended share of what both frames lack": {
            f"{low} to {high - 1} frames on": mended_share(found, low, high) for low, high in DISTANCES
        },
        "by what the corrected frame lacked": {
            name: mended_share([each for each in found if low < 1 - each.before[0] <= high], 1, 30)
            for name, low, high in (("up to 0.1", -1, 0.1), ("to 0.3", 0.1, 0.3), ("more", 0.3, 1.0))
        },
    }


def mended_share(found: list[Correction], low: int, high: int) -> float | None:
    """Return what is gained on frames so far from their correction, of what they and the corrected one lack."""
    gained = lacked = 0.0
    for each in found:
        there = slice(low, high)
        visible, before = each.visible[there], each.before[there]
        gained += float((each.after[there] - before)[visible].sum())
        lacked += float(np.minimum(1 - before, 1 - each.before[0])[visible].sum())
    return round(gained / lacked, 2) if lacked else None


def rank_correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return Spearman's correlation of two series without ties to speak of."""
    ranks = [values.argsort().argsort().astype(float) for values in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(left) > 1 else 0.0


if __name__ == "__main__":
    main()
