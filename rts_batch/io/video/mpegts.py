"""What is missing from an MPEG transport stream. FFmpeg goes on after a gap in it without a word."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np

PACKET: Final = 188
_SYNC: Final = 0x47
_AT_ONCE: Final = PACKET << 16


def lost_transport_packets(path: str) -> int:
    """Count the places where packets are broken, incomplete or missing by their counters; 0 for a sound stream."""
    check = TransportCheck()
    with open(path, "rb") as file:
        while data := file.read(_AT_ONCE):
            check.feed(data)
    return check.lost()


class TransportCheck:
    """Is fed a stream's bytes in order. Streams in other wrappings (204 or 192 bytes a packet) are not looked at."""

    def __init__(self) -> None:
        self._lost = 0
        self._rest = b""
        self._last: dict[int, int] = {}
        self._known = False
        self._foreign = False

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) // PACKET
        self._rest = data[whole * PACKET :]
        packets = np.frombuffer(data, np.uint8, whole * PACKET).reshape(whole, PACKET)
        in_sync = packets[:, 0] == _SYNC
        if not self._known and whole:
            self._known, self._foreign = True, not in_sync[:3].all()
        if whole and not self._foreign:
            self._lost += int(np.count_nonzero(~in_sync)) + _count_gaps(packets[in_sync], self._last)

    def lost(self) -> int:
        """Once the stream has ended, or is read no further."""
        return 0 if self._foreign else self._lost + bool(self._rest)

    def watching(self, file: io.BufferedReader) -> Any:
        """The same file for FFmpeg to read, which feeds what is read for the first time; FFmpeg seeks at first."""
        return _Watched(file, self)


class _Watched:
    def __init__(self, file: io.BufferedReader, check: TransportCheck) -> None:
        self._file = file
        self._check = check
        self._reached = 0
        self.name, self.peek, self.seek, self.tell = file.name, file.peek, file.seek, file.tell

    def read(self, size: int) -> bytes:
        place = self._file.tell()
        data = self._file.read(size)
        if place <= self._reached < place + len(data):
            self._check.feed(data[self._reached - place :])
            self._reached = place + len(data)
        return data


def _count_gaps(packets: np.ndarray, last: dict[int, int]) -> int:
    """Count jumps of the counter that each stream of packets has; `last` takes it from one call to the next."""
    kinds = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    gaps = 0
    for kind in np.unique(kinds).tolist():
        chosen = packets[kinds == kind]
        # The counter counts packets with content. An adaptation field may announce a jump that is meant.
        content = (chosen[:, 3] & 0x10) != 0
        announced = ((chosen[:, 3] & 0x20) != 0) & (chosen[:, 4] > 0) & ((chosen[:, 5] & 0x80) != 0)
        counters = chosen[content, 3].astype(int) & 0x0F
        if kind == 0x1FFF or not len(counters):
            continue
        before = np.concatenate([[last.get(kind, counters[0] - 1)], counters[:-1]])
        steps = (counters - before) % 16
        gaps += int(np.count_nonzero((steps > 1) & ~announced[content]))
        last[kind] = int(counters[-1])
    return gaps
