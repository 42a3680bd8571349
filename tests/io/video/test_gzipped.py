"""Gzip read at any place: the right bytes, without unpacking all that lies before each time."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rts_batch.errors import VideoError
from rts_batch.io.video.gzipped import Unpacked
from rts_batch.io.video.members import open_members

CONTENT = random.Random(0).randbytes(9 << 20) + bytes(5 << 20) + random.Random(1).randbytes(7 << 20)
STEP = 1 << 20


def pieces(size: int) -> bytes:
    return b"".join(gzip.compress(CONTENT[place : place + size], 1) for place in range(0, len(CONTENT), size))


class Counting(io.BytesIO):
    """Counts the bytes that are read from it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.mark.parametrize(
    "pack", [lambda: gzip.compress(CONTENT, 1), lambda: pieces(3 << 20), lambda: pieces(65280) + bytes(700)]
)
def test_every_place_has_its_bytes(pack: Callable[[], bytes]) -> None:
    file = io.BufferedReader(Unpacked(io.BytesIO(pack())))
    chance = random.Random(2)
    for size in (1, 300, 70_000, 5 << 20) * 5:
        place = file.seek(chance.randrange(len(CONTENT) + 9))
        assert file.read(size) == CONTENT[place : place + size]
    file.seek(0)
    assert file.read() == CONTENT


def test_going_back_does_not_begin_anew() -> None:
    packed = Counting(gzip.compress(CONTENT, 1))
    file = Unpacked(packed)
    file.readall()
    packed.taken = 0
    for place in range(len(CONTENT) - STEP, 0, -STEP):
        file.seek(place)
        file.read(1)
    assert packed.taken < 4 * len(packed.getvalue())  # 10 times as much from the beginning each time


def test_what_is_cut_off_is_told() -> None:
    with pytest.raises(EOFError):
        Unpacked(io.BytesIO(gzip.compress(CONTENT, 1)[:-STEP])).readall()


def test_files_of_an_archive_are_read_in_any_order(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz", compresslevel=1) as archive:
        for number in range(20):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = STEP
            archive.addfile(info, io.BytesIO(CONTENT[number * STEP : (number + 1) * STEP]))
    members = open_members(str(tmp_path / "a.tgz"))
    for number in (3, 19, 0, 12, 11, 10, 18, 1):
        assert members.read(f"{number}.png") == CONTENT[number * STEP : (number + 1) * STEP]
    members.close()
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "a.tgz").read_bytes()[:-STEP])
    with pytest.raises(VideoError, match=r"cut\.tgz is not a tar archive that can be read"):
        open_members(str(tmp_path / "cut.tgz"))
