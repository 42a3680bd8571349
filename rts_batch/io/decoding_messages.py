"""What the decoding process and its owner say to each other: one JSON object at a time, over a socket of their own.

JSON and not pickle, since a video that takes over the decoding process must not reach its owner through a message.

To the process::

    {"do": "open", "path", "size", "decoder", "start", …}   read this video; with a size it is no local file, and its
                                                            bytes are to be asked for (`rts_batch.io.served_file`)
    {"do": "free"}                                          the oldest frame has been taken out of its slot
    {"do": "stop"}                                          enough of this video

From it::

    {"is": "alive"}                                         still at work, at most once a second
    {"is": "trying", "decoder"}                             what follows is this decoder's work
    {"is": "opened", "info", "slots"}
    {"is": "frame", "index", "time"}                        in the next slot of the ring
    {"is": "end", "info", "warnings", "damage"}           there are no more
    {"is": "error", "error", "message"}                     the video cannot be read (any further)
    {"is": "stopped"}                                       the answer to "stop", whatever came before
"""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["receive", "send"]


def send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Waits for the next message.

    Raises:
        EOFError, OSError: the other side is gone.
        ValueError: what came is no message.
    """
    message = json.loads(connection.recv_bytes())
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    return message
