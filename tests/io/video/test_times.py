"""Presentation times: those of the file, in order wherever the file's own order can be known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import FrameRange, open_video
from tests.support.barcodes import make_numbered, read_number

REORDERED = {
    "two.avi": {"options": {"x264-params": "bframes=2:b-adapt=0"}},
    "pyramid.avi": {"options": {"x264-params": "bframes=8:b-adapt=0:b-pyramid=normal"}},
    "plain.avi": {"options": {"x264-params": "bframes=0"}},
    "groups.avi": {"options": {"x264-params": "bframes=3:keyint=8:open-gop=1"}},
}
"""H.264 in AVI: the container holds no presentation times, only the order of decoding."""


@pytest.fixture(scope="module")
def process() -> Iterator[DecodingProcess]:
    with DecodingProcess() as process:
        yield process


def read(path: Path, **options: Any) -> tuple[list[int], list[float | None], list[str]]:
    """The numbers in the frames, their times, and the warnings."""
    with open_video(str(path), **options) as source:
        frames = [(read_number(frame.image), frame.time) for frame in source]
        return [number for number, _ in frames], [time for _, time in frames], source.warnings


def packet_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return sorted(float(packet.pts * packet.time_base) for packet in packets)


@pytest.mark.parametrize("name", REORDERED)
def test_reordered_frames_of_avi_have_the_files_times_in_order(
    tmp_path: Path, name: str, process: DecodingProcess
) -> None:
    path = tmp_path / name
    make_numbered(path, 40, **REORDERED[name])
    numbers, times, warnings = read(path)
    assert numbers == list(range(40))
    assert times == pytest.approx(packet_times(path))
    assert warnings == []
    assert read(path, wanted=FrameRange(backward=True)) == (numbers[::-1], times[::-1], [])
    with process.open(path) as source:
        assert [(frame.index, frame.time) for frame in source] == list(enumerate(times))
    assert read(path, decoder="decord")[1] == times


def test_empty_packets_of_avi_are_no_lost_frames(tmp_path: Path) -> None:
    """A frame of AVI stands as long as empty packets follow it."""
    ticks = [0, 1, 2, 3, 10, 11, 12, 30, 31, 32]
    make_numbered(tmp_path / "a.avi", len(ticks), codec="mpeg4", ticks=ticks, base=Fraction(1, 25))
    numbers, times, warnings = read(tmp_path / "a.avi")
    assert numbers == list(range(len(ticks)))
    assert times == pytest.approx([tick / 25 for tick in ticks])
    assert warnings == []


def test_times_that_begin_again_are_damage(tmp_path: Path) -> None:
    make_numbered(tmp_path / "a.ts", 10)
    (tmp_path / "twice.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    times = read(tmp_path / "a.ts")[1]
    with open_video(str(tmp_path / "twice.ts")) as source:
        frames = list(source)
    assert [frame.time for frame in frames] == times * 2
    assert (source.damage.disordered_times, source.damage.first_disordered) == (1, 10)
    assert "1 frames have no time, or one before that of the frame before; the first is frame 10" in source.warnings
    with open_video(str(tmp_path / "a.ts")) as source:
        list(source)
    assert not source.damage


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_each_frame_knows_the_times_beside_it(tmp_path: Path, decoder: Any, ending: str) -> None:
    ticks = [0, 33, 67, 100, 8000, 8033, 8050, 9000]
    path = tmp_path / f"a.{ending}"
    make_numbered(path, len(ticks), ticks=ticks)
    seconds = [tick / 1000 for tick in ticks]
    expected = list(zip(seconds, [None, *seconds[:-1]], [*seconds[1:], None], strict=True))
    for wanted in (FrameRange(), FrameRange(2, 5)):
        with open_video(str(path), wanted, decoder=decoder) as source:
            found = [(frame.moment.time, frame.moment.before, frame.moment.after) for frame in source]
            assert found == [pytest.approx(place) for place in expected[source.wanted.start : source.wanted.end]]
        with open_video(str(path), replace(wanted, backward=True)) as source:
            assert [(f.moment.time, f.moment.before, f.moment.after) for f in source] == found[::-1]
