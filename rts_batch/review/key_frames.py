"""Which frames of a video to look at first: where it begins, where the tracker doubted, where it lost the target and
found it again, where the mask changed its size at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rts_batch.review.tracks import Track
from rts_batch.words import counted

JUMP: Final = 1.25
"""From one frame to the next, masks that grow or shrink by less are not called a jump."""

LOW: Final = 0.5
"""Beside a target's lowest quality (or score), only values up to this one are worth a frame."""

DROP: Final = 0.15
"""From one frame to the next, qualities that fall by less are not called a drop."""

APART: Final = 2
"""Key frames at most this many frames apart show the same thing."""

_Kind = Literal["gap", "low", "drop", "jump"]
_TURNS: Final[tuple[_Kind, ...]] = ("gap", "low", "drop", "jump")


@dataclass
class KeyFrame:
    index: int
    reasons: list[str]


class _Candidate(NamedTuple):
    importance: float
    shown: tuple[tuple[int, str], ...]
    """Frames that belong together, each with its reason."""


@dataclass
class KeyFrames:
    """Takes a video's tracks one after another, then chooses."""

    count: int
    """Frames to choose at most."""
    several: bool
    """Whether a reason has to say which target it is about."""
    _candidates: dict[_Kind, list[_Candidate]] = field(default_factory=lambda: {kind: [] for kind in _TURNS})
    _firsts: dict[int, list[int]] = field(default_factory=dict)
    _last: int = 0
    _annotated: list[int] = field(default_factory=list)
    """Frames with rows where not all have some, at about equal numbers of rows."""

    def add(self, track: Track) -> None:
        if not len(track.frames) or self.count < 1:
            return
        who = f"object {track.target.label}: " if self.several else ""
        self._firsts.setdefault(int(track.frames[0]), []).append(track.target.object_id)
        self._last = max(self._last, int(track.frames[-1]))
        if int(track.frames[-1]) - int(track.frames[0]) >= len(track.frames):
            self._annotated += track.frames[np.linspace(0, len(track.frames) - 1, self.count).astype(int)].tolist()
        found: dict[_Kind, Iterator[_Candidate]] = {
            "gap": _gaps(track, who),
            "low": _low_marks(track, who, self.count),
            "drop": _drops(track, who, self.count),
            "jump": _jumps(track, who, self.count),
        }
        for kind, candidates in found.items():
            both = sorted([*self._candidates[kind], *candidates], key=lambda one: -one.importance)
            self._candidates[kind] = both[: self.count]

    def choose(self) -> list[KeyFrame]:
        """The frames in order of time. Where little happened, frames at equal distances fill up the number."""
        chosen: dict[int, KeyFrame] = {}
        if not self._firsts:
            return []
        first = min(self._firsts)
        self._take(chosen, first, "first")
        turns = [iter(self._candidates[kind]) for kind in _TURNS]
        for candidate in itertools.chain.from_iterable(itertools.zip_longest(*turns)):
            for frame, reason in candidate.shown if candidate is not None else ():
                self._take(chosen, frame, reason)
        for index, ids in sorted(self._firsts.items()):
            if index != first:
                self._take(chosen, index, f"first of object {ids[0]}" + (" and others" if len(ids) > 1 else ""))
        self._take(chosen, self._last, "last")
        evenly = np.linspace(first, self._last, self.count + 1)[1:-1].round().astype(int).tolist()
        for frame in sorted(self._annotated) or evenly:  # a frame without rows shows nothing
            self._take(chosen, frame, "evenly spaced", fill=True)
        return sorted(chosen.values(), key=lambda one: one.index)

    def _take(self, chosen: dict[int, KeyFrame], frame: int, reason: str, *, fill: bool = False) -> None:
        for known in chosen.values():
            if known.index == frame and not fill and reason not in known.reasons and len(known.reasons) < 3:
                known.reasons.append(reason)
            if abs(known.index - frame) <= APART:
                return
        if len(chosen) < self.count:
            chosen[frame] = KeyFrame(frame, [reason])


def _gaps(track: Track, who: str) -> Iterator[_Candidate]:
    """Stretches in which the target was lost or uncertain: the first frame, and the one where it was found again."""
    severity = track.severity
    edges = np.flatnonzero(np.diff((severity > 0).astype(np.int8), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2).tolist():
        part = severity[start:stop]
        word = "lost" if part.max() > 1 else "uncertain"
        length = counted(stop - start, "frame")
        shown = [(int(track.frames[start]), f"{who}{word} for {length}")]
        if stop < len(severity):
            shown.append((int(track.frames[stop]), f"{who}found again after {length}"))
        yield _Candidate(float(part.sum(dtype=np.int64)), tuple(shown))


def _low_marks(track: Track, who: str, count: int) -> Iterator[_Candidate]:
    """The lowest qualities, of frames with a mask where there are any, not all of them from one place."""
    marks = np.where(track.areas > 0, track.marks, np.nan)
    if np.isnan(marks).all():
        marks = track.marks
    lowest = _extremes(np.where(np.isnan(marks), -np.inf, -marks), count)
    for taken, place in enumerate(lowest):
        mark = float(marks[place])
        if taken and mark > LOW:
            return
        yield _Candidate(-mark, ((int(track.frames[place]), f"{who}low {track.measure} {mark:.2f}"),))


def _drops(track: Track, who: str, count: int) -> Iterator[_Candidate]:
    """The largest falls of the quality from one frame to the next."""
    falls = track.qualities[:-1] - track.qualities[1:]
    for place in _extremes(np.where(np.isnan(falls), -np.inf, falls), count):
        if falls[place] < DROP:
            return
        reason = f"{who}quality falls to {track.qualities[place + 1]:.2f}"
        yield _Candidate(float(falls[place]), ((int(track.frames[place + 1]), reason),))


def _jumps(track: Track, who: str, count: int) -> Iterator[_Candidate]:
    """The largest changes of the mask's area from one frame to the next."""
    before, after = track.areas[:-1].astype(float), track.areas[1:].astype(float)
    known = (before > 0) & (after > 0) & (np.diff(track.frames) == 1)
    ratios = np.where(known, np.maximum(after, 1) / np.maximum(before, 1), 1.0)
    for place in _extremes(np.abs(np.log(ratios)), count):
        ratio = float(ratios[place])
        if max(ratio, 1 / ratio) < JUMP:
            return
        frame = int(track.frames[place + 1])
        yield _Candidate(abs(float(np.log(ratio))), ((frame, f"{who}area × {ratio:.2f}"),))


def _extremes(values: NDArray[np.floating], count: int) -> Iterator[int]:
    """Places of the largest values, each with some distance to those before it; -inf is none."""
    values = values.astype(np.float64)
    apart = max(APART + 1, len(values) // (4 * count))
    for _ in range(min(count, len(values))):
        place = int(values.argmax())
        if np.isneginf(values[place]):
            return
        yield place
        values[max(0, place - apart) : place + apart + 1] = -np.inf
