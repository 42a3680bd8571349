"""The axis below a chart: frame numbers at round steps, and when they are shown."""

from __future__ import annotations

from typing import Final, NamedTuple

MOST: Final = 5
"""Steps of an axis; its labels must fit a narrow window."""


class Tick(NamedTuple):
    percent: float
    """Where on the axis, from 0 to 100."""
    frame: int
    time: str | None


def ticks(first: int, last: int, fps: float | None) -> tuple[Tick, ...]:
    """Return the marks of an axis from the frame `first` to `last`; without times where `fps` is not known."""
    span = max(1, last - first)
    power = 10 ** (len(str(max(1, span // MOST))) - 1)
    step = next(size for factor in (1, 2, 5, 10, 20) if span <= MOST * (size := factor * power))
    frames = range(-(-first // step) * step, last + 1, step)
    return tuple(
        Tick(round(100 * (frame - first) / span, 3), frame, clock(frame / fps) if fps else None) for frame in frames
    )


def clock(seconds: float) -> str:
    """Seconds as `m:ss.ss`, with hours where there are some."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02.0f}"
    return f"{minutes}:{rest:05.2f}"
