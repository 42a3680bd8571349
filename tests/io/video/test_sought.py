"""Frames of a file that is entered in its middle: the very ones that reading from its beginning gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rts_batch.io.video import container, probe, pyav, sought
from rts_batch.io.video.container import decode_stream, open_container
from rts_batch.io.video.frames import EVERY_FRAME, Damage, Frame, FrameRange
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import open_video
from rts_batch.io.video.sought import Entrance
from tests.support.videos import Disc, join, make_video

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


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is decoded to find frames, as it comes."""
    given: list[Any] = []
    real = sought.decode_stream

    def noting(*arguments: Any, **others: Any) -> Iterator[Any]:
        for found in real(*arguments, **others):
            given.append(found)
            yield found

    monkeypatch.setattr(sought, "decode_stream", noting)
    return given


@pytest.mark.parametrize(
    "wanted",
    [
        FrameRange(start=50, end=51, start_time=50 / 25),
        FrameRange(start=50, end=51, start_time=50 / 25, around=4),
        FrameRange(start=50, end=51, around=4),  # its time is in the packets
        FrameRange(start=47, end=48, start_time=47 / 25, around=4),  # the next key frame is decoded before it
        FrameRange(start=59, end=60, start_time=59 / 25, around=4),
    ],
)
def test_the_frames_before_are_not_decoded(tmp_path: Path, decoded: list[Any], wanted: FrameRange) -> None:
    make_video(tmp_path / "a.mp4", FRAMES, options={**GROUPS, "bf": "3", "b-adapt": "0"})
    frames = read(tmp_path / "a.mp4", wanted)
    assert frames[0].index == wanted.start
    assert len(decoded) <= 12 + 2


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264"), ("a.avi", "mpeg4")],
)
@pytest.mark.parametrize("timed", [True, False])
def test_outward_the_wanted_frame_comes_first(tmp_path: Path, name: str, codec: str, timed: bool) -> None:
    make_video(tmp_path / name, FRAMES, codec=codec, options=GROUPS if codec == "libx264" else {"g": "12"})
    expected = plain(read(tmp_path / name))
    entrance = Entrance()
    for start in (0, 30, 29, 3, 12, FRAMES - 1):
        time = expected[start][1] if timed else None
        wanted = FrameRange(start=start, start_time=time, around=5)
        with open_video(str(tmp_path / name), wanted, entrance=entrance) as source:
            given = plain(list(source))
        before = [frame for frame, *_ in given if frame < start]
        assert given[0] == expected[start]
        assert before == list(range(start - 1, start - 1 - len(before), -1))
        assert len(before) == min(5, start) or (start % 12 == len(before) and codec != "mpeg4")
        assert [frame for frame, *_ in given if frame > start] == list(range(start + 1, FRAMES))
        assert [frame for frame, *_ in given[:5]] in (
            [start, start - 1, start + 1, start - 2, start + 2],
            [start, start - 1, start - 2, start - 3, start - 4],
            list(range(start, start + 5)),
        )
        assert all(one == expected[one[0]] for one in given)
    entrance.close()


