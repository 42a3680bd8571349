"""Times J and F of DAVIS on 480p masks, each on one thread.

    python -m benchmarks.davis_measures DAVIS_FOLDER --out OUT.json

The masks judged are the annotations, dilated by 9 pixels and moved by 5; reading and decoding them is not timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.evaluation.layouts.masks import davis_sequences
from rts_batch.evaluation.layouts.sequences import read_labels
from rts_batch.evaluation.measures.curves import boundary_accuracy, region_similarity

Mask = NDArray[np.bool_]
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = [
        (judged(truth), truth)
        for sequence in davis_sequences(options.davis.resolve(), year=2016)
        for truth in (sequence.mask(read_labels(path), 1) for path in sequence.labels.values())
    ]
    document = {
        "command": "python -m benchmarks.davis_measures DAVIS_FOLDER --out OUT.json",
        "frames": len(pairs),
        "size": list(pairs[0][1].shape),
        "threads": 1,
        "machine": platform.processor() or platform.machine(),
        "frames_per_second": {
            "boundary F": round(speed(boundary_accuracy, pairs)),
            "region J": round(speed(region_similarity, pairs)),
        },
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["frames_per_second"]))


def judged(truth: Mask) -> Mask:
    wider = cv2.dilate(truth.view(np.uint8), np.ones((9, 9), np.uint8)).view(bool)
    return np.roll(wider, 5, axis=1)


def speed(measure: Callable[[Mask, Mask], float], pairs: list[tuple[Mask, Mask]]) -> float:
    """Frames a second, the best of several rounds: what disturbs only ever slows."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for mask, truth in pairs:
            measure(mask, truth)
        rounds.append(len(pairs) / (time.perf_counter() - started))
    return max(rounds)


if __name__ == "__main__":
    main()
