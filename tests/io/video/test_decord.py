"""decord against a plain pass of PyAV from a file's beginning: the same frames, or decord does not read the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch.io.video import decord as video_decord
from rts_batch.io.video.decord import DecordSource
from rts_batch.io.video.frames import EVERY_FRAME, Frame, FrameRange
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import open_video
from rts_batch.io.video.probe import probe_file
from tests.support.decoded import same
from tests.support.videos import join, make_video

SMALL: dict[str, Any] = {"frames": 40, "size": (96, 64)}
GROUPS = {"g": "8", "bf": "2", "keyint_min": "8"}
X265 = "log-level=none:keyint=8:min-keyint=4"

ENCODINGS: dict[str, dict[str, Any]] = {
    "x264.mp4": {"options": GROUPS},
    "x264.mkv": {"options": GROUPS},
    "x265-default.mp4": {"codec": "libx265", "options": {"x265-params": X265}},
    "x264-open.mp4": {"options": {"x264-params": "open-gop=1:keyint=8:bframes=3"}},
    "mpeg4-b.mp4": {"codec": "mpeg4", "options": {"g": "8", "bf": "2"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": GROUPS},
    "uneven.mp4": {"options": GROUPS, "times": [place * 0.04 + 0.3 * (place // 7) for place in range(40)]},
    "ycgco.mp4": {"options": {**GROUPS, "x264-params": "colormatrix=YCgCo"}},
    "bt2020-constant.mp4": {"options": {**GROUPS, "x264-params": "colormatrix=bt2020c"}},
    "ictcp.mp4": {"codec": "libx265", "options": {"x265-params": f"{X265}:colormatrix=ictcp"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "8"}},
}


@pytest.fixture(scope="module")
def process() -> Iterator[DecodingProcess]:
    with DecodingProcess() as process:
        yield process


def plain(path: Path) -> list[Frame]:
    with open_video(str(path), decoder="pyav") as source:
        return list(source)


def cut(path: Path, name: str, first: int) -> Path:
    join(path.parent / name, (path, first, None))
    return path.parent / name


def assert_right(process: DecodingProcess, path: Path) -> None:
    """Whatever `auto` makes of a file and of starts in it, it is what one pass gives."""
    expected = plain(path)
    for start in (0, 1, 7, 8, 9, 15, 16, 17, 25, len(expected) - 1):
        with process.open(path, FrameRange(start, start + 2)) as source:
            assert same(list(source), expected[start : start + 2]), (path.name, start, source.info.decoder)
    with process.open(path) as source:
        assert same(list(source), expected)


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODINGS)
def test_every_start_gives_the_frames_of_one_pass(tmp_path: Path, name: str, process: DecodingProcess) -> None:
    make_video(tmp_path / name, **SMALL, **ENCODINGS[name])
    assert_right(process, tmp_path / name)


@pytest.mark.long
@pytest.mark.parametrize("name", ["x264.mp4", "x265-default.mp4", "x264-open.mp4"])
def test_what_was_cut_without_encoding_gives_the_frames_of_one_pass(
    tmp_path: Path, name: str, process: DecodingProcess
) -> None:
    make_video(tmp_path / name, **SMALL, **ENCODINGS[name])
    assert_right(process, cut(tmp_path / name, "later.mp4", 5))
    join(tmp_path / "two.mkv", (tmp_path / name, 0, 20), (tmp_path / name, 8, None))
    assert_right(process, tmp_path / "two.mkv")
    join(tmp_path / "gap.mkv", (tmp_path / name, 0, 11), (tmp_path / name, 14, None))
    assert_right(process, tmp_path / "gap.mkv")


def test_decord_begins_in_the_middle_where_it_was_told_to(tmp_path: Path) -> None:
    """Its own skipping led to another frame in fragments."""
    make_video(tmp_path / "a.mp4", **SMALL, **ENCODINGS["fragmented.mp4"])
    expected = plain(tmp_path / "a.mp4")
    for start in (7, 8, 9, 20, 39):
        with open_video(str(tmp_path / "a.mp4"), FrameRange(start), decoder="decord") as source:
            assert source.info.decoder == "decord"
            assert same(list(source), expected[start:])


def test_where_decords_log_tells_of_damage_pyav_goes_on(tmp_path: Path, process: DecodingProcess) -> None:
    make_video(tmp_path / "a.mp4", 40, options={"g": "10", "bf": "0"})
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    place = len(content) // 2
    content[place : place + 60] = np.random.default_rng(0).integers(1, 256, 60, np.uint8).tobytes()
    (tmp_path / "bad.mp4").write_bytes(content)
    with process.open(tmp_path / "bad.mp4") as source:
        frames = list(source)
        assert source.warnings[0].startswith("decord told of damage: [h264]")
        assert source.warnings[0].endswith("; PyAV went on from there")
    expected = plain(tmp_path / "bad.mp4")
    assert [frame.time for frame in frames] == [frame.time for frame in expected]
    assert all(np.array_equal(one.image, two.image) for one, two in zip(frames, expected, strict=True))


def test_pyav_goes_on_where_decord_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "a.mp4", 12)
    expected = plain(tmp_path / "a.mp4")
    _break_decord(monkeypatch, at=5)
    probe = probe_file(str(tmp_path / "a.mp4"), packets=True)

    def with_pyav() -> Any:
        return open_video(str(tmp_path / "a.mp4"), decoder="pyav")

    with DecordSource(probe, EVERY_FRAME, threads=1, fallback=with_pyav) as source:
        assert same(list(source), expected)
        assert source.info.decoder == "pyav"
        assert source.warnings == ["decord failed at frame 5: broken on purpose; PyAV went on from there"]
    with (
        open_video(str(tmp_path / "a.mp4"), decoder="decord") as source,
        pytest.raises(Exception, match="decord failed at frame 5"),
    ):
        list(source)


def _break_decord(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    opened: Callable[[str, int], Any] = video_decord._open_decord

    class Breaking:
        def __init__(self, reader: Any) -> None:
            self.reader, self.given = reader, 0

        def __len__(self) -> int:
            return len(self.reader)

        def next(self) -> Any:
            if self.given == at:
                raise RuntimeError("broken on purpose")
            self.given += 1
            return self.reader.next()

    monkeypatch.setattr(video_decord, "_open_decord", lambda path, threads: Breaking(opened(path, threads)))
