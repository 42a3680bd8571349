"""Measures what a second opinion would buy: each clip tracked back again, and how far both passes agree.

    python -m benchmarks.backward_check WEIGHTS INDEX [INDEX…] --out OUT.json [--seconds 420]

Held-out synthetic clips are tracked forward from the first mask or its box, and then backward from the last mask whose
quality reaches the weights' threshold. The agreement of a frame is the IoU of both masks. By clips that a fit has not
seen, quality alone, agreement alone and both together (a logistic of the two) are compared. The cost is twice the time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.masks import mask_box
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.quality import History
from rts_batch.tracking.tracker import Tracker
from rts_batch.training.clips.batches import clip_generator
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.mini.heldout import jaccard
from rts_batch.training.mini.quality import FOLDS, GOOD, auroc
from rts_batch.training.mini.quality_runs import long_clip
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import load_weights

SEED = 90
STEPS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("indexes", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=420, help="after which no further clip is begun")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(options.weights)
    assert weights.quality is not None, "the weights have no map"
    stills = read_index(options.indexes, split="held-out")
    films = Films.read(options.indexes, split="held-out")
    model, sta = fast_networks(weights, "cpu")
    rows: list[list[float]] = []
    number, until = 0, time.monotonic() + options.seconds
    while time.monotonic() < until:
        clip = long_clip(stills, films, clip_generator(SEED, number))
        trackers = [fast_tracker(model, weights.tracker_config, sta=sta) for _ in range(2)]
        rows += [[number, *row] for row in both_ways(trackers, clip, weights.quality, box=number % 2 == 1)]
        number += 1
    table = np.array(rows)
    document = {
        "command": "python -m benchmarks.backward_check WEIGHTS INDEX INDEX --out OUT",
        "fingerprint": weights.fingerprint,
        "clips": number,
        "frames": len(table),
        **{name: compared(table[which]) for name, which in parts_of(table).items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


def both_ways(trackers: list[Tracker], clip: TruthClip, quality: Any, *, box: bool) -> list[list[float]]:
    """Return box start, presence, IoU with the truth, quality and agreement of every frame but the first."""
    forward, backward = trackers
    tight = mask_box(clip.masks[0])
    assert tight is not None
    drawn = tuple(map(float, tight))
    first = forward.start(clip.frames[0], mask=None if box else clip.masks[0], box=drawn if box else None)  # type: ignore[arg-type]
    history = History.from_prompt(first, from_box=box)
    found = [history.judge(forward.step(image), quality) for image in clip.frames[1:]]
    trusted = [place for place, frame in enumerate(found) if frame.area and (frame.quality or 0) >= quality.threshold]
    agreement = np.zeros(len(found))
    if trusted:
        last = trusted[-1]
        backward.start(clip.frames[last + 1], mask=found[last].mask)
        agreement[last] = 1.0
        for place in range(last - 1, -1, -1):
            agreement[place] = jaccard(backward.step(clip.frames[place + 1]).mask, found[place].mask)
    return [
        [box, truth.any(), jaccard(frame.mask, truth), frame.quality or 0.0, agreed]
        for frame, truth, agreed in zip(found, clip.masks[1:], agreement.tolist(), strict=True)
    ]


def parts_of(table: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    box = table[:, 1] > 0
    return {"all": np.ones(len(table), bool), "from a mask": ~box, "from a box": box}


def compared(table: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """AUROC for a bad mask and mean error, of quality, agreement and both."""
    clip, iou, quality, agreement = table[:, 0], table[:, 3], table[:, 4], table[:, 5]
    marks = {"quality": quality, "agreement": agreement, "both": combined(clip, iou, quality, agreement)}
    return {
        name: {
            "auroc": round(auroc(values, iou < GOOD), 4),
            "mean_error": round(float(np.abs(values - iou).mean()), 4),
        }
        for name, values in marks.items()
    }


def combined(
    clip: NDArray[np.float64], iou: NDArray[np.float64], quality: NDArray[np.float64], agreement: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for each frame the estimate of a logistic that has not seen its clip."""
    near = np.clip(quality, 1e-3, 1 - 1e-3)
    inputs = torch.tensor(np.stack([np.log(near / (1 - near)), agreement, np.ones_like(agreement)], 1)).float()
    target, fold = torch.tensor(iou).float(), clip % FOLDS
    result = np.zeros(len(iou))
    for number in range(FOLDS):
        seen = torch.tensor(fold != number)
        weights = torch.zeros(3, requires_grad=True)
        optimiser = torch.optim.Adam([weights], lr=5e-2)
        for _ in range(STEPS):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(inputs[seen] @ weights, target[seen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        result[fold == number] = torch.sigmoid(inputs @ weights).detach().numpy()[fold == number]
    return result


if __name__ == "__main__":
    main()
