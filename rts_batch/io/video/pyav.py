"""Video files through PyAV, which opens whatever FFmpeg opens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.video.container import Opened, decode_stream, open_container, with_neighbours
from rts_batch.io.video.frames import Content, Frame, FrameRange, FrameSource, Moment, Report
from rts_batch.io.video.mpegts import TransportCheck, lost_transport_packets
from rts_batch.io.video.probe import Probe

_MATRICES: Final = {0, 1, 2, 4, 5, 6, 7, 9}
"""From which FFmpeg converts colours, in the numbers of ITU-T H.273; it refuses frames that name others, as YCgCo."""

_NEAREST: Final = {10: 9}
"""BT.2020 with constant luminance as without. All others are taken for BT.601, as by decord."""

_UNSPECIFIED: Final = 2


class PyavSource(FrameSource):
    """Frames through PyAV, which opens what FFmpeg opens and decodes no further ahead than it is asked."""

    seeks = False

    def __init__(
        self, probe: Probe, wanted: FrameRange, *, threads: int, report: Report, opened: Opened | None = None
    ) -> None:
        super().__init__(probe.path, probe.info, wanted)
        self._probe = probe
        self._threads = threads
        self._tell = report
        self._transport = TransportCheck() if "mpegts" in probe.containers else None
        content = probe.content
        if content is not None and self._transport is not None:  # checked in passing, to read it only once
            content = functools.partial(_watched, content, self._transport)
        self._container, self._stream = opened or open_container(probe.path, threads, content=content, seeks=self.seeks)

    def _reopen(self) -> None:
        """Begin again with the file's first frame."""
        self._container.close()
        self._container, self._stream = open_container(
            self.path, self._threads, content=self._probe.content, seeks=self.seeks
        )

    def frames(self) -> Iterator[Frame]:
        return (finish() for finish in self.unfinished())

    def unfinished(self) -> Iterator[Callable[[], Frame]]:
        reformatter = VideoReformatter()
        length, time = 0, None
        decoded = decode_stream(self._container, self._stream, self.damage, self._tell)
        for picture, moment in with_neighbours(decoded):
            if self.wanted.is_past(moment.index):
                self._report(None)
                return
            length, time = moment.index + 1, moment.time
            if self.wanted.has(moment.index):
                yield functools.partial(self._finish, picture, moment, reformatter)
        self._report((length, time))

    def _finish(self, picture: VideoFrame, moment: Moment, reformatter: VideoReformatter) -> Frame:
        if picture.colorspace not in _MATRICES:
            picture.colorspace = _NEAREST.get(picture.colorspace, _UNSPECIFIED)
        plane: Any = reformatter.reformat(picture, format="rgb24", threads=1).planes[0]
        lines = np.frombuffer(plane, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)
        stored = lines[:, : plane.width * 3].reshape(plane.height, plane.width, 3)
        image: NDArray[np.uint8] = self._probe.orientation.apply(stored)
        if image.shape != (self.info.height, self.info.width, 3):
            height, width, _ = image.shape
            raise VideoError(
                f"{self.path}: frame {moment.index} is {width}×{height} pixels, the video began with "
                f"{self.info.width}×{self.info.height}; cut it where its size changes"
            )
        return Frame(moment, image)

    def _report(self, end: tuple[int, float | None] | None) -> None:
        """Add what is damaged to the warnings; `end` is the number of frames and the last one's time, once known."""
        if self._transport is not None:
            streamed = self._probe.content is not None
            self.damage.lost_packets += self._transport.lost() if streamed else lost_transport_packets(self.path)
        if end is not None:
            self.damage.missing_frames = self._probe.missing_frames(*end, self.damage.cut_off_packets)
        self.warnings += self.damage.warnings()

    def close(self) -> None:
        self._container.close()


def _watched(content: Content, check: TransportCheck) -> Any:
    return check.watching(content())