def _with_a_hole(path: Path) -> None:
    whole = path.with_name(f"whole-{path.name}")
    make_video(whole, FRAMES, options=GROUPS)
    with av.open(str(whole)) as container:
        place = [packet.pos for packet in container.demux(video=0)][19]
    content = bytearray(whole.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    """Without encoding, so that its first frames cannot be decoded."""
    open_groups = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"}
    make_video(path.with_suffix(".mp4"), FRAMES, options=open_groups)
    with av.open(str(path.with_suffix(".mp4"))) as container:
        keys = [place for place, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
    join(path, (path.with_suffix(".mp4"), keys[1], None))


def _without_a_key(path: Path) -> None:
    make_video(path.with_suffix(".mp4"), FRAMES, options=GROUPS)
    join(path, (path.with_suffix(".mp4"), 5, None))


def _fast(path: Path) -> None:
    """Two frames a millisecond, in which Matroska counts."""
    make_video(path, FRAMES, times=[place / 2000 for place in range(FRAMES)], options=GROUPS)


UNCOUNTED = {"hole.mp4": _with_a_hole, "cut.mkv": _cut, "no-key.mkv": _without_a_key, "fast.mkv": _fast}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_where_packets_are_not_the_frames_they_are_counted(tmp_path: Path, name: str) -> None:
    UNCOUNTED[name](tmp_path / name)
    expected = plain(read(tmp_path / name))
    entrance = Entrance()
    for start in (30, 10, 3, 40, 31, 6, 30):
        with open_video(str(tmp_path / name), FrameRange(start=start, around=4), entrance=entrance) as source:
            given = plain(list(source))
        assert given[0] == expected[start]
        assert all(one == expected[one[0]] for one in given)
        with open_video(str(tmp_path / name), FrameRange(start=start, start_time=expected[start][1])) as source:
            assert plain(list(source)) == expected[start:]
    entrance.close()


def test_what_was_counted_once_is_found_at_once(tmp_path: Path, decoded: list[Any]) -> None:
    _with_a_hole(tmp_path / "a.mp4")
    entrance = Entrance()
    for start, most in ((50, 55), (44, 12), (38, 12)):
        decoded.clear()
        with open_video(str(tmp_path / "a.mp4"), FrameRange(start=start, around=2), entrance=entrance) as source:
            assert next(iter(source)).index == start
        assert len(decoded) <= most
    entrance.close()


def test_of_h264_only_what_others_need_is_decoded_on_the_way(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 200, options={"g": "200", "bf": "3", "b-adapt": "0"})
    opened, stream = open_container(str(tmp_path / "a.mp4"), seeks=True)
    with opened:
        from_150 = round(150 / 25 / stream.time_base)
        decoded = list(decode_stream(opened, stream, Damage(), whole_from=from_150))
    times = [round(25 * one.time) for one in decoded if one.time is not None]
    assert times[-50:] == list(range(150, 200)), "all of those that are wanted"
    assert len(times) < 50 + 0.7 * 150
    expected = read(tmp_path / "a.mp4")
    wanted = FrameRange(start=190, start_time=190 / 25, around=30)
    with open_video(str(tmp_path / "a.mp4"), wanted) as source:
        given = {frame.index: frame for frame in source}
    assert sorted(given) == list(range(160, 200))
    assert all(np.array_equal(frame.image, expected[index].image) for index, frame in given.items())


def test_a_file_stays_open_for_the_next_jump_unless_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = container.open_container

    def counting(path: str, *arguments: Any, **others: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **others)

    for module in (probe, pyav):
        monkeypatch.setattr(module, "open_container", counting)
    path = tmp_path / "a.mp4"
    make_video(path, FRAMES, options=GROUPS)
    entrance = Entrance()

    def jump(start: int) -> bytes:
        with open_video(str(path), FrameRange(start=start, start_time=start / 25), entrance=entrance) as source:
            return next(iter(source)).image.tobytes()

    first = jump(40)
    count = len(opened)
    assert [jump(start) == first for start in (7, 55, 40)] == [False, False, True]
    assert len(opened) == count
    make_video(path, FRAMES, options=GROUPS, discs=[Disc(colour=(10, 10, 200))])
    assert jump(40) != first
    assert len(opened) == 2 * count
    entrance.close()


def test_the_decoding_process_enters_a_file_too(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", FRAMES, options=GROUPS)
    expected = read(tmp_path / "a.mp4", FrameRange(start=40))
    with DecodingProcess() as process, process.open(tmp_path / "a.mp4", FrameRange(40, start_time=40 / 25)) as source:
        given = [Frame(frame.moment, frame.image.copy()) for frame in source]
    assert plain(given) == plain(expected)


@pytest.mark.parametrize(("name", "codec", "shown"), [("a.webm", "libvpx", 16), ("a.mp4", "libvpx-vp9", 2)])
def test_packets_that_show_nothing_are_no_frames(tmp_path: Path, name: str, codec: str, shown: int) -> None:
    """VP8 has pictures that are only predicted from in packets of their own, and so have some files of VP9."""
    make_video(tmp_path / f"plain-{name}", FRAMES, codec=codec, options={"g": "12"})
    with (
        av.open(str(tmp_path / f"plain-{name}")) as old,
        av.open(str(tmp_path / name), "w", options={"fflags": "-autobsf"}) as new,
    ):
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size and packet.is_keyframe and packet.pts:
                hidden = av.Packet(bytes([bytes(packet)[0] & ~shown]) + bytes(packet)[1:])
                hidden.pts = hidden.dts = packet.pts - 9
                hidden.stream, hidden.time_base = copy, packet.time_base
                new.mux(hidden)
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    expected = read(tmp_path / name)
    assert len(expected) == FRAMES
    for start in (5, 13, 40):
        given = read(tmp_path / name, FrameRange(start=start, end=start + 3, around=2))
        assert plain(given) == [plain(expected)[index] for index in (frame.index for frame in given)]
        assert given[0].index == start
