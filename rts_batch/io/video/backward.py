"""A video file read backwards, in bounded memory.

Codecs only run forward, so the frames are decoded piece by piece, the last piece first: from the key frame before a
piece to its end, held, and given out in reverse. Before that the file is decoded once up to where reading begins,
which numbers the frames exactly as reading forward does.

Cost: that one pass without colour conversion, and then each group of pictures once if it fits `HELD_BYTES`, else once
for each piece of it, half of it on average: 500 frames of 1080p between two key frames are decoded about five times.
Where a file cannot be sought in (raw streams, times that are missing or repeat), each piece is decoded from the file's
beginning.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from rts_batch.errors import VideoError
from rts_batch.io.video.container import decode_stream, with_neighbours
from rts_batch.io.video.frames import Damage, Frame, FrameRange, Moment, Report
from rts_batch.io.video.probe import Probe
from rts_batch.io.video.pyav import PyavSource

HELD_BYTES: Final = 192 << 20
"""Decoded frames, as the codec gives them, that are held at once; at least one."""

STRAYS: Final = 32
"""Frames that may come between the place sought and the frame wanted although they do not belong there."""


class BackwardSource(PyavSource):
    """The wanted frames, the last one first; without an `end` that is the one nearest to `last_time`."""

    seeks = True

    def __init__(self, probe: Probe, wanted: FrameRange, *, threads: int, report: Report) -> None:
        super().__init__(probe, wanted, threads=threads, report=report)
        self._moments: list[Moment] = []
        self._pts: list[int | None] = []
        """As the decoder gives them: they tell the frames apart, whatever their order."""
        self._keys: list[int] = []

    def unfinished(self) -> Iterator[Callable[[], Frame]]:
        largest = self._number_frames()
        hold = max(1, HELD_BYTES // max(largest, 1))
        can_seek = None not in self._pts and len(set(self._pts)) == len(self._pts)
        reformatter = VideoReformatter()
        last = len(self._moments)
        while last > self.wanted.start:
            first = self._piece(last, hold)
            held = (self._decode_from_key(first, last) if can_seek else None) or self._decode_all(first, last)
            while held:
                last -= 1
                yield functools.partial(self._finish, held.pop(), self._moments[last], reformatter)

    def _number_frames(self) -> int:
        """Decode up to where reading begins, notes times and key frames, and return the largest frame's bytes."""
        largest = 0
        length = None
        decoded = decode_stream(self._container, self._stream, self.damage, self._tell)
        for picture, moment in with_neighbours(decoded):
            if self._is_past(moment):
                break
            largest = max(largest, sum(plane.buffer_size for plane in picture.planes))
            if picture.key_frame:
                self._keys.append(moment.index)
            self._moments.append(moment)
            self._pts.append(picture.pts)
        else:
            length = (len(self._moments), self._moments[-1].time if self._moments else None)
        self._report(length)
        return largest

    def _is_past(self, moment: Moment) -> bool:
        """Whether this frame lies past where reading begins."""
        end, time = self.wanted.end, self.wanted.last_time
        if end is not None and moment.index < end:
            return False
        if time is None:
            return end is not None
        if moment.before is None or moment.time is None:
            return False
        return time <= Moment.halfway(moment.before, moment.time)

    def _piece(self, last: int, hold: int) -> int:
        """Where the piece that ends before `last` begins: at a key frame if one is near enough."""
        first = max(self.wanted.start, last - hold)
        key = bisect_left(self._keys, first)
        return self._keys[key] if key < len(self._keys) and self._keys[key] < last else first

    def _decode_from_key(self, first: int, last: int) -> list[VideoFrame] | None:
        """The frames of a piece, from the last key frame at or before it; None where seeking does not lead there."""
        wanted = self._pts[first:last]
        key = bisect_left(self._keys, first + 1) - 1
        target = self._pts[self._keys[key]] if key >= 0 else None
        if target is None:
            return None
        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except OSError:
            return None
        skipped, most = 0, first - self._keys[key] + STRAYS
        held: list[VideoFrame] = []
        for picture, _ in decode_stream(self._container, self._stream, Damage(), self._tell):
            if not held and picture.pts != wanted[0] and skipped < most:
                skipped += 1
                continue
            if picture.pts != wanted[len(held)]:
                return None
            held.append(picture)
            if len(held) == len(wanted):
                return held
        return None

    def _decode_all(self, first: int, last: int) -> list[VideoFrame]:
        """The frames of a piece, from the file's beginning on."""
        self._reopen()
        held = []
        for index, (picture, _) in enumerate(decode_stream(self._container, self._stream, Damage(), self._tell)):
            if index >= first:
                held.append(picture)
            if index + 1 == last:
                return held
        raise VideoError(f"{self.path} gives {first + len(held)} frames when it is read again, {last} at first")
