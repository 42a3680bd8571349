"""A video whose frames come from the decoding process, as its owner sees it: the frames, and going on after a death.

The images are the ring's own slots, lent until the next frame is taken; nothing is copied on this side.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.frames import Damage, Frame, FrameSource, Moment, VideoInfo
from rts_batch.io.video.isolated.channel import Channel, Died
from rts_batch.io.video.isolated.messages import Request

STOP_SECONDS = 5.0
"""How long a process may take to leave a video that nobody wants any more; then it is replaced."""


class RemoteSource(FrameSource):
    """A video whose frames come from the decoding process."""

    lends = True

    def __init__(
        self,
        channel: Channel,
        request: Request,
        stored: RangedObject | None,
        *,
        name: str,
        on_close: Callable[[], None],
    ) -> None:
        # `info` is known once `begin` has heard from the process.
        super().__init__(name, VideoInfo(0, 0, None, None, None, "pyav"), request.wanted)
        self._channel = channel
        self._on_close = on_close
        self._request = request
        self._stored = stored
        self._next: int | None = self.wanted.end if self.wanted.backward else self.wanted.start
        """Where to go on: the next frame's index, read backward the last one's."""
        self._trying = ""
        self._restarts = 0
        self._slots: NDArray[np.uint8] = np.zeros((0, 0, 0, 0), np.uint8)
        self._under_way = False

    def begin(self) -> None:
        """Have the process open the video."""
        while not self._under_way:
            try:
                with self._nonsense():
                    self._begin()
            except Died as death:  # noqa: PERF203 - it happens a few times at most
                self._recover(death)

    def _begin(self) -> None:
        self._channel.start()
        self._channel.serve(self._stored)
        self._channel.tell(self._request.to_message())
        message = self._hear()
        self.info = VideoInfo(**message["info"])
        shape = (message["slots"], self.info.height, self.info.width, 3)
        self._slots = self._channel.ring(math.prod(shape)).reshape(shape)
        self._under_way = True

    def frames(self) -> Iterator[Frame]:
        given = freed = 0
        while True:
            try:
                with self._nonsense():
                    message = self._hear()
                    if message["is"] == "end":
                        self._under_way = False
                        self.info = VideoInfo(**message["info"])
                        self.warnings += map(self._named, message["warnings"])
                        self.damage = Damage(**message["damage"])
                        return
                    ready = [Moment(int(index), *times) for index, *times in message["frames"]]
            except Died as death:
                self._recover(death)
                self.begin()
                given = freed = 0
                continue
            for moment in ready:
                self._next = moment.index if self.wanted.backward else max(self._next or 0, moment.index + 1)
                yield Frame(moment, self._slots[given % len(self._slots)])
                given += 1
                if 2 * (given - freed) >= len(self._slots):  # every message wakes the process
                    self._channel.tell({"do": "free", "slots": given - freed})
                    freed = given

    def _hear(self) -> dict[str, Any]:
        """The next message that says something about the video."""
        while True:
            message = self._channel.hear()
            if message.get("is") in ("error", "end"):
                self._check_contents()
            match message.get("is"):
                case "alive":
                    pass
                case "trying":
                    self._trying = str(message["decoder"])
                case "error" if message["error"] == "VideoError":
                    self._under_way = False
                    raise VideoError(self._named(message["message"]))
                case "error":
                    self._channel.kill()  # an unexpected error may have left it in any state
                    raise Died(f"failed with {message['error']} ({message['message']})")
                case "opened" | "frames" | "end":
                    return message
                case other:
                    raise ValueError(other)

    def _named(self, text: str) -> str:
        """Call the video what its owner does: a copy is gone when somebody reads of it."""
        return text.replace(self._request.path, self.path)

    def _check_contents(self) -> None:
        """A video whose bytes did not come is not to blame for how it ended."""
        try:
            self._channel.check_contents()
        except Exception:
            self._under_way = False
            raise

    @contextlib.contextmanager
    def _nonsense(self) -> Iterator[None]:
        """Take a message that cannot be for the end of the process that sent it."""
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            self._channel.kill()
            raise Died(f"sent a message that cannot be ({error!r})") from None

    def _recover(self, death: Died) -> None:
        """Prepare another try from the frame reached, or raise VideoError where there is none."""
        self._under_way = False
        where = "the beginning" if self._next is None else f"frame {self._next}"
        reason = f"{self._trying or 'the decoder'} {death} at {where}"
        if death.outside and self._restarts < self._channel.limits.restarts:
            self._restarts += 1
            self.warnings.append(f"the decoding process was killed at {where}; another one went on from there")
        elif self._trying == "decord" and self._request.decoder == "auto":
            self._request = replace(self._request, decoder="pyav")
            self.warnings.append(f"{reason}; PyAV went on from there")
        else:
            raise VideoError(f"{self.path}: {reason}") from None
        if self._next is not None:
            wanted = self._request.wanted
            left = replace(wanted, end=self._next) if wanted.backward else replace(wanted, start=self._next)
            self._request = replace(self._request, wanted=replace(left, last_time=None, start_time=None, around=0))

    def close(self) -> None:
        if self._under_way:
            self._under_way = False
            with contextlib.suppress(Died), self._nonsense():
                self._channel.tell({"do": "stop"})
                while self._channel.hear(STOP_SECONDS).get("is") != "stopped":
                    pass
        self._slots = np.zeros((0, 0, 0, 0), np.uint8)
        self._channel.serve(None)
        self._on_close()
