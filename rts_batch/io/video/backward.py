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
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from rts_batch.errors import VideoError
from rts_batch.io.video.container import decode_stream, open_container
from rts_batch.io.video.frames import Damage, Frame, FrameRange, Report
from rts_batch.io.video.probe import Probe
from rts_batch.io.video.pyav import PyavSource

__all__ = ["BackwardSource"]

HELD_BYTES: Final = 192 << 20
"""Decoded frames, as the codec gives them, that are held at once; at least one."""


class BackwardSource(PyavSource):
    """The wanted frames, the last one first.

    Args:
        last_time: reading begins no earlier than with the frame that shows at this time, in seconds; without an `end`
            it begins right there.
    """

    seeks = True

    def __init__(
        self,
        probe: Probe,
        wanted: FrameRange,
        *,
        last_time: float | None,
        threads: int,
        report: Report,
    ) -> None:
        super().__init__(probe, wanted, threads=threads, report=report)
        self._threads = threads
        self._last_time = last_time
        self._times: list[int | None] = []
        self._keys: list[int] = []

    def unfinished(self) -> Iterator[Callable[[], Frame]]:
        largest = self._number_frames()
        hold = max(1, HELD_BYTES // max(largest, 1))
        times = [time for time in self._times if time is not None]
        can_seek = len(times) == len(self._times) and all(a < b for a, b in itertools.pairwise(times))
        reformatter = VideoReformatter()
        last = len(self._times)
        while last > self.wanted.start:
            first = self._piece(last, hold)
            held = (self._decode_from_key(first, last) if can_seek else None) or self._decode_all(first, last)
            while held:
                last -= 1
                frame = held.pop()
                if (last - self.wanted.start) % self.wanted.stride == 0:
                    yield functools.partial(self._finish, frame, last, reformatter)

    def _number_frames(self) -> int:
        """Decodes up to where reading begins, notes times and key frames, and returns the largest frame's bytes."""
        largest = 0
        last_time, length = None, None
        due = self._due_time()
        for frame in decode_stream(self._container, self._stream, self.damage, self._tell):
            if self._reached(frame, due):
                break
            largest = max(largest, sum(plane.buffer_size for plane in frame.planes))
            if frame.key_frame:
                self._keys.append(len(self._times))
            self._times.append(frame.pts)
            last_time = frame.time
        else:
            length = (len(self._times), last_time)
        self._report(length)
        return largest

    def _due_time(self) -> float | None:
        """The earliest time at which a frame counts as showing at `last_time`: half a frame before, as everywhere."""
        if self._last_time is None:
            return None
        return self._last_time - (0.5 / self.info.fps if self.info.fps else 0.0)

    def _reached(self, frame: VideoFrame, due: float | None) -> bool:
        """Whether this frame lies past where reading begins."""
        end = self.wanted.end
        if end is not None and len(self._times) < end:
            return False
        if due is None:
            return end is not None
        before = self._times[-1] if self._times else None
        if before is None or frame.time_base is None:
            return False
        return float(before * frame.time_base) >= due

    def _piece(self, last: int, hold: int) -> int:
        """Where the piece that ends before `last` begins: at a key frame if one is near enough."""
        first = max(self.wanted.start, last - hold)
        key = bisect_left(self._keys, first)
        return self._keys[key] if key < len(self._keys) and self._keys[key] < last else first

    def _decode_from_key(self, first: int, last: int) -> list[VideoFrame] | None:
        """The frames of a piece, from the last key frame at or before it; None where seeking does not lead there."""
        wanted = self._times[first:last]
        key = bisect_left(self._keys, first + 1) - 1
        if key < 0 or wanted[0] is None:
            return None
        target = self._times[self._keys[key]]
        assert target is not None
        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except OSError:
            return None
        held: list[VideoFrame] = []
        for frame in decode_stream(self._container, self._stream, Damage(), self._tell):
            if frame.pts is None or frame.pts < wanted[0]:
                continue
            if frame.pts != wanted[len(held)]:
                return None
            held.append(frame)
            if len(held) == len(wanted):
                return held
        return None

    def _decode_all(self, first: int, last: int) -> list[VideoFrame]:
        """The frames of a piece, from the file's beginning on."""
        self._container.close()
        self._container, self._stream = open_container(
            self.path, self._threads, content=self._probe.content, seeks=True
        )
        held = []
        for index, frame in enumerate(decode_stream(self._container, self._stream, Damage(), self._tell)):
            if index >= first:
                held.append(frame)
            if index + 1 == last:
                return held
        raise VideoError(f"{self.path} gives {first + len(held)} frames when it is read again, {last} at first")
