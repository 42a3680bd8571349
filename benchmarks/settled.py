"""Times a frame of `rts-mini` by this code and by another checkout of it, in turns.

    git worktree add --detach ../before 6bb463f
    python -m benchmarks.settled ../before --sets 2 --out benchmarks/results/settled.json

All follow the same target (dog of DAVIS, 640×272, search regions of 240×416) with their own `rts-mini`, each in a
process of its own, and take turns of a few frames: a machine that others share is not the same from one minute to the
next. Milliseconds are medians over the frames of a phase, ratios (to the other checkout in `exact`) over its turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch

SIZE = (640, 272)
CROP_SIZE = (240, 416)
FRAMES = 220
TURN = 5
"""Frames that one process tracks while the others wait."""

PHASES = {
    "2–100": list(range(2, 101)),
    "after 101, without an update": [number for number in range(102, FRAMES + 1) if (number - 1) % 20],
}
"""Numbers of frames, from 1."""
VARIANTS = {"before, exact": ("before", "exact"), "exact": ("now", "exact"), "bf16": ("now", "bf16")}


def follow(shared: Path, profile: str, threads: int) -> Iterator[float]:
    """Track with the code that is on the path; yield each frame's milliseconds, from the first frame's on."""
    from rts_batch.model.fast.networks import fast
    from rts_batch.tracking import fast as trackers
    from rts_batch.weights.registry import build_model, load_weights

    torch.set_num_threads(threads)
    cv2.setNumThreads(0)
    weights = load_weights("rts-mini")
    model = build_model(weights)
    network = fast(model) if profile == "exact" else fast(model, profile=profile)
    build = getattr(trackers, "fast_tracker", None) or trackers.FastTracker
    tracker = build(network, replace(weights.tracker_config, crop_size=CROP_SIZE))
    folder = shared / "data/davis-dev"
    images = [
        cv2.resize(cv2.imread(str(path))[..., ::-1], SIZE)
        for path in sorted((folder / "JPEGImages/480p/dog").glob("*.jpg"))
    ]
    first = cv2.imread(str(folder / "Annotations/480p/dog/00000.png"), cv2.IMREAD_GRAYSCALE)
    order = [*range(len(images)), *range(len(images) - 2, 0, -1)] * 2
    for number, index in enumerate(order[:FRAMES], start=1):
        began = time.perf_counter()
        if number == 1:
            tracker.start(images[index], mask=cv2.resize(first, SIZE) > 0)
        else:
            tracker.step(images[index])
        yield 1e3 * (time.perf_counter() - began)


def take_turns(arguments: argparse.Namespace, codes: dict[str, Path], threads: int) -> dict[str, list[float]]:
    """Return each variant's milliseconds of every frame; one variant's process runs at a time, `TURN` frames long."""
    processes = {
        name: process_of(codes[code], arguments, profile, threads) for name, (code, profile) in VARIANTS.items()
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(-(-FRAMES // TURN)):
        names = list(VARIANTS)[:: 1 if turn % 2 else -1]
        for name in names:
            process = processes[name]
            assert process.stdin is not None
            assert process.stdout is not None
            print(min(TURN, FRAMES - turn * TURN), file=process.stdin, flush=True)
            milliseconds[name] += json.loads(process.stdout.readline())
    for process in processes.values():
        process.communicate()
    return milliseconds


def process_of(code: Path, arguments: argparse.Namespace, profile: str, threads: int) -> subprocess.Popen[str]:
    """Start a process with the code of a checkout, which tracks as many frames as it is told to, line by line."""
    command = [sys.executable, "-P", __file__, str(arguments.before), "--shared", str(arguments.shared)]
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_WAIT_POLICY": "PASSIVE"}
    child = [*command, "--only", profile, "--threads", str(threads)]
    return subprocess.Popen(child, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def compare(sets: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return each variant's medians over the frames of all sets, and how many times as fast as before it is.

    The latter is the median over turns, in which all variants track the same frames within a second: a shared machine
    that is slower for a while is so for all of them.
    """
    milliseconds = {
        name: {
            "start, with what is compiled": round(statistics.median(one[name][0] for one in sets), 1),
            **{
                phase: round(statistics.median(one[name][number - 1] for one in sets for number in numbers), 1)
                for phase, numbers in PHASES.items()
            },
        }
        for name in VARIANTS
    }
    times = {
        name: {
            phase: [round(statistics.median(ratios_of(one, name, numbers)), 2) for one in sets]
            for phase, numbers in PHASES.items()
        }
        for name in ("exact", "bf16")
    }
    return {"milliseconds": milliseconds, "times, of each set": times}


def ratios_of(milliseconds: dict[str, list[float]], name: str, numbers: list[int]) -> list[float]:
    """Return how many times as fast as before a variant is, turn by turn, over the frames of a phase."""
    turns: dict[int, list[int]] = {}
    for number in numbers:
        turns.setdefault((number - 1) // TURN, []).append(number - 1)
    before, now = milliseconds["before, exact"], milliseconds[name]
    return [
        statistics.median(before[place] for place in turn) / statistics.median(now[place] for place in turn)
        for turn in turns.values()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/davis-dev")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", type=int, default=2, help="how often all of it is done, by processes of its own")
    parser.add_argument("--only", choices=("exact", "bf16"), help="time the code that is on the path, turn by turn")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        frames = follow(arguments.shared, arguments.only, arguments.threads[0])
        for line in sys.stdin:
            print(json.dumps(list(islice(frames, int(line)))), flush=True)
        return
    from benchmarks.cpu_tracker import processor

    codes = {"before": arguments.before.resolve(), "now": Path(__file__).resolve().parent.parent}
    results = {
        f"{threads} threads": compare([take_turns(arguments, codes, threads) for _ in range(arguments.sets)])
        for threads in arguments.threads
    }
    print(json.dumps(results, indent=1, ensure_ascii=False), flush=True)
    if arguments.out:
        commit = subprocess.run(
            ["git", "-C", str(arguments.before), "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        machine = {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__}
        content = {"machine": machine, "before": commit, "size": SIZE, "crop_size": CROP_SIZE, "results": results}
        arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
