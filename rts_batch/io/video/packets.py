"""What the packets of a file show, undecoded: whether each of them will be a frame, and what decord would not see.

A decoder leaves out frames that it cannot make, and nothing but decoding tells which. Where a file was cut or joined
without encoding it again, or packets were lost, the packets themselves show it. Of H.264 they also show where size or
orientation differ from what the container says, which decord does not look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from av.packet import Packet
from av.video.stream import VideoStream

_FURTHER: Final = 6
_SIZES: Final = 7
_PICTURES: Final = (1, 5)
_KEY_PICTURE: Final = 5
"""Kinds of NAL units of H.264: further information (SEI), sequence parameter sets, and slices of pictures."""

_ORIENTATION: Final = 47
"""Of further information: how the picture is to be turned (ITU-T H.264, annex D)."""

_HIGH: Final = (100, 110, 122, 244, 44, 83, 86, 118, 128)
"""Profiles whose parameter sets say more before they come to the numbers of frames."""

_HEAD: Final = 48
"""Bytes of a NAL unit that are enough to read a picture's number."""


class PacketCheck:
    """Is shown all packets of a stream in the order of the file, and says what it found.

    Args:
        codec: FFmpeg's canonical name.
        extradata: what the container keeps of the stream for its decoder.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self.miscounted: str | None = None
        """Why its packets may not be its frames, one for one and in the order of their times."""
        self.unseen: str | None = None
        """What decord would not see: another size or orientation than the container's."""
        self._times: set[int] = set()
        self._newest: int | None = None
        self._key: int | None = None
        self._codec = codec
        self._pictures = _Pictures(extradata or b"") if codec == "h264" else None
        self._take_over()

    def feed(self, packet: Packet[VideoStream]) -> None:
        if packet.pts is not None:
            self.miscounted = self.miscounted or self._order(packet.pts, packet.is_keyframe)
        if not _is_shown(memoryview(packet), self._codec):
            self.miscounted = self.miscounted or "some packets hold pictures that are not shown"
        if packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"):
            self.unseen = self.unseen or "its parameters change in its middle"
        if self._pictures is not None:
            self._pictures.feed(memoryview(packet))
            self._take_over()

    def _take_over(self) -> None:
        if self._pictures is not None:
            self.miscounted = self.miscounted or self._pictures.broken
            self.unseen = self.unseen or self._pictures.unseen

    def _order(self, pts: int, is_key: bool) -> str | None:
        repeated = pts in self._times
        newest, self._newest = self._newest, pts if self._newest is None else max(self._newest, pts)
        self._times.add(pts)
        if is_key:
            self._key = pts
        elif self._key is None:
            return "its first packet is no key frame"
        elif pts < self._key:
            # An open group of pictures. Where the group before was cut off, nobody can decode these frames.
            return "frames that follow a key frame are shown before it"
        if is_key and newest is not None and pts <= newest:
            return "frames before a key frame are shown after it"
        return "several frames have one time" if repeated else None


def _is_shown(packet: memoryview, codec: str) -> bool:
    """Whether a packet of VP8 or VP9 is more than a picture from which others are predicted (an alternate reference).

    VP8 has those in packets of their own; VP9 may have them so, and mostly puts them before the next one in its packet.
    """
    if codec == "vp8":
        return bool(packet[0] & 16)
    if codec != "vp9" or packet[-1] >> 5 == 6:
        return True
    bits = packet[0] << (packet[0] & 48 == 48)  # profile 3 has a bit more
    return bool(bits & 10)  # one that was decoded before, or this one


