"""Frames of a file that is entered in its middle: the very ones that reading from its beginning gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.io.video import sought
from rts_batch.io.video.frames import EVERY_FRAME, Frame, FrameRange
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import open_video
from tests.support.videos import make_video

FRAMES = 60
GROUPS = {"g": "12", "bf": "2", "keyint_min": "12"}


def read(path: Path, wanted: FrameRange = EVERY_FRAME) -> list[Frame]:
    with open_video(str(path), wanted, decoder="pyav") as source:
        return list(source)


def plain(frames: list[Frame]) -> list[tuple[int, float | None, bytes]]:
    return [(frame.index, frame.time, frame.image.tobytes()) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264"), ("a.avi", "mpeg4")],
)
def test_every_kind_of_file_gives_the_same_frames(tmp_path: Path, name: str, codec: str) -> None:
    make_video(tmp_path / name, FRAMES, codec=codec, options=GROUPS if codec == "libx264" else {"g": "12"})
    expected = read(tmp_path / name)
    assert len(expected) == FRAMES
    for start in (0, 1, 11, 12, 30, FRAMES - 1):
        given = read(tmp_path / name, FrameRange(start=start, end=start + 5, start_time=expected[start].time))
        assert plain(given) == plain(expected[start : start + 5])


def test_uneven_times(tmp_path: Path) -> None:
    times = [index * 0.04 + (0.9 if index > 20 else 0) + 0.01 * (index % 3 == 0) for index in range(40)]
    make_video(tmp_path / "a.mkv", 40, times=times, options=GROUPS)
    expected = read(tmp_path / "a.mkv")
    for start in (20, 21, 22, 33):
        given = read(tmp_path / "a.mkv", FrameRange(start=start, start_time=expected[start].time))
        assert plain(given) == plain(expected[start:])


def test_a_time_at_which_no_frame_is_shown_costs_a_pass_and_no_mistake(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", FRAMES, options=GROUPS)
    expected = read(tmp_path / "a.mp4", FrameRange(start=30))
    for time in (30 / 25 + 0.013, 99.0, -5.0):
        assert plain(read(tmp_path / "a.mp4", FrameRange(start=30, start_time=time))) == plain(expected)


def test_the_frames_before_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def counting(*arguments: object) -> object:
        for found in real(*arguments):  # type: ignore[arg-type]
            decoded.append(found)
            yield found

    real = sought.decode_stream
    monkeypatch.setattr(sought, "decode_stream", counting)
    make_video(tmp_path / "a.mp4", FRAMES, options=GROUPS)
    (frame,) = read(tmp_path / "a.mp4", FrameRange(start=50, end=51, start_time=50 / 25))
    assert frame.index == 50
    assert len(decoded) <= 12 + 1


def test_the_decoding_process_enters_a_file_too(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", FRAMES, options=GROUPS)
    expected = read(tmp_path / "a.mp4", FrameRange(start=40))
    with DecodingProcess() as process, process.open(tmp_path / "a.mp4", FrameRange(40, start_time=40 / 25)) as source:
        given = [Frame(frame.moment, frame.image.copy()) for frame in source]
    assert plain(given) == plain(expected)
