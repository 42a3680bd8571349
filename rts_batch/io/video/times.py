"""The presentation times of decoded frames, also where a file gives them out of order."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rts_batch.io.video.frames import Damage


class Decoded(NamedTuple):
    """A frame as the decoder gives it, and its presentation time in seconds."""

    picture: VideoFrame
    time: float | None


class Clock:
    """Gives the frames of one stream, as they come out of the decoder, their presentation times.

    AVI numbers its packets in the order in which they are decoded and holds no other times. FFmpeg takes these for
    presentation times, so a decoder that reorders frames hands them out scrambled; here the n-th frame gets the n-th of
    them. Any other time that does not follow the one before it is left as it is and counted as damage; a missing one
    is estimated, unless no frame had one before.

    Args:
        stream: it is about to be decoded from its beginning.
        container: FFmpeg's name of the format.
        damage: takes what is out of order.
    """

    def __init__(self, stream: VideoStream, container: str, damage: Damage) -> None:
        self._step = float(1 / stream.average_rate) if stream.average_rate else None
        self._damage = damage
        self._waiting: deque[int] | None = deque() if container == "avi" else None
        self._newest: int | None = None
        self._last: float | None = None
        self._frames = 0

    def feed(self, packet: Packet[VideoStream]) -> None:
        """A packet is about to be decoded."""
        if self._waiting is None or packet.pts is None:
            return
        if self._newest is not None and packet.pts <= self._newest:
            self._waiting = None  # FFmpeg knows this codec's order: these are presentation times after all
            return
        self._newest = packet.pts
        self._waiting.append(packet.pts)

    def drop(self, packet: Packet[VideoStream]) -> None:
        """The packet that was fed last has given an error."""
        if self._waiting and packet.pts == self._waiting[-1]:
            self._waiting.pop()

    def time(self, picture: VideoFrame) -> float | None:
        """The time of the next frame, in seconds."""
        if picture.interlaced_frame:  # two packets may make one frame
            self._waiting = None
        pts, base = self._waiting.popleft() if self._waiting else picture.pts, picture.time_base
        time = None if pts is None or base is None else float(pts) * base.numerator / base.denominator
        if self._last is not None and (time is None or time < self._last):
            self._damage.disordered_times += 1
            if self._damage.first_disordered is None:
                self._damage.first_disordered = self._frames
            if time is None and self._step is not None:
                time = self._last + self._step
        self._last = time
        self._frames += 1
        return time

    def end(self) -> None:
        """No more frames will come."""
        if self._waiting:
            self._damage.lost_packets += len(self._waiting)
