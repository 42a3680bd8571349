"""What the decoding process and its owner say to each other: one JSON object at a time, over a socket of their own.

JSON and not pickle, since a video that takes over the decoding process must not reach its owner through a message.

To the process::

    {"do": "open", "path", "size", "wanted", …}             read this video: a `Request`
    {"do": "free", "slots"}                                 so many frames, the oldest ones, are no longer needed
    {"do": "stop"}                                          enough of this video

From it::

    {"is": "alive"}                                         still at work, at most once a second
    {"is": "trying", "decoder"}                             what follows is this decoder's work
    {"is": "opened", "info", "slots"}
    {"is": "frames", "frames": [[index, time, …], …]}       in the next slots of the ring; each a `Moment`
    {"is": "end", "info", "warnings", "damage"}             there are no more
    {"is": "error", "error", "message"}                     the video cannot be read (any further)
    {"is": "stopped"}                                       the answer to "stop", whatever came before
"""

from __future__ import annotations

import json
import select
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from rts_batch.io.video.frames import FrameRange
from rts_batch.io.video.limits import DecoderName


@dataclass(frozen=True)
class Request:
    """What video to read, and how: what `open_video` takes."""

    path: str
    size: int | None
    """Bytes of a video that is no local file; they are to be asked for (`contents.py` beside this)."""
    wanted: FrameRange
    decoder: DecoderName
    threads: int
    decode_memory: int

    def to_message(self) -> dict[str, Any]:
        return {"do": "open", **asdict(self)}

    @classmethod
    def of(cls, message: dict[str, Any]) -> Request:
        fields = {name: value for name, value in message.items() if name != "do"}
        return cls(**{**fields, "wanted": FrameRange(**message["wanted"])})


class Line:
    """One end of the socket.

    Args:
        descriptor: of the socket, which is closed with the line.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._poll = select.poll()  # once: the connection's own `poll` takes as long as sending and receiving together
        self._poll.register(descriptor, select.POLLIN)

    def send(self, message: dict[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Wait for the next message.

        Raises:
            EOFError, OSError: the other side is gone.
            ValueError: what came is no message.
        """
        message = json.loads(self._connection.recv_bytes())
        if not isinstance(message, dict):
            raise ValueError("a message is an object")
        return message

    def wait(self, seconds: float | None) -> bool:
        """Whether a message, or the other side's end, comes within this time; None waits for ever."""
        if self._connection.closed:
            raise OSError("the line is closed")
        return bool(self._poll.poll(None if seconds is None else seconds * 1000))

    def close(self) -> None:
        self._connection.close()
