"""Measures what a budget of corrections buys: frames chosen by `quality`, at random and at equal steps.

    python -m benchmarks.review_budget DAVIS_FOLDER WORK_FOLDER --out benchmarks/results/review-budget.json

A folder in DAVIS's layout is tracked from its first masks (or their boxes). Then, for each budget and each way of
choosing, so many of its frames are marked with their true masks and the run goes through `submit --redo-changed`. The
mean J is over sequences, of all frames but each sequence's first and last; "others" leaves out the frames that were
corrected by any of the three choices, so that no choice is paid for the frames that it was given. With `--direction
bidirectional` what lies between two prompts is tracked from either side.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.davis_dev import BENCHMARK, rts_batch_command
from rts_batch import read_masks
from rts_batch.evaluation.layouts.masks import davis_sequences
from rts_batch.evaluation.layouts.sequences import MaskSequence, read_labels
from rts_batch.masks import encode_rle, jaccard
from rts_batch.review.worst import worst_frames
from rts_batch.weights.registry import load_weights

BUDGETS = (0.02, 0.05)
SEEDS = (0, 1)
Frames = set[tuple[str, int]]
"""Sequence and frame."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", choices=("mask", "box"), nargs="*", default=["mask", "box"])
    parser.add_argument("--direction", choices=("forward", "bidirectional"), default="forward")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of what is chosen by chance")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sequences = davis_sequences(options.davis.resolve(), year=2016)
    document: dict[str, Any] = {
        "command": f"python -m benchmarks.review_budget DAVIS WORK --out OUT --init {' '.join(options.init)} "
        f"--direction {options.direction} --seeds {' '.join(map(str, options.seeds))}".rstrip(),
        "direction": options.direction,
        "fingerprint": load_weights("rts-mini").fingerprint,
        "data": f"{options.davis.name}, {len(sequences)} sequences",
        "conditions": f"CPU ({torch.backends.cpu.get_cpu_capability()}), one worker of one thread, exact",
        "starts": {},
    }
    for init in options.init:
        found = measured(sequences, options.davis, options.work / init, init, options.direction, options.seeds)
        document["starts"][init] = found
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n")


def measured(
    sequences: Sequence[MaskSequence], davis: Path, work: Path, init: str, direction: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """Track, correct by each choice and each budget, and return the mean J of each."""
    work.mkdir(parents=True, exist_ok=True)
    manifest, run = work / "manifest.csv", work / "run"
    rts_batch_command("evaluate", "prepare", BENCHMARK, davis, "-o", work / "prepared.csv", "--init", init)
    with (work / "prepared.csv").open(newline="", encoding="utf-8") as prepared, manifest.open("w", newline="") as file:
        rows = csv.DictReader(prepared)
        told = csv.DictWriter(file, rows.fieldnames or ())
        told.writeheader()
        told.writerows({**row, "direction": direction} for row in rows)
    submit(manifest, run)
    before = jaccards(sequences, run)
    total = len(before)
    found: dict[str, Any] = {"frames": total, "before": round(mean_of(before), 4), "budgets": {}}
    for budget in BUDGETS:
        count = round(budget * total)
        choices = {
            "quality": by_quality(run, before.keys(), count),
            **{f"random {seed}": at_random(before.keys(), count, seed) for seed in seeds},
            "equal steps": at_equal_steps(before.keys(), count),
        }
        ever = set().union(*choices.values())
        found["budgets"][str(budget)] = {"frames": count, "others_before": round(mean_of(before, without=ever), 4)}
        for name, frames in choices.items():
            after = jaccards(sequences, corrected(sequences, manifest, run, work / f"{budget}-{name}", frames))
            entry = {"mean_j": round(mean_of(after), 4), "others": round(mean_of(after, without=ever), 4)}
            found["budgets"][str(budget)][name] = entry
            print(init, budget, name, entry, flush=True)
    return found


def by_quality(run: Path, frames: Mapping[tuple[str, int], float] | Any, count: int) -> Frames:
    """The frames that `rts-batch show RUN --worst` names first, of those that are measured."""
    named = [(found.video_id, found.frame) for found in worst_frames(read_masks(str(run)), 2 * count)]
    return set([frame for frame in named if frame in frames][:count])


def at_random(frames: Any, count: int, seed: int) -> Frames:
    ordered = sorted(frames)
    return {ordered[place] for place in np.random.default_rng(seed).choice(len(ordered), count, replace=False)}


def at_equal_steps(frames: Any, count: int) -> Frames:
    """Steps as long in every sequence, with a beginning that is not one of them."""
    ordered = sorted(frames)
    step = len(ordered) / count
    return {ordered[int((place + 0.5) * step)] for place in range(count)}


def corrected(sequences: Sequence[MaskSequence], manifest: Path, run: Path, folder: Path, frames: Frames) -> Path:
    """Mark frames with their true masks in a copy of the run and track what that changes again."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run, folder / "run", dirs_exist_ok=True)
    by_name = {sequence.name: sequence for sequence in sequences}
    with manifest.open(newline="", encoding="utf-8") as file:
        told = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    first = {row["video_id"]: row for row in told}
    for name, frame in sorted(frames):
        mask = truth(by_name[name], frame)
        rle = {"size": list(mask.shape), "counts": encode_rle(mask).decode()}
        bare = {key: value for key, value in first[name].items() if key not in ("frame", "box", "mask")}
        told.append({**bare, "frame": frame, "mask": rle})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    submit(folder / "manifest.jsonl", folder / "run", "--redo-changed")
    return folder / "run"


def submit(manifest: Path, run: Path, *options: str) -> None:
    settings = ["--device", "cpu", "--workers", "1", "--threads-per-worker", "1", "--profile", "exact"]
    rts_batch_command("submit", manifest, "--out", run, *settings, *options)


def jaccards(sequences: Sequence[MaskSequence], run: Path) -> dict[tuple[str, int], float]:
    """J of every frame that is measured."""
    masks, found = read_masks(str(run)), {}
    for sequence in sequences:
        for row in masks.video(sequence.name).rows():
            if 0 < row.frame < len(sequence.frames) - 1:
                found[sequence.name, row.frame] = jaccard(row.mask(), truth(sequence, row.frame))
    return found


def truth(sequence: MaskSequence, frame: int) -> np.ndarray:
    return sequence.mask(read_labels(sequence.labels[frame]), 1)


def mean_of(values: Mapping[tuple[str, int], float], *, without: Frames = frozenset()) -> float:  # type: ignore[assignment]
    """The mean over sequences of the means over their frames."""
    by_name: dict[str, list[float]] = {}
    for (name, frame), value in values.items():
        if (name, frame) not in without:
            by_name.setdefault(name, []).append(value)
    return float(np.mean([np.mean(some) for some in by_name.values()]))


if __name__ == "__main__":
    main()
