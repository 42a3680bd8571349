"""How a submission ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rts_batch.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED
from rts_batch.runs.paths import RunPaths
from rts_batch.worker.timing import efficiency


@dataclass(frozen=True, kw_only=True)
class VideoFailure:
    video_id: str
    error: str
    message: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a submission ended."""

    out: str
    weights: str
    videos: int
    done: int
    """Videos whose masks are in place now, `already_done` included."""
    already_done: int
    failures: tuple[VideoFailure, ...]
    left_out: tuple[str, ...]
    """Manifest rows that `--skip-invalid` left out, with their problems."""
    frames: int
    seconds: float
    interrupted: bool
    warnings: tuple[str, ...]
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    """The workers' time on finished videos, by step."""
    video_seconds: float = 0.0
    """The whole of it."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Rows in each state, of the videos finished now, without those of targets that a person has said to be absent."""
    command_seconds: float = 0.0
    """From the reading of the manifest to the end; `seconds` counts from the first worker that was asked for."""
    stopped: bool = False
    """Too many videos failed (`Scope.max_failures`), so nothing more was handed out."""

    @property
    def exit_code(self) -> int:
        if self.stopped:
            return EXIT_FAILED
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.failures:
            return EXIT_SOME_FAILED if self.done else EXIT_FAILED
        return EXIT_OK

    @property
    def doubted(self) -> float | None:
        """Share of the rows tracked now that no one should trust unseen: uncertain or lost; None without any."""
        tracked = sum(self.states.values()) - self.states.get("prompt", 0)
        return 1 - self.states.get("tracked", 0) / tracked if tracked else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": self.out,
            "masks": RunPaths(self.out).masks,
            "weights": self.weights,
            "videos": self.videos,
            "done": self.done,
            "already_done": self.already_done,
            "failed": len(self.failures),
            "not_started": self.videos - self.done - len(self.failures),
            "frames": self.frames,
            "seconds": round(self.seconds, 2),
            "command_seconds": round(self.command_seconds, 2),
            "frames_per_second": round(self.frames / max(self.seconds, 1e-9), 2),
            "states": dict(self.states),
            "doubted": None if self.doubted is None else round(self.doubted, 4),
            "step_seconds": {step: round(seconds, 2) for step, seconds in self.step_seconds.items()},
            "worker_seconds": round(self.video_seconds, 3),
            "efficiency": efficiency(self.step_seconds, self.video_seconds),
            "interrupted": self.interrupted,
            "stopped": self.stopped,
            "exit_code": self.exit_code,
            "failures": [dataclasses.asdict(failure) for failure in self.failures],
            "rows_left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }
