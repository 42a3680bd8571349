"""A gzip file that is read at any place, as an archive's files are when they lie in it in another order than wanted.

Python's own unpacks a file again from its beginning whenever it goes back: an hour for what takes a minute.
"""

from __future__ import annotations

import io
import zlib
from bisect import bisect_right
from typing import Any, BinaryIO, Final, NamedTuple

MAGIC: Final = b"\x1f\x8b"
_CHUNK: Final = 64 << 10
"""Packed bytes that are unpacked at once."""
_APART: Final = 4 << 20
"""Unpacked bytes between two places at which unpacking can begin; each takes some 40 KiB of memory."""
_GZIP: Final = 31
"""With this, zlib reads gzip's headers and checks its sums."""


class _Mark(NamedTuple):
    place: int
    packed: int
    unpacker: Any


class Unpacked(io.RawIOBase):
    """The unpacked bytes of a file, which is closed with this one.

    Reading raises `zlib.error` where it is damaged and EOFError where it is cut off.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._marks = [_Mark(0, 0, zlib.decompressobj(_GZIP))]
        self._place = 0
        self._enter(self._marks[0])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("where a gzip file ends is known when it has been read")
        self._place = offset + (self._place if whence == io.SEEK_CUR else 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        mark = self._marks[bisect_right(self._marks, self._place, key=lambda mark: mark.place) - 1]
        if self._place < self._first or mark.place > self._first + len(self._piece):
            self._enter(mark)
        while self._place >= self._first + len(self._piece):
            if not self._go_on():
                return 0
        start = self._place - self._first
        data = self._piece[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _enter(self, mark: _Mark) -> None:
        self._first, self._piece, self._unpacker = mark.place, b"", mark.unpacker.copy()
        self._file.seek(mark.packed)

    def _go_on(self) -> bool:
        """Unpack the next piece; False at the end."""
        self._first += len(self._piece)
        if self._first >= self._marks[-1].place + _APART:
            self._marks.append(_Mark(self._first, self._file.tell(), self._unpacker.copy()))
        self._piece = b""
        packed = self._file.read(_CHUNK)
        if not packed and not self._unpacker.eof:
            raise EOFError("it is cut off")
        more = bool(packed)
        while packed:
            if self._unpacker.eof:  # several in a row are one, and zeros behind them are nothing
                packed = packed.lstrip(b"\0")
                if not packed:
                    break
                self._unpacker = zlib.decompressobj(_GZIP)
            self._piece += self._unpacker.decompress(packed)
            packed = self._unpacker.unused_data
        return more
