"""Compares trainings of `rts-mini` that differ in their seed alone, and names the one that held-out pictures prefer.

    python -m benchmarks.rts_mini_seeds STILLS_INDEX DAVIS_FOLDER WORK_FOLDER --out OUT TRAINING [TRAINING…]

Each TRAINING is a folder that `rts_batch.training.mini.make` has filled, named after its seed. Which one ships is
decided by synthetic clips of held-out pictures, tracked from their first mask and from its box; DAVIS is scored once
for each through `rts-batch submit`, from the first mask and from the first box, and decides nothing.

Writes OUT.json, OUT.md and OUT-curves.csv. What is finished stays in the work folder: the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.davis_dev import ROWS, tracked
from benchmarks.rts_mini import synthetic
from rts_batch.training.curves import read_curve, summarize_training
from rts_batch.training.mini.heldout import preferred_seed
from rts_batch.training.mini.recipe import MINI, MINI_HEADS, MINI_LONG, MINI_RUNS, MINI_STA, MINI_WIDE
from rts_batch.weights.registry import load_weights

STARTS = ("mask", "box")
STAGES = (MINI_HEADS.name, MINI.name, MINI_RUNS.name, MINI_WIDE.name, MINI_LONG.name, MINI_STA.name)
"""A training that began with weights has the last ones alone."""
TERMS = ("loss", "lovasz", "cross_entropy", "localisation", "jaccard", "peak", "gradient_norm")
CURVES = ("seed", "stage", "iteration", "clips", *TERMS, "seconds", "seconds_waiting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, help="index of the stills")
    parser.add_argument("davis", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("trainings", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="results without their suffix")
    parser.add_argument("--machine", default="not stated", help="what the trainings ran on, for the record")
    parser.add_argument("--clips", type=int, default=24, help="synthetic clips")
    parser.add_argument("--clips-seed", type=int, default=2, help="of the synthetic clips")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    seeds = {
        training.name: {
            "fingerprint": load_weights(training / "rts-mini.safetensors").fingerprint,
            "provenance": load_weights(training / "rts-mini.safetensors").metadata["provenance"],
            "training": {
                stage: summarize_training(training / stage) for stage in STAGES if (training / stage).exists()
            },
            "held_out": kept(
                options.work / training.name / f"held-out-{options.clips_seed}-{options.clips}.json",
                lambda training=training: held_out(training, options.stills, options.clips, options.clips_seed),
            ),
        }
        for training in options.trainings
    }
    preferred = preferred_seed({name: values["held_out"] for name, values in seeds.items()})
    print("the held-out pictures prefer seed", preferred, flush=True)
    for training in options.trainings:
        seeds[training.name]["davis"] = davis(training, options.davis, options.work / training.name)
    document = {
        "command": "python -m benchmarks.rts_mini_seeds STILLS_INDEX DAVIS_FOLDER WORK_FOLDER --out OUT TRAINING…",
        "trained_on": options.machine,
        "held_out_clips": {"count": options.clips, "seed": options.clips_seed, "frames": 30},
        "preferred": preferred,
        "seeds": seeds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(document))
    write_curves(options.trainings, options.out.with_name(options.out.name + "-curves.csv"))


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what `path` holds, or makes it and keeps it there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(), indent=1) + "\n")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def held_out(training: Path, stills: Path, clips: int, seed: int) -> dict[str, Any]:
    """Returns mean J and the share of frames on the wrong object over synthetic clips, from mask and from box."""
    found = synthetic([stills], load_weights(training / "rts-mini.safetensors"), list(STARTS), clips, seed)
    return {start: found[start] for start in STARTS}


def davis(training: Path, folder: Path, work: Path) -> dict[str, Any]:
    """Returns the measures of the whole pipeline on DAVIS from the first mask and from the first box."""
    weights = ["--weights", str(training / "rts-mini.safetensors")]
    return {row.name: tracked(row, folder, work, weights) for row in ROWS if row.name in STARTS}


def write_curves(trainings: list[Path], path: Path) -> None:
    """Joins the curves of all trainings in one file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, CURVES, restval="", extrasaction="ignore")
        writer.writeheader()
        for training in trainings:
            for stage in (stage for stage in STAGES if (training / stage).exists()):
                for clips, name in (("train", "curves.csv"), ("held-out", "evaluation.csv")):
                    for row in read_curve(training / stage / name):
                        writer.writerow({**row, "seed": training.name, "stage": stage, "clips": clips})


def markdown(document: dict[str, Any]) -> str:
    """Three tables: the seeds' scores, J of each sequence, and where the time went."""
    seeds: dict[str, Any] = document["seeds"]
    lines = [
        "# rts-mini: seeds",
        "",
        f"`{document['command']}`",
        "",
        f"Trained on {document['trained_on']}. Held out: {document['held_out_clips']['count']} synthetic clips of "
        f"held-out pictures, which prefer seed {document['preferred']}. DAVIS: through `rts-batch submit`.",
        "",
        "| seed | held out, mask | wrong object | held out, box | DAVIS J, mask | J&F | DAVIS J, box | J&F |",
        "|---|" + "---:|" * 7,
        *(f"| {name} | " + " | ".join(scores_of(values)) + " |" for name, values in seeds.items()),
        "",
        "J of each sequence, from the first mask and from the first box:",
        "",
        "| sequence | " + " | ".join(f"{name}, {start}" for start in STARTS for name in seeds) + " |",
        "|---|" + "---:|" * (len(STARTS) * len(seeds)),
        *sequence_lines(seeds),
        "",
        "| seed | stage | steps | minutes | seconds a step | of them waiting for clips | held-out J of single crops |",
        "|---|---|" + "---:|" * 5,
    ]
    for name, values in seeds.items():
        for stage, one in values["training"].items():
            cells = (one[key] for key in ("steps", "minutes", "seconds_per_step", "seconds_waiting_for_clips"))
            lines.append(f"| {name} | {stage} | " + " | ".join(map(str, cells)) + f" | {one['held_out_jaccard']:.3f} |")
    return "\n".join(lines) + "\n"


def scores_of(values: dict[str, Any]) -> Iterator[str]:
    mask, box = (values["held_out"][start] for start in STARTS)
    yield f"{mask['jaccard']:.3f}"
    yield f"{100 * mask['wrong_object']:.1f} %"
    yield f"{box['jaccard']:.3f}"
    for start in STARTS:
        measures = values["davis"][start]["measures"]
        yield from (f"{measures['j_mean']:.3f}", f"{measures['j_and_f']:.3f}")


def sequence_lines(seeds: dict[str, Any]) -> Iterator[str]:
    runs = [values["davis"][start]["sequences"] for start in STARTS for values in seeds.values()]
    for sequence in runs[0]:
        yield f"| {sequence} | " + " | ".join(f"{run[sequence]['j']:.3f}" for run in runs) + " |"


if __name__ == "__main__":
    main()
