"""What a run's masks amount to: frames in each state and mean scores, by run, video and target."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from rts_batch.io.results.schema import absent_rows
from rts_batch.manifest.target_names import label_of
from rts_batch.masks import STATES
from rts_batch.runs.video_masks import VideoMasks

Mark = Literal["score", "confidence", "quality"]
MARKS: Final[tuple[Mark, ...]] = get_args(Mark)


@dataclass
class Statistics:
    """Sums over rows of the masks table."""

    rows: int = 0
    states: Counter[str] = field(default_factory=Counter)
    absent: int = 0
    """Of the rows in the state `lost`, those of targets that a person has said to be absent."""
    counts: dict[Mark, int] = field(default_factory=lambda: dict.fromkeys(MARKS, 0))
    """Of the rows that have a mark; the sums are of these."""
    sums: dict[Mark, float] = field(default_factory=lambda: dict.fromkeys(MARKS, 0.0))

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        for entry in pc.value_counts(table["state"].cast(pa.string())).to_pylist():
            self.states[entry["values"]] += entry["counts"]
        self.absent += int(absent_rows(table).sum())
        for mark in MARKS:
            self.counts[mark] += table.num_rows - table[mark].null_count
            self.sums[mark] += pc.sum(table[mark]).as_py() or 0.0

    def merge(self, other: Statistics) -> None:
        self.rows += other.rows
        self.states.update(other.states)
        self.absent += other.absent
        for mark in MARKS:
            self.counts[mark] += other.counts[mark]
            self.sums[mark] += other.sums[mark]

    def _mean(self, mark: Mark) -> float | None:
        return self.sums[mark] / self.counts[mark] if self.counts[mark] else None

    @property
    def mean_score(self) -> float | None:
        """Over the rows that have a score: prompts have none."""
        return self._mean("score")

    @property
    def mean_confidence(self) -> float | None:
        return self._mean("confidence")

    @property
    def mean_quality(self) -> float | None:
        """Of the rows that have one; None where none has, as in runs of earlier versions."""
        return self._mean("quality")

    @property
    def measure(self) -> Literal["quality", "score"]:
        """By what the rows are looked at: by their score only where an earlier version estimated no quality."""
        return "score" if self.counts["score"] and not self.counts["quality"] else "quality"

    @property
    def mean_mark(self) -> float | None:
        """The mean of `measure`."""
        return self._mean(self.measure)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "states": {state: self.states[state] for state in STATES},
            "mean_score": self.mean_score,
            "mean_confidence": self.mean_confidence,
            "mean_quality": self.mean_quality,
        }


@dataclass
class VideoStatistics:
    video_id: str
    targets: int
    frames: int
    """Frames that a target covers."""
    statistics: Statistics

    def to_dict(self) -> dict[str, Any]:
        about = {"video_id": self.video_id, "targets": self.targets, "frames": self.frames}
        return {**about, **self.statistics.to_dict()}


@dataclass
class TargetStatistics:
    object_id: int
    name: str | None
    category: str | None
    stretches: list[tuple[str, int, int]]
    """State, first and last frame of each stretch of frames in one state; a frame without a row ends it."""
    statistics: Statistics

    @property
    def label(self) -> str:
        """The name or, without one, the number."""
        return label_of(self.object_id, self.name)

    def to_dict(self) -> dict[str, Any]:
        stretches = [{"state": state, "first": first, "last": last} for state, first, last in self.stretches]
        about = {"object_id": self.object_id, "name": self.name, "category": self.category, "stretches": stretches}
        return {**about, **self.statistics.to_dict()}


def video_statistics(video: VideoMasks) -> VideoStatistics:
    statistics = Statistics()
    for table in video.tables(["state", "score", "confidence", "quality"]):
        statistics.add(table)
    targets = video.targets
    first = min((target.first_frame for target in targets.values()), default=video.frames_total)
    return VideoStatistics(video.video_id, len(targets), video.frames_total - first, statistics)


def target_statistics(video: VideoMasks) -> Iterator[TargetStatistics]:
    pieces = video.pieces(["frame", "state", "score", "confidence", "quality"])
    for target, tables in itertools.groupby(pieces, key=itemgetter(0)):
        statistics = Statistics()
        stretches: list[tuple[str, int, int]] = []
        for _, piece in tables:
            statistics.add(piece)
            for frame, state in zip(piece["frame"].to_pylist(), piece["state"].to_pylist(), strict=True):
                if stretches and stretches[-1][0] == state and stretches[-1][2] == frame - 1:
                    stretches[-1] = (state, stretches[-1][1], frame)
                else:
                    stretches.append((state, frame, frame))
        yield TargetStatistics(target.object_id, target.name, target.category, stretches, statistics)
