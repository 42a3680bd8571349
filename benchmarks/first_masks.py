"""How good the first mask is that weights make of a box, on held-out pictures, and what drawing it anew gains.

    python -m benchmarks.first_masks INDEX [INDEX…] [--weights rts-mini] --out benchmarks/results/first-masks.json

For each object of at least 1.5 % of its picture, at most two a picture, which is enlarged twice: the mean J of the mask
of its tight box, and of a box of which each side lies up to 15 % off, by how often the mask is drawn anew
(`TrackerConfig.box_refinements`). Beside it the milliseconds of a start, the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cpu_tracker import processor
from rts_batch.masks import Box, jaccard, mask_box
from rts_batch.tracking.fast import fast_tracker
from rts_batch.training.clips.stills.stills import MINIMUM_TARGET_SHARE, Stills, read_index
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import load_weights

REFINEMENTS = (0, 1)
OFF = 0.15
A_PICTURE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexes", type=Path, nargs="+")
    parser.add_argument("--weights", default="rts-mini")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    weights = load_weights(options.weights)
    model, sta = fast_networks(weights, "cpu")
    found: dict[str, dict[int, list[float]]] = {
        name: {count: [] for count in REFINEMENTS} for name in ("tight", "loose", "milliseconds")
    }
    rng = np.random.default_rng(0)
    for picture, mask in objects(read_index(options.indexes, split="held-out")):
        tight = mask_box(mask)
        assert tight is not None
        for name, box in (("tight", (*map(float, tight),)), ("loose", loosened(tight, rng))):
            for count in REFINEMENTS:
                tracker = fast_tracker(model, replace(weights.tracker_config, box_refinements=count), sta=sta)
                started = time.perf_counter()
                first = tracker.start(picture, box=box)
                found["milliseconds"][count].append(1000 * (time.perf_counter() - started))
                found[name][count].append(jaccard(first.mask, mask))
    results = {
        "machine": processor(),
        "threads": 1,
        "fingerprint": weights.fingerprint,
        "objects": len(found["tight"][0]),
        "jaccard": {
            name: {str(count): round(statistics.mean(values), 4) for count, values in found[name].items()}
            for name in ("tight", "loose")
        },
        "start_milliseconds": {
            str(count): round(statistics.median(values)) for count, values in found["milliseconds"].items()
        },
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def objects(stills: Stills) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield each picture, `[H, W, 3] uint8`, with an object's mask, `[H, W] bool`."""
    for place in range(len(stills)):
        still = stills.load(place)
        if still is None:
            continue
        size = (2 * still.image.shape[1], 2 * still.image.shape[0])
        picture = np.asarray(cv2.resize(still.image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        instances = cv2.resize(still.instances, size, interpolation=cv2.INTER_NEAREST)
        smallest = MINIMUM_TARGET_SHARE * instances.size
        large = [number for number in still.ids if np.count_nonzero(instances == number) >= smallest]
        for number in large[:A_PICTURE]:
            yield picture, instances == number


def loosened(box: tuple[int, int, int, int], rng: np.random.Generator) -> Box:
    """Move each side by up to `OFF` of the box's length."""
    x, y, w, h = box
    left, top, right, bottom = rng.uniform(-OFF, OFF, 4)
    return (x + left * w, y + top * h, w * (1 + right - left), h * (1 + bottom - top))


if __name__ == "__main__":
    main()
