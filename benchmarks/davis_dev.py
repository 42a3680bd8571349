"""Tracks a folder in DAVIS's layout through the whole pipeline and tables the scores, with one flag changed at a time.

    python -m benchmarks.davis_dev DAVIS_FOLDER WORK_FOLDER --out benchmarks/results/davis-dev [--weights FILE]

Each row of the table is what these three commands give, `copy` apart, which repeats the given mask on every frame:

    rts-batch evaluate prepare davis2016 DAVIS_FOLDER -o manifest.csv [--init box]
    rts-batch submit manifest.csv --out run --device cpu --workers 1 --threads-per-worker 1 [the row's flag]
    rts-batch evaluate score davis2016 DAVIS_FOLDER run --json

Writes OUT.json and OUT.md. The runs stay in the work folder: the same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rts_batch
from rts_batch.evaluation.layouts.masks import davis_sequences
from rts_batch.evaluation.layouts.sequences import MaskSequence, read_labels
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.masks import State
from rts_batch.weights.registry import load_weights
from tests.support.run_folders import row_of

BENCHMARK = "davis2016"


@dataclass(frozen=True)
class Row:
    """A run: what differs from the first."""

    name: str
    about: str
    prepare: tuple[str, ...] = ()
    submit: tuple[str, ...] = ()


ROWS = (
    Row("mask", "from the first mask"),
    Row("box", "from the box around the first mask (Table 8's second half)", prepare=("--init", "box")),
    Row("no-conditioning", "the decoder sees no scores (Table 1)", submit=("--no-localisation-conditioning",)),
    Row("no-fallback", "a lost mask stays lost (Table 2)", submit=("--no-localisation-fallback",)),
    Row("always-found", "no target counts as not found (Table 2)", submit=("--not-found-threshold", "0")),
    Row("paper-rules", "the paper's rules instead of the released tracker's", submit=("--rules", "paper")),
)
MEASURES = ("j_and_f", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
TITLES = ("J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results without their suffix")
    parser.add_argument("--weights", help="[default: those that the package ships]")
    parser.add_argument("--only", nargs="*", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    weights = ["--weights", options.weights] if options.weights else []
    results = {"copy": {"about": "the first mask, on every frame", "flags": []} | copied(options.davis, options.work)}
    for row in ROWS:
        if row.name in options.only:
            flags = [*row.prepare, *row.submit]
            scores = tracked(row, options.davis, options.work, weights)
            results[row.name] = {"about": row.about, "flags": flags} | scores
            print(row.name, json.dumps(scores["measures"]), flush=True)
    document = {
        "command": "python -m benchmarks.davis_dev DAVIS_FOLDER WORK_FOLDER --out OUT",
        "weights": Path(options.weights or "rts-mini").name,
        "fingerprint": load_weights(options.weights or "rts-mini").fingerprint,
        "conditions": {
            "data": f"{options.davis.name}, measured as {BENCHMARK}: without the first and the last frame",
            "device": "cpu, 1 worker with 1 thread",
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "rts_batch": rts_batch.__version__,
        },
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(document))


def tracked(row: Row, davis: Path, work: Path, weights: list[str]) -> dict[str, Any]:
    """The scores of one run."""
    manifest, run = work / f"{row.name}.csv", work / row.name
    rts_batch_command("evaluate", "prepare", BENCHMARK, davis, "-o", manifest, *row.prepare)
    settings = ["--device", "cpu", "--workers", "1", "--threads-per-worker", "1"]
    rts_batch_command("submit", manifest, "--out", run, *settings, *weights, *row.submit)
    return scored(davis, run)


def copied(davis: Path, work: Path) -> dict[str, Any]:
    """The scores of what no tracker is needed for: the first mask on every frame."""
    run = work / "copy"
    (run / "masks").mkdir(parents=True, exist_ok=True)
    for sequence in davis_sequences(davis.resolve(), year=2016):
        write_copies(sequence, run / "masks" / f"{sequence.name}-copy.parquet")
    return scored(davis, run)


def write_copies(sequence: MaskSequence, path: Path) -> None:
    mask = sequence.mask(read_labels(sequence.labels[0]), 1)
    with ResultsWriter(path, targets={1: {}}, weights="copy") as writer:
        for frame in range(len(sequence.frames)):
            state: State = "prompt" if frame == 0 else "tracked"
            writer.add(row_of(mask, frame, state, video_id=sequence.name, confidence=1.0))
        writer.close(frames=len(sequence.frames))


def scored(davis: Path, run: Path) -> dict[str, Any]:
    report = json.loads(rts_batch_command("evaluate", "score", BENCHMARK, davis, run, "--json"))
    rounded = {name: round(value, 4) for name, value in report["measures"].items()}
    sequences = {
        name.split("/")[0]: {measure: round(value, 4) for measure, value in values.items()}
        for name, values in report["sequences"].items()
    }
    return {"measures": rounded, "sequences": sequences}


def rts_batch_command(*arguments: object) -> str:
    """Runs `rts-batch` and returns its standard output; its progress goes to ours."""
    command = [sys.executable, "-m", "rts_batch.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def markdown(document: dict[str, Any]) -> str:
    """Two tables: the measures of each run, and J&F of each sequence in each run."""
    results = document["results"]
    conditions = ", ".join(f"{name} {value}" for name, value in document["conditions"].items() if name != "data")
    lines = [
        "# DAVIS, development half",
        "",
        f"`{document['command']}`",
        "",
        f"Weights `{document['weights']}`, fingerprint `{document['fingerprint'][:12]}…`. {conditions}. "
        f"Data: {document['conditions']['data']}. In percent; decay is better when lower.",
        "",
        "| run | flag | " + " | ".join(TITLES) + " |",
        "|---|---|" + "---:|" * len(TITLES),
    ]
    for one in results.values():
        flags = f"`{' '.join(one['flags'])}`" if one["flags"] else ""
        values = " | ".join(f"{100 * one['measures'][name]:.1f}" for name in MEASURES)
        lines.append(f"| {one['about']} | {flags} | {values} |")
    names = list(next(iter(results.values()))["sequences"])
    lines += ["", "J&F of each sequence:", "", "| sequence | " + " | ".join(results) + " |"]
    lines.append("|---|" + "---:|" * len(results))
    for name in names:
        values = " | ".join(f"{100 * one['sequences'][name]['j_and_f']:.1f}" for one in results.values())
        lines.append(f"| {name} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
