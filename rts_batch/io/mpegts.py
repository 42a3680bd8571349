"""What is missing from an MPEG transport stream. FFmpeg goes on after a gap in it without a word."""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["lost_transport_packets"]

PACKET: Final = 188
_SYNC: Final = 0x47
_AT_ONCE: Final = PACKET << 16


def lost_transport_packets(path: str) -> int:
    """Counts the places where packets are broken, incomplete or missing by their counters; 0 for a sound stream.

    Streams in other wrappings (204 or 192 bytes a packet) are not looked at.
    """
    lost = 0
    last: dict[int, int] = {}
    with open(path, "rb") as file:
        first = True
        while data := file.read(_AT_ONCE):
            whole = len(data) // PACKET
            packets = np.frombuffer(data, np.uint8, whole * PACKET).reshape(whole, PACKET)
            in_sync = packets[:, 0] == _SYNC
            if first and not in_sync[:3].all():
                return 0
            first = False
            lost += len(data) % PACKET != 0
            lost += int(np.count_nonzero(~in_sync))
            lost += _count_gaps(packets[in_sync], last)
    return lost


def _count_gaps(packets: np.ndarray, last: dict[int, int]) -> int:
    """Counts jumps of the counter that each stream of packets has; `last` takes it from one call to the next."""
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
