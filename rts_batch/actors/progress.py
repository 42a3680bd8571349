"""What the workers report while they work, and how it is shown: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TextIO

from rts_batch.actors.coordinator import FailureKind

LINE_SECONDS = 5.0


PhaseName = Literal["fetch", "track", "write"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the worker does with the video from now on."""

    key: str
    phase: PhaseName


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The video is open. `frames` is what its container or the manifest announces."""

    key: str
    frames: int | None
    decoder: str


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """`frames` frames of the video have been read and tracked so far."""

    key: str
    frames: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The masks of the video are in place."""

    key: str
    frames: int
    seconds: float
    warnings: tuple[str, ...] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the worker spent on each step."""
    has_checkpoints: bool = False
    """The run's folder holds checkpoints of it that nobody needs any more."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The attempt failed in a way that the worker itself could tell."""

    key: str
    kind: FailureKind
    error: str
    message: str
    frame: int | None = None


Event = Phase | Opened | Advanced | Finished | Failed
"""What the worker says about a video, which it names by its `key`. `Finished` or `Failed` is the last about it."""


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
    video_seconds: float = 0.0
    """The workers' time on finished videos."""
    running: dict[str, VideoProgress] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def add(self, finished: Finished) -> None:
        """Counts a finished video."""
        self.done += 1
        self.finished_frames += finished.frames
        self.video_seconds += finished.seconds
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
        """Begins to count seconds, so that starting Ray does not."""
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


class Display(Protocol):
    """Shows a run to somebody. `update` is called often; `note` says one thing that matters."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, progress: RunProgress) -> None: ...
    def note(self, text: str) -> None: ...


class LineDisplay:
    """One line every few seconds: JSON objects on `stream` with `as_json`, else plain words on standard error."""

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        as_json: bool = False,
        interval: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._as_json = as_json
        self._interval = interval
        self._clock = clock
        self._last: float | None = None

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: RunProgress) -> None:
        now = self._clock()
        if self._last is not None and now - self._last < self._interval:
            return
        self._last = now
        if self._as_json:
            running = {video.video_id: video.frames for video in progress.running.values()}
            self._print(json.dumps({"event": "status", **progress.to_dict(), "frames_by_video": running}))
        else:
            finished = progress.done + progress.already_done
            self._print(
                f"{finished}/{progress.videos} videos done, {progress.failed} failed, {len(progress.running)} running, "
                f"{progress.frames} frames, {progress.to_dict()['frames_per_second']} frames/s"
            )

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class BarDisplay:
    """A bar for the run and one for every video in flight, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._overall = self._bars.add_task("videos", total=None, unit="", start=False)
        self._by_key: dict[str, Any] = {}

    def __enter__(self) -> BarDisplay:
        self._bars.start_task(self._overall)
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, progress: RunProgress) -> None:
        speed = progress.to_dict()["frames_per_second"]
        self._bars.update(
            self._overall,
            total=progress.videos,
            completed=progress.done + progress.already_done + progress.failed,
            unit=f"videos, {speed} frames/s" + (f", {progress.failed} failed" if progress.failed else ""),
        )
        for key in self._by_key.keys() - progress.running.keys():
            self._bars.remove_task(self._by_key.pop(key))
        for key, video in progress.running.items():
            if key not in self._by_key:
                name = video.video_id if len(video.video_id) <= 40 else f"…{video.video_id[-39:]}"
                self._by_key[key] = self._bars.add_task(f"  {name}", total=None, unit="frames")
            self._bars.update(self._by_key[key], total=video.expected, completed=video.frames)

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


def choose_display(*, as_json: bool, stream: TextIO) -> Display:
    """Bars where standard error is a terminal, lines elsewhere; with `as_json` JSON lines on `stream`."""
    if as_json:
        return LineDisplay(stream=stream, as_json=True)
    return BarDisplay() if sys.stderr.isatty() else LineDisplay()
