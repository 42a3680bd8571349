"""Which frames of a run to correct first: those where a prompt can be expected to mend most.

A correction mends its own frame and, less and less, the frames that are tracked from it (in a bidirectional video those
on either side), as far as they lack what this one lacks. So a frame counts for what is missing from the quality of
those, and each choice takes away what it serves. The plainly lowest qualities would all lie side by side, where one
correction serves them all.

How much is mended, and how far, was measured on clips (benchmarks/mending.py, docs/quality.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rts_batch.errors import ResultsError
from rts_batch.masks import STATES
from rts_batch.review.tracks import Track, read_tracks
from rts_batch.runs.video_masks import VideoMasks

REACH: Final = 20
"""Frames after which a correction is expected to mend 1/e of what it mends of the next frame."""
REACH_OF_BOTH_SIDES: Final = 40
"""The same, on either side, in a bidirectional video, which keeps what is better without it."""
MENDED: Final = 0.5
"""Share that it is expected to mend of what the next frame and its own lack."""

_AT_ONCE: Final = 4096
"""Places that are looked at at once: 5 MB."""


@dataclass(frozen=True, order=True)
class WorstFrame:
    """A frame on which a target should be marked again."""

    gain: float
    """IoU summed over frames that a correction here is expected to bring."""
    video_id: str
    object_id: int
    frame: int
    quality: float
    state: str
    object_name: str | None = None

    @property
    def label(self) -> str:
        """The target's name or, without one, its number."""
        return str(self.object_id) if self.object_name is None else self.object_name


def worst_frames(videos: Iterable[VideoMasks], count: int) -> list[WorstFrame]:
    """Choose the frames of a run, at most `count`, whose correction mends most, the best first.

    Raises:
        ResultsError: no row has a quality, or a file is damaged.
    """
    return choose_worst(((video.video_id, track) for video in videos for track in read_tracks(video)), count)


def choose_worst(tracks: Iterable[tuple[str, Track]], count: int) -> list[WorstFrame]:
    """Choose as `worst_frames` among tracks that have been read, each with the video_id that it is of.

    Raises:
        ResultsError: no row has a quality.
    """
    best: list[WorstFrame] = []
    judged = False
    for video_id, track in tracks:
        judged = judged or not np.isnan(track.qualities).all()
        for stretch in _stretches(track):
            for found in _chosen(video_id, track, stretch):
                if len(best) < count:
                    heapq.heappush(best, found)
                elif not best or found <= best[0]:
                    break  # the next ones of this stretch would mend still less
                else:
                    heapq.heapreplace(best, found)
    if not judged:
        raise ResultsError(
            "no row of this run has a quality: an earlier version or another tracker made it, or it only annotates"
        )
    return sorted(best, reverse=True)


def _chosen(video_id: str, track: Track, stretch: slice) -> Iterator[WorstFrame]:
    """Yield the frames of one stretch, each mending most beside those before it."""
    places = range(len(track.frames))[stretch]
    missing = 1.0 - track.qualities[stretch].astype(np.float64)
    both_sides = track.direction == "bidirectional"
    parts = [_Part.of(missing, 0, len(missing), both_sides=both_sides)]
    while parts and parts[0].gain > 0.0:
        part = heapq.heappop(parts)
        first, place = part.first, places[part.first]
        yield WorstFrame(
            gain=round(part.gain, 4),
            video_id=video_id,
            object_id=track.target.object_id,
            frame=int(track.frames[place]),
            quality=float(track.qualities[place]),
            state=STATES[track.states[place]],
            object_name=track.target.name,
        )
        # What is left of the frames that this one serves no correction beside it mends.
        served = _decay(both_sides=both_sides)
        sides = [missing[first : part.stop]] + ([missing[part.start : first + 1][::-1]] if both_sides else [])
        lacked = missing[first]
        for near in (side[: len(served)] for side in sides):
            near -= np.minimum(near, lacked) * served[: len(near)]
        for start, stop in ((part.start, first), (first + 1, part.stop)):
            if start < stop:
                heapq.heappush(parts, _Part.of(missing, start, stop, both_sides=both_sides))


@dataclass(frozen=True)
class _Part:
    """Places between two prompts, be they there already or chosen: a correction in between reaches no further."""

    gain: float
    """IoU summed over frames that a correction brings at most."""
    first: int
    """Where it brings that."""
    start: int
    stop: int

    @classmethod
    def of(cls, missing: NDArray[np.float64], start: int, stop: int, *, both_sides: bool) -> _Part:
        gains = expected_gains(missing[start:stop], both_sides=both_sides)
        return cls(float(gains.max()), start + int(gains.argmax()), start, stop)

    def __lt__(self, other: _Part) -> bool:
        """Order the best first, as a heap takes them."""
        return (self.gain, -self.first) > (other.gain, -other.first)


def _stretches(track: Track) -> Iterator[slice]:
    """Yield the places between prompts, each in the order in which its frames were tracked."""
    marked = np.isnan(track.qualities)  # prompts, and where somebody has said that the target is absent
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=1, append=1))
    begun = np.flatnonzero(track.states == STATES.index("prompt"))
    first = int(begun[0]) if len(begun) else 0
    backward_before = {"both": first, "bidirectional": first, "backward": len(marked)}
    for start, stop in edges.reshape(-1, 2).tolist():
        if start < backward_before.get(track.direction, 0):  # tracked from the prompt after it
            yield slice(stop - 1, start - 1 if start else None, -1)
        else:
            yield slice(start, stop)


def expected_gains(missing: NDArray[np.float64], *, both_sides: bool = False) -> NDArray[np.float64]:
    """Return what a correction mends at each place, in IoU summed over frames, of what is missing there.

    `missing` is what each frame's quality lacks, `[N]`, in the order of tracking, up to the next prompt.
    """
    shares = MENDED * _decay(both_sides=both_sides)
    shares[0] = 1.0
    gains = _gains_ahead(missing, shares)
    if both_sides:  # its own frame is mended once
        gains += _gains_ahead(missing[::-1], shares)[::-1] - missing
    return gains


def _gains_ahead(missing: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    ahead = sliding_window_view(np.concatenate([missing, np.zeros(len(shares) - 1)]), len(shares))
    gains = np.empty_like(missing)
    for first in range(0, len(missing), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        gains[some] = np.minimum(ahead[some], missing[some, None]) @ shares
    return gains


def _decay(*, both_sides: bool) -> NDArray[np.float64]:
    """Return how far each frame from the corrected one on is served, `[K]`."""
    reach = REACH_OF_BOTH_SIDES if both_sides else REACH
    return np.exp(-np.arange(5 * reach) / reach)
