"""The numbers of a video as arrays, one target after another, and as short lines to be drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rts_batch.errors import ResultsError
from rts_batch.manifest.task import Direction
from rts_batch.masks import STATES
from rts_batch.runs.statistics import Statistics
from rts_batch.runs.video_masks import Target, VideoMasks

SEVERITY: Final = np.array([0, 0, 1, 2, 3], np.int8)
"""How much a state asks for a look, in the order of `STATES`."""

ALONE: Final = 3
"""How wide a value is drawn that has none beside it; a point would not be seen."""

_COLUMNS: Final = ("frame", "area", "score", "confidence", "quality", "state")


@dataclass(frozen=True)
class Track:
    """One target of a video: a value for each of its N rows. Some 20 bytes for each frame are held."""

    target: Target
    statistics: Statistics
    frames: NDArray[np.int32]
    areas: NDArray[np.int32]
    scores: NDArray[np.float32]
    """NaN where the row has none."""
    qualities: NDArray[np.float32]
    """NaN where the row has none."""
    states: NDArray[np.int8]
    """Places in `STATES`."""
    direction: Direction = field(default="forward", kw_only=True)
    """In which its video was tracked."""

    @property
    def severity(self) -> NDArray[np.int8]:
        """[N] int8, 0 where the target is tracked, 3 where it is lost."""
        return np.asarray(SEVERITY[self.states])

    @property
    def measure(self) -> Literal["quality", "score"]:
        """What `marks` are; see `Statistics.measure`."""
        return "score" if np.isnan(self.qualities).all() and not np.isnan(self.scores).all() else "quality"

    @property
    def marks(self) -> NDArray[np.float32]:
        """[N], NaN where the row has none: the lower, the more it asks for a look."""
        return self.qualities if self.measure == "quality" else self.scores

    @property
    def lowest_mark(self) -> float | None:
        return _lowest(self.marks)


class VideoTrack:
    """All targets of a video together; takes their tracks one after another."""

    def __init__(self, video: VideoMasks) -> None:
        self._file = video.file
        # Of the rows and no others: neither what the file claims its length to be nor a wild frame takes memory.
        self.frames = np.zeros(0, np.int32)
        """Those on which a target has a row, N of them, ascending."""
        self.marks = np.zeros(0, np.float32)
        """The lowest quality, or score, among the targets; `[N]`, NaN where there is none."""
        self.areas = np.zeros(0, np.int64)
        """Of all targets together, in pixels; `[N]`."""

    def add(self, track: Track) -> None:
        """Raise ResultsError where a frame has several rows, or where one between tracked ones has none."""
        steps = np.diff(track.frames)
        absent = (track.states == STATES.index("lost")) & np.isnan(track.scores)  # as a person has said
        annotated = bool((absent | (track.states == STATES.index("prompt"))).all())
        if (steps < 1).any() or not (annotated or (steps == 1).all()):
            raise ResultsError(
                f"{self._file}: the rows of object {track.target.object_id} are not one for each frame; it was "
                "rewritten. Track its video again"
            )
        frames = np.union1d(self.frames, track.frames)
        marks, areas = np.full(len(frames), np.nan, np.float32), np.zeros(len(frames), np.int64)
        for part in (self, track):
            places = np.searchsorted(frames, part.frames)
            marks[places] = np.fmin(marks[places], part.marks)
            areas[places] += part.areas
        self.frames, self.marks, self.areas = frames, marks, areas

    @property
    def span(self) -> int:
        """Frames from the first row to the last."""
        return int(self.frames[-1]) - int(self.frames[0]) + 1 if len(self.frames) else 0

    @property
    def lowest_mark(self) -> float | None:
        return _lowest(self.marks)


def read_tracks(video: VideoMasks) -> Iterator[Track]:
    """The targets of a video one after another, in one pass over its rows."""
    direction = video.entry.task.get("direction", "forward")
    for target, tables in itertools.groupby(video.pieces(_COLUMNS), key=itemgetter(0)):
        statistics = Statistics()
        parts: list[list[NDArray[Any]]] = []
        for _, piece in tables:
            statistics.add(piece)
            parts.append(_arrays(piece))
        arrays = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        yield Track(target, statistics, *arrays, direction=direction)


def _arrays(table: pa.Table) -> list[NDArray[Any]]:
    states = pc.index_in(table["state"].cast(pa.string()), value_set=pa.array(STATES))
    return [
        table["frame"].to_numpy(),
        table["area"].to_numpy(),
        table["score"].to_numpy(),  # null becomes NaN
        table["quality"].to_numpy(),
        states.to_numpy().astype(np.int8),
    ]


def _lowest(marks: NDArray[np.float32]) -> float | None:
    known = marks[~np.isnan(marks)]
    return float(known.min()) if len(known) else None


def shrink(frames: NDArray[np.integer], values: NDArray[Any], count: int, pick: np.ufunc) -> NDArray[Any]:
    """Return at most `count` values along an axis from the first frame to the last, NaN where no frame has a row.

    Each is picked (`np.fmin`, `np.maximum` …) from an equal share of the frames.

    Args:
        frames: `[N]`, ascending.
        values: `[N]`, one for each frame.
    """
    if not len(frames):
        return np.zeros(0)
    away = frames.astype(np.int64) - int(frames[0])
    span = int(away[-1]) + 1
    starts = np.linspace(0, span, min(count, span), endpoint=False).astype(np.int64)
    places = np.searchsorted(away, starts)
    empty = np.diff(places, append=len(away)) == 0
    return np.where(empty, np.nan, pick.reduceat(values, places))


def draw_line(values: NDArray[Any], *, top: float, width: int, height: int) -> str:
    """The path of an SVG line through values from 0 (below) to `top`; it is interrupted where they are NaN."""
    step = width / max(1, len(values) - 1)
    parts, pen_down = [], False
    for place, value in enumerate(values.tolist()):
        if np.isnan(value):
            pen_down = False
            continue
        y = height - 1 - (height - 2) * min(max(value / top, 0.0), 1.0) if top > 0 else height - 1
        alone = not pen_down and (place + 1 == len(values) or np.isnan(values[place + 1]))
        x = min(place * step, width - ALONE) if alone else place * step
        parts.append(f"{'L' if pen_down else 'M'}{x:.4g} {y:.4g}{f'h{ALONE}' if alone else ''}")
        pen_down = True
    return "".join(parts)


Strip = dict[int, str]
"""By severity, the path of the SVG area where it holds."""


def draw_strip(severity: NDArray[np.floating], *, width: int, height: int) -> Strip:
    """Bars along the time axis that show where a target was in which kind of state; the worse, the higher.

    Nothing where the severity is NaN.
    """
    edges = [0, *(np.flatnonzero(np.diff(severity)) + 1).tolist(), len(severity)]
    step = width / max(1, len(severity))
    strip: dict[int, str] = {}
    for start, stop in itertools.pairwise(edges):
        if stop > start and not np.isnan(severity[start]):
            kind = int(severity[start])
            high, long = height * (kind + 1) / (int(SEVERITY.max()) + 1), (stop - start) * step
            bar = f"M{start * step:.4g} {height}v-{high:.4g}h{long:.4g}v{high:.4g}z"
            strip[kind] = strip.get(kind, "") + bar
    return strip
