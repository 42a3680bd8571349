"""How a run is shown while it works: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rts_batch.actors.progress import RunProgress

LINE_SECONDS = 5.0


class Display(Protocol):
    """Shows a run to somebody. `update` is called often; `note` says one thing that matters."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, progress: RunProgress) -> None: ...
    def note(self, text: str) -> None: ...


class SilentDisplay:
    """Shows nothing: who asked for the run reads its summary."""

    def __enter__(self) -> SilentDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: RunProgress) -> None:
        pass

    def note(self, text: str) -> None:
        pass


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
