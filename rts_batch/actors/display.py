"""How a run is shown while it works: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from rts_batch.actors.progress import RunProgress

LINE_SECONDS = 5.0


class Display:
    """Shows a run to somebody; this one shows nothing, as who asked for the run reads its summary.

    It may be given words before it is entered, and `update` is called often.
    """

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: RunProgress) -> None:
        """Show how far the run has come."""

    def note(self, text: str) -> None:
        """Say one thing that matters."""

    def step(self, text: str) -> None:
        """Say what begins now and may take a while."""

    def detail(self, text: str) -> None:
        """Say what only who looks for trouble wants to know."""


class QuietDisplay(Display):
    """Failures and warnings on standard error, and nothing else."""

    def note(self, text: str) -> None:
        _print(text, sys.stderr)


class LineDisplay(QuietDisplay):
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

    def update(self, progress: RunProgress) -> None:
        now = self._clock()
        if self._last is not None and now - self._last < self._interval:
            return
        self._last = now
        if self._as_json:
            running = {video.video_id: video.frames for video in progress.running.values()}
            self._print(json.dumps({"event": "status", **progress.to_dict(), "frames_by_video": running}))
        else:
            finished, expected = progress.done + progress.already_done, progress.expected_frames
            frames = f"{progress.frames} frames" if expected is None else f"{progress.frames} of ~{expected} frames"
            self._print(
                f"{finished}/{progress.videos} videos done, {progress.failed} failed, {len(progress.running)} running, "
                f"{frames}, {progress.to_dict()['frames_per_second']} frames/s{time_left(progress)}"
            )

    def step(self, text: str) -> None:
        if not self._as_json:
            self._print(text)

    def _print(self, line: str) -> None:
        _print(line, self._stream)


class BarDisplay(Display):
    """A bar for the run, of frames as far as their number is known, and one for every video in flight."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),  # a video may be called `take[/1]`
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
        with contextlib.suppress(OSError):
            self._bars.stop()

    def update(self, progress: RunProgress) -> None:
        finished = progress.done + progress.already_done + progress.failed
        speed, expected = progress.to_dict()["frames_per_second"], progress.expected_frames
        failed = f", {progress.failed} failed" if progress.failed else ""
        of_videos = "" if expected is None else f", {finished} of {progress.videos} videos"
        self._bars.update(
            self._overall,
            description="videos" if expected is None else "frames",
            total=progress.videos if expected is None else expected,
            completed=finished if expected is None else progress.frames,
            unit=f"{speed} frames/s{of_videos}{failed}{time_left(progress)}",
        )
        for key in self._by_key.keys() - progress.running.keys():
            self._bars.remove_task(self._by_key.pop(key))
        for key, video in progress.running.items():
            if key not in self._by_key:
                name = video.video_id if len(video.video_id) <= 40 else f"…{video.video_id[-39:]}"
                self._by_key[key] = self._bars.add_task(f"  {name}", total=None, unit="frames")
            self._bars.update(self._by_key[key], total=video.expected, completed=video.frames)

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._bars.console.print(text, markup=False, highlight=False)

    def step(self, text: str) -> None:
        self.note(f"{text} …")


def _print(line: str, stream: TextIO) -> None:
    """Print a line, if it can be: what is shown on a full disk or a closed terminal is not worth the run."""
    with contextlib.suppress(OSError):
        print(line, file=stream, flush=True)


def time_left(progress: RunProgress) -> str:
    """Words for how long a run will probably take yet, after a comma; nothing where that is not known."""
    left = progress.seconds_left
    if left is None or left < 1:
        return ""
    hours, minutes = divmod(round(left / 60), 60)
    if left < 90:
        return f", ~{left:.0f} s left"
    return f", ~{hours} h {minutes} min left" if hours else f", ~{minutes} min left"


def choose_display(*, as_json: bool, stream: TextIO, quiet: bool = False) -> Display:
    """Bars where standard error is a terminal, lines elsewhere; with `as_json` JSON lines on `stream`."""
    if as_json:
        return LineDisplay(stream=stream, as_json=True)
    if quiet:
        return QuietDisplay()
    return BarDisplay() if sys.stderr.isatty() else LineDisplay()
