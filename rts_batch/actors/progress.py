"""Where a run stands, in numbers: the pool counts, a display (`display.py`) and the metrics read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from rts_batch.worker.messages import Finished


@dataclass
class VideoProgress:
    video_id: str
    frames: int = 0
    expected: int | None = None


@dataclass
class RunProgress:
    """Where a run stands. The pool changes it; a display reads it."""

    videos: int
    done: int = 0
    failed: int = 0
    already_done: int = 0
    retries: int = 0
    finished_frames: int = 0
    step_seconds: dict[str, float] = field(default_factory=dict)
    """Of all finished videos, by step."""
    states: dict[str, int] = field(default_factory=dict)
    """Rows of all finished videos, by state."""
    video_seconds: float = 0.0
    """The workers' time on finished videos."""
    running: dict[str, VideoProgress] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def add(self, finished: Finished) -> None:
        """Count a finished video."""
        self.done += 1
        self.finished_frames += finished.frames
        self.video_seconds += finished.seconds
        for state, rows in finished.states.items():
            self.states[state] = self.states.get(state, 0) + rows
        for step, seconds in finished.steps.items():
            self.step_seconds[step] = self.step_seconds.get(step, 0.0) + seconds

    @property
    def frames(self) -> int:
        """Frames tracked by this run so far."""
        return self.finished_frames + sum(video.frames for video in self.running.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def restart_clock(self) -> None:
        """Begin to count seconds, so that starting Ray does not."""
        self.started = time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "done": self.done,
            "already_done": self.already_done,
            "failed": self.failed,
            "running": len(self.running),
            "retries": self.retries,
            "frames": self.frames,
            "seconds": round(self.seconds, 1),
            "frames_per_second": round(self.frames / max(self.seconds, 1e-9), 2),
        }
