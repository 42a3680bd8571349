"""A video file entered in its middle, for somebody who looks at single frames of it.

Reading forward numbers the frames by counting them from the first one. Who knows already at which time a frame is
shown, as the rows of a run say, need not wait for that: the file is sought in, and decoded from the key frame before.
Of a file whose packets are its frames, one for one (`probe.uncounted`), they are read for the times, which takes a
hundredth of decoding. Of all others frames are counted once, and the times of those that were counted are kept.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rts_batch.io.video.container import Opened, decode_stream, with_neighbours
from rts_batch.io.video.frames import Content, Damage, Frame, FrameRange, Moment, Report
from rts_batch.io.video.probe import Probe, probe_file, read_packets, uncounted
from rts_batch.io.video.pyav import PyavSource
from rts_batch.io.video.times import Decoded

SAME: Final = 4e-4
"""Seconds by which the time of one frame may differ from itself; results files hold times in float64."""

LONGEST_GROUP: Final = 1000
"""Frames that are decoded in search of the one that is wanted."""


EARLIER: Final = (0.0, 0.5, 4.0)
"""Seconds by which to go back farther where seeking leads past the wanted frame. Containers are sought in by the times
at which packets are decoded, and a key frame is decoded before frames that are shown before it."""


class _Found(NamedTuple):
    """The wanted frame, those decoded before it, the last one last, and those that come."""

    before: deque[Decoded]
    wanted: Decoded
    following: Iterator[Decoded]


class Entrance:
    """Opens files to look at single frames; the one entered last stays open, as it mostly is the next as well."""

    def __init__(self) -> None:
        self._file: tuple[object, ...] | None = None
        """Which file `_probe` and `_opened` are of."""
        self._probe: Probe | None = None
        self._counted: list[float | None] = []
        """Times of the frames of the file that were counted so far, from its first one on."""
        self._opened: Opened | None = None

    def open(
        self, path: str, wanted: FrameRange, *, threads: int, content: Content | None, report: Report
    ) -> SoughtSource:
        """Open a video file as `open_video` does.

        Raises:
            VideoError: it is no video, or has no frame that can be decoded.
        """
        file = (*_identity(path), threads) if content is None else None
        if self._probe is None or file is None or file != self._file:
            self.close()
            self._probe = probe_file(path, report=report, content=content)
            self._file = file
            self._counted = []
        time = wanted.start_time if wanted.start_time is not None else self._time_of(wanted.start, report)
        opened, self._opened = self._opened, None
        source = SoughtSource(self._probe, wanted, time=time, threads=threads, opened=opened, report=report)
        source.counted = self._counted
        if file is not None:
            source.give_back = self._take_back
        return source

    def close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
        self._file = self._probe = self._opened = None

    def _take_back(self, opened: Opened) -> None:
        self._opened = opened

    def _time_of(self, index: int, report: Report) -> float | None:
        """When a frame of a local file is shown, in seconds; None where it has to be counted."""
        probe = self._probe
        assert probe is not None
        if probe.content is not None:
            return None
        if index == 0:
            return probe.info.first_time
        if probe.times is None:
            probe = self._probe = read_packets(probe, report)
        assert probe.times is not None
        times: Sequence[float | None] | NDArray[np.float64] = self._counted if uncounted(probe) else probe.times
        time = times[index] if index < len(times) else None
        if time is None:
            return None
        # A time that several frames have finds another one than that.
        first, last = np.searchsorted(probe.times, [time - SAME, time + SAME])
        return float(time) if last - first == 1 else None


def _identity(path: str) -> tuple[object, ...]:
    found = os.stat(path)
    return path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class SoughtSource(PyavSource):
    """The frames from `wanted.start` on, which is shown at `time`; from the beginning where seeking does not find it.

    Neighbours' times are not given, and damage is not counted.
    """

    seeks = True
    give_back: Callable[[Opened], None] | None = None
    """Takes the container when this source is closed, to enter it again."""
    counted: list[float | None]
    """Takes the times of frames that have to be counted, from the file's first one on."""

    def __init__(
        self,
        probe: Probe,
        wanted: FrameRange,
        *,
        time: float | None,
        threads: int,
        opened: Opened | None,
        report: Report,
    ) -> None:
        super().__init__(probe, wanted, threads=threads, report=report, opened=opened)
        self._time = time
        self.counted = []
        self._entered = opened is not None
        """Whether the container has been read before."""

    def close(self) -> None:
        if self.give_back is None:
            super().close()
        else:
            self.give_back((self._container, self._stream))
            self.give_back = None

    def unfinished(self) -> Iterator[Callable[[], Frame]]:
        found = self._sought()
        if found is None:
            if self._entered:
                self._reopen()
            if not self.wanted.around:
                yield from super().unfinished()
                return
            found = self._counted()
        if found is not None:
            yield from self._outward(found)

    def _sought(self) -> _Found | None:
        """The wanted frame where its time says that it is."""
        base = self._stream.time_base
        if self._time is None or base is None or self._container.format.name == "avi":  # see `times.Clock`
            return None
        rate = self.info.fps
        if rate and rate * 2 * SAME > 1:
            return None
        kept_from = self._time - self.wanted.around / rate - SAME if rate else self._time - SAME
        self._entered = True
        for earlier in EARLIER:
            try:
                self._container.seek(round((self._time + SAME - earlier) / base), stream=self._stream, backward=True)
            except OSError:
                return None
            decoded = decode_stream(
                self._container, self._stream, Damage(), self._tell, whole_from=int(kept_from / base)
            )
            first = next(decoded, None)
            if first is None or first.time is None:
                return None
            if first.time <= self._time + SAME:
                return self._among(itertools.chain([first], decoded), self._time, kept_from)
        return None

    def _among(self, decoded: Iterator[Decoded], time: float, kept_from: float) -> _Found | None:
        """The frame of a time among those that begin before it; None where their times do not say which it is."""
        before: deque[Decoded] = deque(maxlen=self.wanted.around)
        for one in itertools.islice(decoded, LONGEST_GROUP):
            if one.time is None or one.time > time + SAME:
                return None
            if one.time >= time - SAME:
                following = next(decoded, None)
                if following is not None and following.time is not None and following.time <= one.time + SAME:
                    return None  # who can tell which of the two is meant
                return _Found(before, one, itertools.chain([following] if following else [], decoded))
            if one.time > kept_from:  # of those before it some may have been left out
                before.append(one)
        return None

    def _counted(self) -> _Found | None:
        """The wanted frame, counted from the first one."""
        decoded = self._count()
        before = deque(itertools.islice(decoded, self.wanted.start), maxlen=self.wanted.around)
        return next((_Found(before, one, decoded) for one in decoded), None)

    def _count(self) -> Iterator[Decoded]:
        frames = with_neighbours(decode_stream(self._container, self._stream, Damage(), self._tell))
        for picture, moment in frames:
            if moment.index == len(self.counted):
                self.counted.append(moment.time)
            yield Decoded(picture, moment.time)

    def _outward(self, found: _Found) -> Iterator[Callable[[], Frame]]:
        reformatter = VideoReformatter()

        def finishing(index: int, one: Decoded) -> Callable[[], Frame]:
            return functools.partial(self._finish, one.picture, Moment(index, one.time), reformatter)

        start, before = self.wanted.start, found.before
        yield finishing(start, found.wanted)
        for index in itertools.count(start + 1):
            if before:
                yield finishing(start - (index - start), before.pop())
            following = None if self.wanted.is_past(index) else next(found.following, None)
            if following is not None:
                yield finishing(index, following)
            elif not before:
                return
