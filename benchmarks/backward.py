"""Would a second pass, backward from the last trusted frame, tell good masks from bad ones better than `quality` does?

    python -m benchmarks.backward WEIGHTS INDEX [INDEX…] --seconds 600 --out benchmarks/results/backward.json

Synthetic clips of held-out pictures (`training/mini/quality_runs.py`) are tracked forward from a mask or a box, then
backward from the last frame whose quality is at least 0.6, with its mask as the prompt. Two things may tell of a mask:
how far both passes agree on its frame, and how far the backward pass finds the prompt again, which is known to be true.
A measure's AUROC is how often it is lower for a bad mask (IoU below 0.7) than for a good one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cpu_tracker import processor
from rts_batch.config import GOOD_IOU, QualityMap
from rts_batch.masks import TrackedFrame, jaccard, mask_box
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.quality import History
from rts_batch.training.clips.batches import clip_generator
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.mini.quality import auroc
from rts_batch.training.mini.quality_runs import long_clip
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import Weights, load_weights

TRUSTED = 0.6
"""Quality of a frame that the backward pass may start from."""


def both_ways(networks: Any, weights: Weights, clip: TruthClip, *, box: bool) -> dict[str, NDArray[Any]]:
    """Return IoU, quality and what the backward pass says of every frame up to the one that it starts from."""
    model, sta = networks
    quality = weights.quality
    assert quality is not None
    tight = mask_box(clip.masks[0])
    assert tight is not None
    forward = fast_tracker(model, weights.tracker_config, sta=sta)
    drawn = tuple(float(value) for value in tight)
    prompt = forward.start(clip.frames[0], mask=None if box else clip.masks[0], box=drawn if box else None)
    found = judged(prompt, [forward.step(image) for image in clip.frames[1:]], quality, box=box)
    trusted = [place for place, frame in enumerate(found) if place and frame.area and (frame.quality or 0) >= TRUSTED]
    last = trusted[-1] if trusted else 0
    backward = fast_tracker(model, weights.tracker_config)
    again = [backward.start(clip.frames[last], mask=found[last].mask)] if last else []
    again += [backward.step(clip.frames[place]) for place in range(last - 1, -1, -1)]
    agreement = [jaccard(one.mask, other.mask) for one, other in zip(found, reversed(again), strict=False)]
    frames = range(1, last + 1)
    return {
        "iou": np.array([jaccard(found[place].mask, clip.masks[place]) for place in frames]),
        "quality": np.array([found[place].quality for place in frames], float),
        "agreement": np.array([agreement[place] for place in frames]),
        "prompt found again": np.array([agreement[0] for _ in frames]),
    }


def judged(prompt: TrackedFrame, frames: list[TrackedFrame], quality: QualityMap, *, box: bool) -> list[TrackedFrame]:
    """Return the prompt's frame and the others with their quality."""
    history = History.from_prompt(prompt, from_box=box)
    return [prompt, *(history.judge(frame, quality) for frame in frames)]


def aurocs(rows: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return each measure's AUROC, and those of sums of the quality and a share of the others."""
    bad = rows["iou"] < GOOD_IOU
    measures = {name: rows[name] for name in ("quality", "agreement", "prompt found again")}
    for share in (0.25, 0.5):
        for name in ("agreement", "prompt found again"):
            measures[f"quality + {share} × {name}"] = rows["quality"] + share * rows[name]
    return {
        "frames": len(bad),
        "bad": round(float(bad.mean()), 3),
        "auroc": {name: round(auroc(values, bad), 3) for name, values in measures.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("indexes", type=Path, nargs="+", help="index.csv of stills, and of footage")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=991)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(given.weights)
    stills, films = read_index(given.indexes, split="held-out"), Films.read(given.indexes, split="held-out")
    networks = fast_networks(weights, "cpu")
    parts: dict[bool, list[dict[str, NDArray[Any]]]] = defaultdict(list)
    number, until = 0, time.monotonic() + given.seconds
    while time.monotonic() < until:
        clip, box = long_clip(stills, films, clip_generator(given.seed, number)), number % 2 == 1
        parts[box].append(both_ways(networks, weights, clip, box=box))
        number += 1
    rows = {
        box: {name: np.concatenate([part[name] for part in each]) for name in each[0]} for box, each in parts.items()
    }
    whole = {name: np.concatenate([each[name] for each in rows.values()]) for name in rows[False]}
    result = {
        "machine": processor(),
        "fingerprint": weights.fingerprint,
        "clips": number,
        "all": aurocs(whole),
        "from a mask": aurocs(rows[False]),
        "from a box": aurocs(rows[True]),
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
