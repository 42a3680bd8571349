"""What packets show: where frames would be others than packets, and where decord would not see what pictures say."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from rts_batch.errors import VideoError
from rts_batch.io.video.description import describe_video
from rts_batch.io.video.opening import DECODE_MEMORY, open_video
from rts_batch.io.video.probe import Probe, probe_file, unsuitable_for_decord
from tests.support.videos import join, make_video

GROUPS = {"g": "10", "bf": "2", "keyint_min": "10"}
OPEN = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"}


def look(path: Path) -> Probe:
    return probe_file(str(path), packets=True)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("options", [GROUPS, {"g": "1"}, {"x264-params": "b-pyramid=normal:bframes=5:ref=5:keyint=12"}])
def test_a_sound_file_has_nothing_to_show(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    make_video(tmp_path / name, 40, options=options)
    assert (look(tmp_path / name).miscounted, look(tmp_path / name).unseen) == (None, None)


def test_packets_without_times_are_counted_too(tmp_path: Path) -> None:
    make_video(tmp_path / "raw.h264", 40, options=GROUPS)
    assert look(tmp_path / "raw.h264").info.frames == 40
    found = describe_video(str(tmp_path / "raw.h264"))
    assert (found["frames"], found["frames_in_file"], found["announced_frames"]) == (40, 40, None)


def test_numbers_of_pictures_begin_again_without_harm(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 300, size=(32, 32), options={"g": "300", "bf": "0"})
    assert look(tmp_path / "a.mp4").miscounted is None


def test_open_groups_and_pieces_are_told(tmp_path: Path) -> None:
    make_video(tmp_path / "open.mp4", 40, options=OPEN)
    make_video(tmp_path / "a.mp4", 40, options=GROUPS)
    assert "follow a key frame are shown before it" in str(look(tmp_path / "open.mp4").miscounted)
    join(tmp_path / "later.mkv", (tmp_path / "a.mp4", 5, None))
    assert look(tmp_path / "later.mkv").miscounted == "its first packet is no key frame"
    join(tmp_path / "gap.mkv", (tmp_path / "a.mp4", 0, 13), (tmp_path / "a.mp4", 17, None))
    assert look(tmp_path / "gap.mkv").miscounted == "pictures are missing in its middle"
    join(tmp_path / "two.mkv", (tmp_path / "a.mp4", 0, 12), (tmp_path / "a.mp4", 10, None))
    assert look(tmp_path / "two.mkv").miscounted is not None


def test_what_is_cut_from_an_open_group_is_not_repeated(tmp_path: Path) -> None:
    """decord gave the last picture again for each that could not be decoded, and every other at another's time."""
    make_video(tmp_path / "open.mp4", 40, options=OPEN)
    with av.open(str(tmp_path / "open.mp4")) as container:
        keys = [place for place, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
    join(tmp_path / "cut.mkv", (tmp_path / "open.mp4", keys[1], None))
    assert "shown before it" in str(unsuitable_for_decord(look(tmp_path / "cut.mkv"), DECODE_MEMORY))
    with open_video(str(tmp_path / "cut.mkv"), decoder="decord") as source:
        frames = list(source)
    assert len(frames) == len({frame.image.tobytes() for frame in frames}) == 30


def test_times_that_repeat_are_told(tmp_path: Path) -> None:
    times = [place / 2000 for place in range(20)]
    make_video(tmp_path / "a.mkv", 20, times=times)
    assert look(tmp_path / "a.mkv").miscounted == "several frames have one time"


def test_broken_packets_are_told(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 40, options=GROUPS)
    with av.open(str(tmp_path / "a.mp4")) as container:
        place = [packet.pos for packet in container.demux(video=0)][20]
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    content[place : place + 40] = bytes(40)
    (tmp_path / "hole.mp4").write_bytes(content)
    assert look(tmp_path / "hole.mp4").miscounted == "some packets are damaged"


def test_another_size_in_mid_stream_is_an_error(tmp_path: Path) -> None:
    """decord stretched the frames to the first size."""
    for codec, name in (("libx264", "mp4"), ("libvpx", "webm")):
        first, second = tmp_path / f"1.{name}", tmp_path / f"2.{name}"
        make_video(first, 10, codec=codec)
        make_video(second, 10, codec=codec, size=(128, 96))
        _append_in_band(tmp_path / f"joined.{name}", first, second)
        reason = unsuitable_for_decord(look(tmp_path / f"joined.{name}"), DECODE_MEMORY)
        assert reason == ("the codec is vp8" if name == "webm" else SEVERAL)
        with (
            open_video(str(tmp_path / f"joined.{name}"), decoder="decord") as source,
            pytest.raises(VideoError, match="frame 10 is 128×96 pixels, the video began with 160×120; cut it"),
        ):
            list(source)


SEVERAL = "it has several sequence parameter sets, as where the size changes"


def _append_in_band(path: Path, first: Path, second: Path) -> None:
    """One behind the other; of H.264 with the second's parameter sets in its packets, as live streams have them."""
    with av.open(str(path), "w") as new, av.open(str(first)) as one, av.open(str(second)) as two:
        copy = new.add_stream_from_template(one.streams.video[0])
        begin = 0
        for old in (one, two):
            header = old.streams.video[0].codec_context.extradata
            for packet in old.demux(video=0):
                if not packet.size:
                    continue
                data = bytes(packet)
                if old is two and packet.is_keyframe and header:
                    data = _parameter_sets(header) + data
                written = av.Packet(data)
                written.stream, written.time_base, written.is_keyframe = copy, packet.time_base, packet.is_keyframe
                written.pts, written.dts = packet.pts + begin, packet.dts + begin
                written.duration = packet.duration  # PyAV 17 hides the last frame of a packet without one
                new.mux(written)
            begin = round(0.4 / old.streams.video[0].time_base)


def _parameter_sets(header: bytes) -> bytes:
    """Those of an avcC, each behind its length in four bytes."""
    found, place = b"", 6
    for count in (header[5] & 31, None):
        if count is None:
            count, place = header[place], place + 1
        for _ in range(count):
            size = int.from_bytes(header[place : place + 2], "big")
            found += size.to_bytes(4, "big") + header[place + 2 : place + 2 + size]
            place += 2 + size
    return found


@pytest.mark.parametrize("turn", [90, 180])
def test_pictures_that_say_how_they_are_turned_are_turned(tmp_path: Path, turn: int) -> None:
    """decord gave them as they are stored, while the video was said to be turned."""
    make_video(tmp_path / "plain.mp4", 3, size=(96, 96))
    bits = f"000{turn * 65536 // 360:016b}10100"  # not cancelled, not flipped, turned, for this picture, no more
    unit = bytes([6, 47, 3]) + int(bits, 2).to_bytes(3, "big") + b"\x80"
    with av.open(str(tmp_path / "plain.mp4")) as old, av.open(str(tmp_path / "turned.mp4"), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.size:
                written = av.Packet(len(unit).to_bytes(4, "big") + unit + bytes(packet))
                written.pts, written.dts, written.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
                written.stream, written.time_base, written.duration = copy, packet.time_base, packet.duration
                new.mux(written)
    assert look(tmp_path / "turned.mp4").unseen == "the orientation stands in its pictures"
    with open_video(str(tmp_path / "plain.mp4")) as source:
        stored = list(source)
    with open_video(str(tmp_path / "turned.mp4"), decoder="decord") as source:
        assert source.info.turned % 180 == turn % 180 != 1
        for frame, before in zip(source, stored, strict=True):
            assert any(
                np.array_equal(frame.image, np.rot90(before.image, k)) for k in ((2,) if turn == 180 else (1, 3))
            )