class _Pictures:
    """What the NAL units of H.264 say of size, orientation and the pictures' numbers.

    Args:
        header: an avcC of ISO/IEC 14496-15, which mp4 and Matroska have alike.
    """

    def __init__(self, header: bytes) -> None:
        self.broken: str | None = None
        self.unseen: str | None = None
        self._sizes: set[bytes] = set()
        self._bits = 0
        """How many a picture's number takes; 0 where the parameter sets do not say."""
        self._planes = False
        self._number: int | None = None
        """That of the last picture from which others are predicted."""
        self._length = (header[4] & 3) + 1 if len(header) > 6 and header[0] == 1 else 0
        if self._length:
            for unit in _listed(header, 6, header[5] & 31):
                self._size(unit)
        if not self._bits:
            self.unseen = "its parameter sets cannot be read"

    def feed(self, packet: memoryview) -> None:
        if not self._length:
            return
        place, pictures = 0, 0
        while place + self._length < len(packet):
            size = int.from_bytes(packet[place : place + self._length], "big")
            place += self._length
            unit = packet[place : place + size]
            place += size
            if size == 0 or place > len(packet) or unit[0] & 128:
                self.broken = self.broken or "some packets are damaged"
                return
            kind = unit[0] & 31
            if kind == _SIZES:
                self._size(bytes(unit))
            elif kind == _FURTHER and _ORIENTATION in _messages(_plain(unit[1:])):
                self.unseen = self.unseen or "the orientation stands in its pictures"
            elif kind in _PICTURES:
                pictures += 1
                if pictures == 1 and self._bits:
                    self._picture(kind, unit[0] >> 5 & 3, _Bits(_plain(unit[1:_HEAD])))
        if not pictures:
            self.broken = self.broken or "some packets hold no picture"

    def _size(self, unit: bytes) -> None:
        """Take in a sequence parameter set."""
        self._sizes.add(unit.rstrip(b"\0"))
        if len(self._sizes) > 1:
            self.unseen = self.unseen or "it has several sequence parameter sets, as where the size changes"
            return
        bits = _Bits(_plain(unit[1:]))
        profile = bits.take(24) >> 16
        bits.golomb()
        if profile in _HIGH:
            self._planes = bits.golomb() == 3 and bits.take(1) == 1
            for _ in ("depth of luma", "depth of chroma"):
                bits.golomb()
            if bits.take(2) & 1:  # matrices, which nearly nobody has
                return
        self._bits = bits.golomb() + 4

    def _picture(self, kind: int, importance: int, bits: _Bits) -> None:
        """Note where pictures were lost: their numbers go up by one from one that others need to the next."""
        for _ in ("first block", "kind of slice", "parameter set"):
            bits.golomb()
        bits.take(2 * self._planes)
        number = bits.take(self._bits)
        following = (self._number, (self._number + 1) % (1 << self._bits)) if self._number is not None else (number,)
        if kind != _KEY_PICTURE and number not in following:
            self.broken = self.broken or "pictures are missing in its middle"
        if importance or kind == _KEY_PICTURE:
            self._number = number


class _Bits:
    """Numbers in bytes; past their end all bits are 0."""

    def __init__(self, data: bytes) -> None:
        head = data[:_HEAD]
        self._rest = f"{int.from_bytes(head, 'big'):0{8 * len(head)}b}"

    def take(self, bits: int) -> int:
        taken, self._rest = self._rest[:bits], self._rest[bits:]
        return int(taken.ljust(bits, "0") or "0", 2)

    def golomb(self) -> int:
        """One of Exp-Golomb's code: as many zeros as bits follow the one behind them."""
        zeros = len(self._rest) - len(self._rest.lstrip("0"))
        return self.take(2 * zeros + 1) - 1


def _plain(unit: bytes | memoryview) -> bytes:
    """Return a unit without the 3 that stands in it where it would look like the beginning of one."""
    return bytes(unit).replace(b"\0\0\3", b"\0\0")


def _listed(header: bytes, place: int, count: int) -> Iterator[bytes]:
    """So many units from a place on, each behind its length in two bytes."""
    for _ in range(count):
        size = int.from_bytes(header[place : place + 2], "big")
        if not size or place + 2 + size > len(header):
            return
        yield header[place + 2 : place + 2 + size]
        place += 2 + size


def _messages(sei: bytes) -> Iterator[int]:
    """The kinds of the messages of further information."""
    place = 0
    while place + 2 < len(sei):
        numbers = []
        for _ in ("kind", "size"):
            number = 0
            while place < len(sei) and sei[place] == 255:
                number, place = number + 255, place + 1
            numbers.append(number + (sei[place] if place < len(sei) else 0))
            place += 1
        yield numbers[0]
        place += numbers[1]
