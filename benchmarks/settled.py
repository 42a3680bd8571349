"""Times a frame of `rts-mini` by this code and by another checkout of it, in turns.

    git worktree add --detach ../before 6bb463f
    python -m benchmarks.settled ../before --shared ../shared --out benchmarks/results/settled.json

Both follow the same target (dog of DAVIS, 640×272, search regions of 240×416) with their own `rts-mini`, each in a
process of its own. Medians over the frames of a phase and over the rounds; ratios are to the other checkout in `exact`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch

SIZE = (640, 272)
CROP_SIZE = (240, 416)
FRAMES = 138
PHASES = {"2–100": range(2, 101), "after 101, without an update": range(102, FRAMES + 1)}
VARIANTS = {"before, exact": ("before", "exact"), "exact": ("now", "exact"), "bf16": ("now", "bf16")}


def follow(shared: Path, profile: str, threads: int) -> dict[str, float]:
    """Return the milliseconds of the first frame and the medians of each phase's, by the code that is on the path."""
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
    milliseconds: dict[int, float] = {}
    for number, index in enumerate(order[:FRAMES], start=1):
        began = time.perf_counter()
        if number == 1:
            tracker.start(images[index], mask=cv2.resize(first, SIZE) > 0)
        else:
            tracker.step(images[index])
        milliseconds[number] = 1e3 * (time.perf_counter() - began)
    result = {"start, with what is compiled": milliseconds[1]}
    for name, numbers in PHASES.items():
        settled = [milliseconds[number] for number in numbers if number < 101 or (number - 1) % 20]
        result[name] = statistics.median(settled)
    return result


def run_of(code: Path, arguments: argparse.Namespace, profile: str, threads: int) -> dict[str, float]:
    """Return what `follow` does, in a process with the code of a checkout."""
    command = [sys.executable, "-P", __file__, str(arguments.before), "--shared", str(arguments.shared)]
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_WAIT_POLICY": "PASSIVE"}
    child = [*command, "--only", profile, "--threads", str(threads)]
    done = subprocess.run(child, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/davis-dev")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("exact", "bf16"), help="time the code that is on the path, once")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(follow(arguments.shared, arguments.only, arguments.threads[0])))
        return
    from benchmarks.cpu_tracker import processor

    codes = {"before": arguments.before.resolve(), "now": Path(__file__).resolve().parent.parent}
    results: dict[str, Any] = {}
    for threads in arguments.threads:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
        for _ in range(arguments.rounds):
            for name, (code, profile) in VARIANTS.items():
                runs[name].append(run_of(codes[code], arguments, profile, threads))
        medians = {
            name: {phase: round(statistics.median(each[phase] for each in rows), 1) for phase in rows[0]}
            for name, rows in runs.items()
        }
        base = medians["before, exact"]
        ratios = {
            name: {phase: round(base[phase] / medians[name][phase], 2) for phase in PHASES}
            for name in ("exact", "bf16")
        }
        results[f"{threads} threads"] = {"milliseconds": medians, "times": ratios, "runs": runs}
        print(threads, json.dumps({"milliseconds": medians, "times": ratios}, ensure_ascii=False), flush=True)
    if arguments.out:
        commit = subprocess.run(
            ["git", "-C", str(arguments.before), "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        machine = {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__}
        content = {"machine": machine, "before": commit, "size": SIZE, "crop_size": CROP_SIZE, "results": results}
        arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
