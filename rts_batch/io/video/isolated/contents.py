"""A file whose bytes another process holds: how the decoding process reads a video without a network of its own.

Each read is one question over a socket, `start` and `length` as two unsigned 64-bit numbers, and one answer, the bytes.
An answer may be shorter than asked for; an empty one says that the owner cannot read the object any further.
"""

from __future__ import annotations

import io
import struct
from multiprocessing.connection import Connection
from typing import Any, Final

from rts_batch.errors import StorageError

QUESTION: Final = struct.Struct("!QQ")
CHUNK_BYTES: Final = 1 << 20
"""Bytes asked for at once; the owner holds larger blocks."""


def open_served(connection: Connection, *, name: str, size: int) -> io.BufferedReader:
    """A file to read and seek in. `name` tells its format, where the bytes alone do not.

    Reading from it raises StorageError where the owner gives the object up.
    """
    return io.BufferedReader(_ServedFile(connection, name, size), CHUNK_BYTES)


class _ServedFile(io.RawIOBase):
    def __init__(self, connection: Connection, name: str, size: int) -> None:
        self._connection = connection
        self._size = size
        self._place = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"place {base + offset} of a file")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._place)
        if length <= 0:
            return 0
        self._connection.send_bytes(QUESTION.pack(self._place, length))
        data = self._connection.recv_bytes(length)
        if not data:
            raise StorageError(f"{self.name}: no more bytes come from byte {self._place} on")
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
