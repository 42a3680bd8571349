"""Curves as CSV, one row per call, exact over a resume; and what a row of them sums up."""

from __future__ import annotations

import csv
import math
import statistics
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from rts_batch.errors import TrainingError
from rts_batch.io.storage.files import whole_file


class Window:
    """Means of the terms over the iterations of one row of the curves, and where the time went."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count, self.skipped, self.waited = 0, 0, 0.0
        self.started = time.perf_counter()

    def add(self, parts: Mapping[str, Tensor], *, waited: float, skipped: int) -> None:
        for key, value in parts.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.count += 1
        self.waited += waited
        self.skipped += skipped

    def check(self, iteration: int) -> None:
        """Raise `TrainingError` where the loss was not finite, so that no checkpoint holds what followed."""
        loss = float(self.sums.get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in the {self.count} iterations before {iteration}; lower the learning rates "
                "or look at the data; the last checkpoint is intact"
            )

    def row(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self.started
        means = {key: float(value) / self.count for key, value in self.sums.items()}
        times = {"seconds": elapsed / self.count, "seconds_waiting": self.waited / self.count}
        return {**means, **times, "skipped": self.skipped}


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
