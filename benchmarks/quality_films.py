"""Measures how well `quality` knows the IoU of a mask on real footage: objects of an index's films that come and go.

    python -m benchmarks.quality_films INDEX WEIGHTS --out benchmarks/results/quality-films.json [--runs RUNS.npz]

Every object that is large enough on every 25th frame is followed for 49 frames, from its mask and from the box around
it. The films of train-pack-2 show persons, cars and fruit before cameras that stand still; most of their frames have
trained the tracker, none the map.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.quality import clip_runs, kept_runs
from rts_batch.tracking.quality import INPUTS
from rts_batch.training.clips.stills.films import SMALLEST_START, Films
from rts_batch.training.clips.stills.stills import read_image, read_mask
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.mini.quality import Judged, measured
from rts_batch.weights.registry import load_weights

STEP, FRAMES, FEWEST = 25, 50, 10
"""Frames from one start to the next, of a clip, and of the shortest clip."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, help="keeps what was tracked, or takes it from there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(options.weights)
    clips = ((clip, box) for clip in film_clips(options.index) for box in (False, True))
    runs = kept_runs(options.runs, lambda: clip_runs(clips, weights))
    assert weights.quality is not None, "the weights have no map; fit one with rts_batch.training.mini.quality"
    inputs = runs.inputs()
    judged, quality = Judged.by(weights.quality, inputs), weights.quality
    lost = judged.lost(runs, quality.lost_below)
    results = {
        "fingerprint": weights.fingerprint,
        "map": quality.fingerprint,
        "clips": len(np.unique(runs.clip)),
        "quality": measured(judged.iou, runs, quality.threshold, lost),
        "confidence": measured(inputs[:, INPUTS.index("confidence")], runs, quality.threshold),
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def film_clips(index: Path) -> Iterator[TruthClip]:
    """Yield a clip for each object that is there at each start, of both splits' frames in their order."""
    train, held_out = (Films.read([index], split=split).sequences for split in ("train", "held-out"))
    for name in sorted(train):
        rows = [(path, mask) for path, mask in (*train[name], *held_out.get(name, ())) if mask is not None]
        for start in range(0, len(rows) - FEWEST, STEP):
            some = rows[start : start + FRAMES]
            labels = np.stack([read_mask(mask) for _, mask in some])
            areas = np.bincount(labels[0].ravel())
            frames = np.stack([read_image(path) for path, _ in some])
            for place in range(1, len(areas)):
                if areas[place] >= SMALLEST_START * labels[0].size:
                    yield TruthClip(frames, labels == place, np.zeros_like(labels, bool))


if __name__ == "__main__":
    main()
