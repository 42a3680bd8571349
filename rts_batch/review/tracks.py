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
        """What `marks` are: the score only where an earlier version estimated no quality."""
        return "score" if np.isnan(self.qualities).all() else "quality"

    @property
    def marks(self) -> NDArray[np.float32]:
        """[N], NaN where the row has none: the lower, the more it asks for a look."""
        return self.qualities if self.measure == "quality" else self.scores

    @property
    def lowest_mark(self) -> float | None:
        return _lowest(self.marks)


class VideoTrack:
    """All targets of a video together, frame by frame; takes their tracks one after another."""

    def __init__(self, video: VideoMasks) -> None:
        self._file = video.file
        targets = video.targets.values()
        self.first = min((target.first_frame for target in targets), default=0)
        # As a target has a row for each frame from its first one on; not what the file claims its length to be.
        length = max((target.first_frame + target.rows for target in targets), default=0) - self.first
        self.marks = np.full(length, np.nan, np.float32)
        """The lowest quality, or score, among the targets."""
        self.areas = np.zeros(length, np.int64)
        """Of all targets together, in pixels."""

    def add(self, track: Track) -> None:
        """Raise ResultsError where a frame has no row, or several."""
        target = track.target
        if not np.array_equal(track.frames, np.arange(target.first_frame, target.first_frame + target.rows)):
            raise ResultsError(
                f"{self._file}: the rows of object {target.object_id} are not one for each frame; it was rewritten"
            )
        places = slice(target.first_frame - self.first, target.first_frame - self.first + target.rows)
        self.marks[places] = np.fmin(self.marks[places], track.marks)
        self.areas[places] += track.areas

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


def shrink(values: NDArray[Any], count: int, pick: np.ufunc) -> NDArray[Any]:
    """At most `count` values, each picked (`np.fmin`, `np.maximum` …) from an equal share of the given ones."""
    if len(values) <= count:
        return values
    starts = np.linspace(0, len(values), count, endpoint=False).astype(np.int64)
    return np.asarray(pick.reduceat(values, starts))


def draw_line(values: NDArray[Any], *, top: float, width: int, height: int) -> str:
    """The path of an SVG line through values from 0 (below) to `top`; it is interrupted where they are NaN."""
    step = width / max(1, len(values) - 1)
    parts, pen_down = [], False
    for place, value in enumerate(values.tolist()):
        if np.isnan(value):
            pen_down = False
            continue
        y = height - 1 - (height - 2) * min(max(value / top, 0.0), 1.0) if top > 0 else height - 1
        parts.append(f"{'L' if pen_down else 'M'}{place * step:.4g} {y:.4g}")
        if not pen_down and (place + 1 == len(values) or np.isnan(values[place + 1])):
            parts.append("h1")  # a lone value would not be seen
        pen_down = True
    return "".join(parts)


Strip = dict[int, str]
"""By severity, the path of the SVG area where it holds."""


def draw_strip(severity: NDArray[np.int8], *, width: int, height: int) -> Strip:
    """Bars along the time axis that show where a target was in which kind of state; the worse, the higher."""
    edges = [0, *(np.flatnonzero(np.diff(severity)) + 1).tolist(), len(severity)]
    step = width / max(1, len(severity))
    strip: dict[int, str] = {}
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            kind = int(severity[start])
            high, long = height * (kind + 1) / (int(SEVERITY.max()) + 1), (stop - start) * step
            bar = f"M{start * step:.4g} {height}v-{high:.4g}h{long:.4g}v{high:.4g}z"
            strip[kind] = strip.get(kind, "") + bar
    return strip
