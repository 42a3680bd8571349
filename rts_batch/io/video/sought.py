"""A video file entered in its middle, for somebody who looks at single frames of it.

Reading forward numbers the frames by counting them from the first one. Who knows already at which time a frame is
shown, as the rows of a run say, need not wait for that: the file is sought in, and decoded from the key frame before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Final

from av.video.reformatter import VideoReformatter

from rts_batch.io.video.container import decode_stream, open_container
from rts_batch.io.video.frames import Damage, Frame, FrameRange, Moment, Report
from rts_batch.io.video.probe import Probe
from rts_batch.io.video.pyav import PyavSource

__all__ = ["SoughtSource"]

SAME: Final = 4e-4
"""Seconds by which the time of one frame may differ from itself; results files hold times in float64."""

LONGEST_GROUP: Final = 1000
"""Frames that are decoded in search of the one that is wanted."""


class SoughtSource(PyavSource):
    """The frames from `wanted.start` on, which is shown at `time`; from the beginning where seeking does not find it.

    Neighbours' times are not given, and damage is not counted.
    """

    seeks = True

    def __init__(self, probe: Probe, wanted: FrameRange, *, time: float, threads: int, report: Report) -> None:
        super().__init__(probe, wanted, threads=threads, report=report)
        self._threads = threads
        self._time = time

    def unfinished(self) -> Iterator[Callable[[], Frame]]:
        sought = self._sought()
        first = next(sought, None)
        if first is not None:
            yield first
            yield from sought
            return
        self._container.close()
        self._container, self._stream = open_container(
            self.path, self._threads, content=self._probe.content, seeks=True
        )
        yield from super().unfinished()

    def _sought(self) -> Iterator[Callable[[], Frame]]:
        """The wanted frames; none where the first of them is not where its time says."""
        base = self._stream.time_base
        if base is None or self._container.format.name == "avi":  # see `times.Clock`
            return
        try:
            self._container.seek(round((self._time + SAME) / base), stream=self._stream, backward=True)
        except OSError:
            return
        reformatter = VideoReformatter()
        index = self.wanted.start
        found = False
        for count, (picture, time) in enumerate(decode_stream(self._container, self._stream, Damage(), self._tell)):
            if not found:
                if time is None or time > self._time + SAME or count > LONGEST_GROUP:
                    return
                if time < self._time - SAME:
                    continue
                found = True
            if self.wanted.is_past(index):
                return
            yield functools.partial(self._finish, picture, Moment(index, time), reformatter)
            index += 1
