"""Curves as CSV, one row per call, exact over a resume."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from rts_batch.io.storage.files import whole_file


class CurveFile:
    """A CSV file that grows by rows keyed by `iteration`. Opening it at an iteration drops the rows behind it."""

    def __init__(self, path: Path, *, start: int) -> None:
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if row.get("iteration") and int(row["iteration"]) <= start]
                self.columns = list(reader.fieldnames or [])
            with whole_file(path) as temporary, temporary.open("w", newline="") as file:
                self._write(file, rows, header=True)

    def add(self, iteration: int, values: Mapping[str, float]) -> None:
        row = {"iteration": iteration, **{key: f"{value:.6g}" for key, value in values.items()}}
        new = not self.columns
        if new:
            self.columns = list(row)
        with self.path.open("a", newline="") as file:
            self._write(file, [row], header=new)

    def _write(self, file: object, rows: list[dict[str, object]], *, header: bool) -> None:
        writer = csv.DictWriter(file, self.columns, extrasaction="ignore", restval="")  # type: ignore[arg-type]
        if header and self.columns:
            writer.writeheader()
        writer.writerows(rows)


def read_curve(path: Path) -> list[dict[str, str]]:
    """Read the rows of a curve's file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summarize_training(folder: Path) -> dict[str, Any]:
    """Sum up a training's curves: its steps, minutes, the cost of a step and the best J on held-out pictures."""
    curves, evaluations = read_curve(folder / "curves.csv"), read_curve(folder / "evaluation.csv")
    done = [0, *(int(row["iteration"]) for row in curves)]
    spans = [after - before for before, after in pairwise(done)]
    best = max(evaluations, key=lambda row: float(row["jaccard"]))
    return {
        "steps": done[-1],
        "minutes": round(sum(n * float(row["seconds"]) for n, row in zip(spans, curves, strict=True)) / 60, 1),
        "seconds_per_step": round(statistics.median(float(row["seconds"]) for row in curves), 4),
        "seconds_waiting_for_clips": round(statistics.median(float(row["seconds_waiting"]) for row in curves), 4),
        "held_out_jaccard": round(float(best["jaccard"]), 4),
        "best_step": int(best["iteration"]),
    }
