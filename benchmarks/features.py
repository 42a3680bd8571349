"""What each part of the tracker costs on the CPU: the fast tracker with parts left out or added, frames in turns.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.features --out benchmarks/results/features.json

Every variant steps through the same synthetic video, one frame of each variant after the other, so that a machine that
slows down slows all. A cost is the ratio to the first variant: of the start, of a frame on which the models learn (5 to
101), and of one after that (its share of the updates, on every twentieth frame, included).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.cpu_tracker import processor
from benchmarks.rts_mini import ABLATIONS
from rts_batch.masks import Marking
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.scene import Scene
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import build_model, load_weights
from tests.support.parity_data import synthetic_frame

LEARNING = range(5, 102)
"""Frames, counted from 1, of the phase in which the models learn on every frame; the memory is still short before."""


@dataclass(frozen=True)
class Variant:
    """How it differs from the fast tracker of one target that starts from a mask."""

    settings: dict[str, Any] = field(default_factory=dict)
    targets: int = 1
    start: str = "mask"
    plain: bool = False


VARIANTS = {
    "fast tracker, one target, from a mask": Variant(),
    "from a box": Variant(start="box"),
    "no localisation branch": Variant(ABLATIONS["no_localisation"]),
    "no memory updates": Variant(ABLATIONS["no_memory_updates"]),
    "no warped samples": Variant(ABLATIONS["no_warped_samples"]),
    "the paper's rules": Variant({"rules": "paper"}),
    "search regions of 240×416": Variant({"crop_size": (240, 416)}),
    "two targets": Variant(targets=2),
    "four targets": Variant(targets=4),
    "plain tracker": Variant(plain=True),
}


def opened(variant: Variant, networks: dict[bool, Any], config: Any) -> Scene:
    model, sta = networks[variant.plain]
    return Scene(
        model,
        replace(config, **variant.settings),
        sta=sta,
        single=variant.targets == 1,
        tracker=Tracker if variant.plain else fast_tracker,
    )


def frame(size: tuple[int, int], number: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns a frame `[H, W, 3] uint8` with four objects of one look, and their masks `[H, W] bool`."""
    image, mask = synthetic_frame(*size, number % 8)
    masks = [np.roll(mask, place * size[1] // 5, axis=1) for place in range(4)]
    for place, copy in enumerate(masks[1:], start=1):
        image = np.where(copy[..., None], np.roll(image, place * size[1] // 5, axis=1), image)
    return image, masks


def prompt(variant: Variant, mask: np.ndarray) -> Marking:
    if variant.start == "box":
        return Marking(box=cv2.boundingRect(mask.astype(np.uint8)))
    return Marking(mask=mask)


def measure(names: list[str], size: tuple[int, int], frames: int) -> dict[str, dict[str, list[float]]]:
    """Returns milliseconds of each variant's frames, by phase."""
    weights = load_weights("rts-mini")
    fast = fast_networks(weights, "cpu")
    networks = {False: fast, True: (build_model(weights, "cpu"), fast[1])}
    scenes = {name: opened(VARIANTS[name], networks, weights.tracker_config) for name in names}
    times: dict[str, dict[str, list[float]]] = {name: {"start": [], "learning": [], "after": []} for name in names}
    for number in range(1, frames + 1):
        image, masks = frame(size, number)
        phase = "start" if number == 1 else "learning" if number in LEARNING else "after" if number > 101 else None
        for name, scene in scenes.items():
            variant = VARIANTS[name]
            targets = range(variant.targets) if number == 1 else ()
            marked = {target: prompt(variant, masks[target]) for target in targets}
            begin = time.perf_counter()
            scene.step(image, marked)
            if phase:
                times[name][phase].append(1e3 * (time.perf_counter() - begin))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--size", type=int, nargs=2, default=(272, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--frames", type=int, default=141)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = [measure(options.variants, tuple(options.size), options.frames) for _ in range(options.rounds)]
    # An update makes one frame in twenty longer, which a median over frames would not see.
    ms = {
        name: {
            phase: statistics.median(statistics.mean(each[name][phase]) for each in rounds)
            for phase, values in rounds[0][name].items()
            if values
        }
        for name in options.variants
    }
    first = ms[options.variants[0]]
    results = {
        name: {
            "ms": {phase: round(value, 1) for phase, value in phases.items()},
            "times the first": {phase: round(value / first[phase], 2) for phase, value in phases.items()},
        }
        for name, phases in ms.items()
    }
    for name, result in results.items():
        print(f"{name:40}", result)
    if options.out:
        content = {
            "what": "rts-mini, milliseconds a frame, median of the rounds' means, and ratios to the first variant",
            "command": "make bench-features",
            "machine": {"processor": processor(), "threads": options.threads, "torch": torch.__version__},
            "frame": f"{options.size[1]}×{options.size[0]}",
            "rounds": options.rounds,
            "load_at_end": round(os.getloadavg()[0], 1),
            "results": results,
        }
        options.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
