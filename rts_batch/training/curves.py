"""Curves as CSV, one row per call, exact over a resume."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path


class Curve:
    """A CSV file that grows by rows keyed by `iteration`. Opening it at an iteration drops the rows behind it."""

    def __init__(self, path: Path, *, start: int) -> None:
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if row.get("iteration") and int(row["iteration"]) <= start]
                self.columns = list(reader.fieldnames or [])
            temporary = path.with_name(path.name + ".writing")
            with temporary.open("w", newline="") as file:
                self._write(file, rows, header=True)
            os.replace(temporary, path)

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
