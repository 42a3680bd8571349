"""Where a run stands, in numbers: the pool counts, a display (`display.py`) and the metrics read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rts_batch.worker.messages import Finished

FEWEST_FRAMES: Final = 10
"""Before so many, the time that workers take to start would pass for the speed of tracking."""


@dataclass
class VideoProgress:
    video_id: str
    frames: int = 0
    expected: int | None = None
    earlier: int = 0
    """Of the frames those that earlier attempts have tracked."""

    def open(self, expected: int | None, earlier: int) -> None:
        self.expected, self.frames, self.earlier = expected, earlier, earlier


@dataclass
class RunProgress:
    """Where a run stands. The pool changes it; a display reads it."""

    videos: int
    done: int = 0
    failed: int = 0
    already_done: int = 0
    retries: int = 0
    finished_frames: int = 0
    """Of all finished videos, without those from before a checkpoint that was gone on from, as in all that follows."""
    step_seconds: dict[str, float] = field(default_factory=dict)
    """Of all finished videos, by step."""
    states: dict[str, int] = field(default_factory=dict)
    """Rows of all finished videos, by state."""
    video_seconds: float = 0.0
    """The workers' time on finished videos."""
    running: dict[str, VideoProgress] = field(default_factory=dict)
    guesses: Mapping[str, int] = field(default_factory=dict)
    """By key, the length that each video of this submission probably has; 0 where nothing is known of it."""
    started: float = field(default_factory=time.monotonic)
    _waiting: int = 0
    """Sum of the guesses for the videos that are neither done nor given up."""
    _unknown: int = 0
    """How many of them have no guess."""
    _guessed: int = 0
    _measured: int = 0
    """What was guessed for the videos that are done, and what they really had."""

    def __post_init__(self) -> None:
        self._waiting = sum(self.guesses.values())
        self._unknown = sum(not guess for guess in self.guesses.values())

    def add(self, finished: Finished) -> None:
        """Count a finished video."""
        self.done += 1
        self._settle(finished.key)
        if guess := self.guesses.get(finished.key):
            self._guessed += guess
            self._measured += finished.frames
        self.finished_frames += finished.frames - finished.earlier
        self.video_seconds += finished.seconds
        for state, rows in finished.states.items():
            self.states[state] = self.states.get(state, 0) + rows
        for step, seconds in finished.steps.items():
            self.step_seconds[step] = self.step_seconds.get(step, 0.0) + seconds

    def give_up(self, key: str) -> None:
        """Count a video that has failed for good."""
        self.failed += 1
        self._settle(key)

    def _settle(self, key: str) -> None:
        if key in self.guesses:
            self._waiting -= self.guesses[key]
            self._unknown -= not self.guesses[key]

    @property
    def expected_frames(self) -> int | None:
        """Frames that this submission will probably have tracked at its end; None where too little is known.

        Guesses go by the size of files. What videos really hold, once they have been opened, says how good they are.
        """
        guesses = {key: self.guesses.get(key, 0) for key in self.running}
        opened = {key: video.expected for key, video in self.running.items() if video.expected and guesses[key]}
        measured = self._measured + sum(opened.values())
        guessed = self._guessed + sum(guesses[key] for key in opened)
        scale = measured / guessed if measured and guessed else 1.0
        of_running = [
            max(video.frames, video.expected or round(scale * guesses[key])) for key, video in self.running.items()
        ]
        unknown = self._unknown - sum(not guess for guess in guesses.values())
        if not self.guesses or unknown or not all(of_running):
            return None
        coming = sum(of_running) - sum(video.earlier for video in self.running.values())
        return self.finished_frames + coming + round(scale * (self._waiting - sum(guesses.values())))

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will probably take; None before there are frames to go by."""
        expected = self.expected_frames
        if expected is None or self.frames < FEWEST_FRAMES:
            return None
        return self.seconds * max(0, expected - self.frames) / self.frames

    @property
    def frames(self) -> int:
        """Frames tracked by this run so far."""
        return self.finished_frames + sum(video.frames - video.earlier for video in self.running.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def restart_clock(self) -> None:
        """Begin to count seconds, so that starting Ray does not."""
        self.started = time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        left = self.seconds_left
        return {
            "videos": self.videos,
            "done": self.done,
            "already_done": self.already_done,
            "failed": self.failed,
            "running": len(self.running),
            "retries": self.retries,
            "frames": self.frames,
            "expected_frames": self.expected_frames,
            "seconds": round(self.seconds, 1),
            "seconds_left": None if left is None else round(left, 1),
            "frames_per_second": round(self.frames / max(self.seconds, 1e-9), 2),
        }
