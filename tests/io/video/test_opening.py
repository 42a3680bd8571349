"""Frames of real videos: both decoders agree, and whatever is wrong is an error or a warning, never silence."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch.errors import VideoError
from rts_batch.io.video import backward as video_backward
from rts_batch.io.video import decoder_log
from rts_batch.io.video import decord as video_decord
from rts_batch.io.video.limits import DecoderName
from rts_batch.io.video.opening import DECODE_MEMORY, Frame, FrameRange, VideoInfo, open_video
from rts_batch.io.video.probe import probe_file, unsuitable_for_decord
from tests.support.decoded import same
from tests.support.videos import draw, make_audio, make_images, make_video, remux

SAFE: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mov": {},
    "h264.mkv": {},
    "variable-rate.mp4": {"frames": 6, "times": [0, 0.04, 0.3, 0.31, 0.5, 1.0]},
    "late-start.mkv": {"frames": 6, "times": [0.5, 0.54, 0.8, 0.81, 0.95, 1.0]},
    "fragmented.mp4": {
        "frames": 40,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
        "options": {"g": "10"},
    },
    "index-first.mp4": {"container_options": {"movflags": "faststart"}},
    "odd-sides-444.mp4": {"size": (161, 123), "pixels": "yuv444p"},
    "422.mp4": {"pixels": "yuv422p"},
    "full-range.mp4": {"pixels": "yuvj420p"},
    "bt709.mp4": {"options": {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709"}},
    "one-frame.mp4": {"frames": 1},
    "small.mp4": {"size": (32, 32)},
    "hd.mp4": {"frames": 3, "size": (1280, 720)},
}

OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "av1.mp4": ({"codec": "libsvtav1", "frames": 6}, "codec"),
    "stream.ts": ({}, "container"),
    "mpeg4.avi": ({"codec": "mpeg4"}, "container"),
    "moving.gif": ({"codec": "gif", "pixels": "rgb8", "frames": 5}, "container"),
    "hevc.mp4": ({"codec": "libx265"}, "codec"),
    "vp8.webm": ({"codec": "libvpx"}, "codec"),
    "vp9.webm": ({"codec": "libvpx-vp9"}, "codec"),
    "vp8-hidden-frames.webm": (
        {"codec": "libvpx", "frames": 60, "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
        "codec",
    ),
    "mpeg4.mp4": ({"codec": "mpeg4"}, "codec"),
    "mpeg4-b.mov": ({"codec": "mpeg4", "options": {"bf": "2"}}, "codec"),
    "open-gop.mp4": ({"frames": 40, "options": {"x264-params": "open-gop=1:keyint=10:bframes=3"}}, "shown before it"),
    "ten-bit.mp4": ({"pixels": "yuv420p10le"}, "pixels"),
    "interlaced.mp4": ({"options": {"x264-params": "interlaced=1"}}, "interlaced"),
    "narrow.mp4": ({"size": (24, 64)}, "narrow"),
    "odd-height.mp4": ({"size": (160, 121), "pixels": "yuv422p"}, "odd height"),
    "odd-width.webm": ({"codec": "libvpx-vp9", "size": (161, 120)}, "codec"),
}


def test_open_video_is_had_from_its_package_too() -> None:
    """Programs outside of the repository import it from there; they did not start any more."""
    from rts_batch.io import video

    assert video.open_video is open_video


def read(path: Path, decoder: DecoderName = "auto", **options: Any) -> tuple[VideoInfo, list[Frame], list[str]]:
    with open_video(str(path), decoder=decoder, **options) as source:
        frames = list(source)
        return source.info, frames, source.warnings


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.long
def test_decord_and_pyav_give_the_same_frames(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    masks = make_video(path, **SAFE[name])
    info, frames, warnings = read(path, "decord")
    assert info.decoder == "decord"
    assert not warnings
    assert [frame.index for frame in frames] == list(range(len(masks)))
    assert info.frames == len(masks)
    assert frames[0].image.shape == (info.height, info.width, 3) == (*masks.shape[2:], 3)

    pyav_info, pyav_frames, pyav_warnings = read(path, "pyav")
    assert pyav_info.decoder == "pyav"
    assert not pyav_warnings
    assert same(frames, pyav_frames)
    assert (info.height, info.width, info.fps, info.duration) == (
        pyav_info.height,
        pyav_info.width,
        pyav_info.fps,
        pyav_info.duration,
    )


@pytest.mark.parametrize("name", OUTSIDE)
def test_auto_leaves_to_pyav_what_decord_reads_wrongly(tmp_path: Path, name: str) -> None:
    options, reason = OUTSIDE[name]
    masks = make_video(tmp_path / name, **options)
    assert reason in str(unsuitable_for_decord(probe_file(str(tmp_path / name), packets=True), DECODE_MEMORY))
    info, frames, warnings = read(tmp_path / name, "decord")
    assert info.decoder == "pyav"
    assert len(warnings) == 1
    assert reason in warnings[0]
    assert "PyAV read it instead" in warnings[0]
    assert len(frames) == len(masks)
    assert not read(tmp_path / name)[2]


def test_frames_show_what_was_drawn(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 5, pixels="yuv444p", options={"crf": "5"})
    _, frames, _ = read(tmp_path / "a.mp4")
    for frame, (image, _) in zip(frames, draw(5), strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 4


def test_times_are_exact_in_a_variable_rate(tmp_path: Path) -> None:
    times = [0.5, 0.54, 0.8, 0.81, 0.95, 1.0]
    make_video(tmp_path / "a.mkv", 6, times=times)
    for decoder in ("auto", "pyav"):
        assert [frame.time for frame in read(tmp_path / "a.mkv", decoder)[1]] == times


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(("start", "end"), [(0, 1), (7, 8), (7, 20), (11, None), (24, None), (0, 99), (24, 99)])
def test_start_and_end_cut_without_shifting(tmp_path: Path, decoder: DecoderName, start: int, end: int | None) -> None:
    make_video(tmp_path / "a.mp4", 25, options={"g": "10", "bf": "2"})
    _, everything, _ = read(tmp_path / "a.mp4", decoder)
    _, part, warnings = read(tmp_path / "a.mp4", decoder, wanted=FrameRange(start=start, end=end))
    assert same(part, everything[start:end])
    assert part[0].index == start
    assert not warnings


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_start_past_the_end_names_the_length(tmp_path: Path, decoder: DecoderName) -> None:
    make_video(tmp_path / "a.mp4", 5)
    with pytest.raises(VideoError, match="no frame 5 to start from: it has 5 frames"):
        read(tmp_path / "a.mp4", decoder, wanted=FrameRange(start=5))


QUARTER_TURNS = {
    "0": ((1, 0, 0, 1), lambda image: image),
    "90": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "270": ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
}
MIRRORED = {
    "left-right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside-down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "diagonal": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
}


@pytest.mark.parametrize("turn", QUARTER_TURNS)
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_a_turned_video_is_given_upright_by_both_decoders(tmp_path: Path, turn: str, ending: str) -> None:
    matrix, expected = QUARTER_TURNS[turn]
    make_video(tmp_path / "plain.mp4", 3)
    remux(tmp_path / "plain.mp4", tmp_path / f"turned.{ending}", matrix=matrix)
    stored = read(tmp_path / "plain.mp4")[1]
    info, frames, _ = read(tmp_path / f"turned.{ending}", "decord")
    assert info.decoder == ("pyav" if ending == "mkv" and turn != "0" else "decord")
    assert info.turned % 180 == int(turn) % 180
    assert same(frames, read(tmp_path / f"turned.{ending}", "pyav")[1])
    for frame, before in zip(frames, stored, strict=True):
        assert np.array_equal(frame.image, expected(before.image))
        assert frame.image.flags.c_contiguous


@pytest.mark.parametrize("mirror", MIRRORED)
def test_a_mirrored_video_is_given_as_players_show_it(tmp_path: Path, mirror: str) -> None:
    matrix, expected = MIRRORED[mirror]
    make_video(tmp_path / "plain.mp4", 2)
    remux(tmp_path / "plain.mp4", tmp_path / "mirrored.mp4", matrix=matrix)
    info, frames, _ = read(tmp_path / "mirrored.mp4")
    assert info.decoder == "pyav"
    for frame, before in zip(frames, read(tmp_path / "plain.mp4")[1], strict=True):
        assert np.array_equal(frame.image, expected(before.image))


def test_frames_before_an_edit_list_do_not_count(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 25)
    remux(tmp_path / "a.mp4", tmp_path / "cut.mp4", shift=-0.2, options={"avoid_negative_ts": "disabled"})
    info, frames, warnings = read(tmp_path / "cut.mp4")
    assert (info.decoder, info.frames, len(frames)) == ("pyav", 20, 20)
    assert not warnings
    assert not read(tmp_path / "cut.mp4", "pyav")[2]
    assert frames[0].time == 0.0
    whole = read(tmp_path / "a.mp4")[1]
    assert np.array_equal(frames[0].image, whole[5].image)


def test_decord_gets_only_what_fits_the_memory(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 10)
    size = 10 * 160 * 120 * 3
    assert read(tmp_path / "a.mp4", "decord", decode_memory=size)[0].decoder == "decord"
    info, _, warnings = read(tmp_path / "a.mp4", "decord", decode_memory=size - 1)
    assert info.decoder == "pyav"
    assert warnings == ["decord is not fit for this file (its frames take 0 MiB); PyAV read it instead"]


def test_auto_takes_decord_only_where_its_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "a.mp4", 4)
    assert read(tmp_path / "a.mp4")[0].decoder == "pyav"
    monkeypatch.setattr(decoder_log, "enabled", lambda: True)
    assert read(tmp_path / "a.mp4")[0].decoder == "decord"


def test_pyav_opens_what_decord_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, threads: int) -> Any:
        raise VideoError(f"decord cannot read {path}: on purpose")

    make_video(tmp_path / "a.mp4", 4)
    monkeypatch.setattr(decoder_log, "enabled", lambda: True)
    monkeypatch.setattr(video_decord, "_open_decord", refuse)
    info, frames, warnings = read(tmp_path / "a.mp4")
    assert (info.decoder, len(frames)) == ("pyav", 4)
    assert "PyAV read it instead" in warnings[0]


# Backward


BACKWARD: dict[str, dict[str, Any]] = {
    **{name: options for name, options in SAFE.items() if name not in ("hd.mp4", "h264.mov")},
    **{name: OUTSIDE[name][0] for name in ("hevc.mp4", "vp8.webm", "vp9.webm", "vp8-hidden-frames.webm", "mpeg4.mp4")},
    **{name: OUTSIDE[name][0] for name in ("mpeg4-b.mov", "open-gop.mp4", "odd-width.webm")},
    "short-groups.mp4": {"frames": 40, "options": {"g": "8", "bf": "2"}},
    "long-groups.mkv": {"frames": 60, "options": {"g": "45", "bf": "3"}},
    "key-frames-only.mp4": {"frames": 20, "options": {"g": "1"}},
    "av1.mp4": OUTSIDE["av1.mp4"][0],
    "stream.ts": {"frames": 30, "options": {"g": "12"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "raw.h264": {"frames": 12},
    "moving.gif": OUTSIDE["moving.gif"][0],
}


def read_backward(path: Path, **options: Any) -> list[Frame]:
    with open_video(str(path), FrameRange(backward=True, **options)) as source:
        return list(source)


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.long
def test_backward_is_forward_reversed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = make_video(tmp_path / name, **BACKWARD[name])
    forward = read(tmp_path / name, "pyav")[1]
    for held in (7 * 160 * 120 * 3 // 2, video_backward.HELD_BYTES):  # a few frames at once, and everything
        monkeypatch.setattr(video_backward, "HELD_BYTES", held)
        assert same(read_backward(tmp_path / name), forward[::-1])
    last = max(1, len(masks) * 2 // 3)
    assert same(read_backward(tmp_path / name, start=last // 2, end=last), forward[last // 2 : last][::-1])
    assert same(read_backward(tmp_path / name, end=10_000), forward[::-1])


def test_backward_decodes_no_more_than_its_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a group of pictures fits the memory, two decodings of each frame: one to count, one to show."""
    make_video(tmp_path / "a.mp4", 60, options={"g": "10", "bf": "2"})
    decoded = 0
    decode = video_backward.decode_stream

    def count(*arguments: Any) -> Any:
        nonlocal decoded
        for frame in decode(*arguments):
            decoded += 1
            yield frame

    monkeypatch.setattr(video_backward, "decode_stream", count)
    monkeypatch.setattr(video_backward, "HELD_BYTES", 15 * 176 * 128 * 3 // 2)
    assert len(read_backward(tmp_path / "a.mp4")) == 60
    assert decoded <= 2 * 60 + 6


@pytest.mark.parametrize("time", [0.0, 0.2, 0.31, 0.96, 5.0])
def test_backward_from_a_time_begins_where_forward_would(tmp_path: Path, time: float) -> None:
    make_video(tmp_path / "a.mp4", 25, options={"g": "10"})
    forward = read(tmp_path / "a.mp4")[1]
    begin = next((frame.index for frame in forward if frame.time >= time - 0.02), 24)
    assert [frame.index for frame in read_backward(tmp_path / "a.mp4", last_time=time)] == list(range(begin, -1, -1))
    found = read_backward(tmp_path / "a.mp4", last_time=time, end=4)
    assert [frame.index for frame in found] == list(range(max(begin, 3), -1, -1))


def test_backward_through_a_turned_video_and_a_folder(tmp_path: Path) -> None:
    make_video(tmp_path / "plain.mp4", 12)
    remux(tmp_path / "plain.mp4", tmp_path / "turned.mp4", matrix=(0, -1, 1, 0))
    assert same(read_backward(tmp_path / "turned.mp4"), read(tmp_path / "turned.mp4", "pyav")[1][::-1])
    make_images(tmp_path / "clip", 8)
    assert [frame.index for frame in read_backward(tmp_path / "clip", start=2, end=6)] == [5, 4, 3, 2]


# What is wrong with a file


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "does not exist"),
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"This is no video at all.\n" * 50, "not a video that can be read"),
        ("noise.mkv", bytes(range(256)) * 40, "not a video that can be read"),
    ],
)
def test_what_is_no_video_is_refused(
    tmp_path: Path, decoder: DecoderName, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=message) as caught:
        read(tmp_path / name, decoder)
    assert name in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_sound_without_a_picture_is_refused(tmp_path: Path) -> None:
    make_audio(tmp_path / "a.m4a")
    with pytest.raises(VideoError, match="holds no video, only audio"):
        read(tmp_path / "a.m4a")


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_video_without_frames_is_refused(tmp_path: Path, ending: str) -> None:
    make_video(tmp_path / f"a.{ending}", 0)
    with pytest.raises(VideoError, match=r"without a frame|not a video|no video"):
        read(tmp_path / f"a.{ending}")


def test_a_file_without_its_index_is_refused(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 25)
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match="not a video that can be read"):
        read(tmp_path / "cut.mp4")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"container_options": {"movflags": "faststart"}}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9"}),
    ],
)
@pytest.mark.parametrize("part", [0.4, 0.6, 0.8])
def test_a_file_that_breaks_off_gives_its_frames_and_a_warning(
    tmp_path: Path, name: str, options: dict[str, Any], part: float
) -> None:
    make_video(tmp_path / name, 75, **options)
    content = (tmp_path / name).read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(content[: round(len(content) * part)])
    whole = read(tmp_path / name, "pyav")[1]
    info, frames, warnings = read(cut)
    assert info.decoder == "pyav"
    assert 1 <= len(frames) < 75
    assert warnings, "frames are missing and nothing says so"
    assert [frame.time for frame in frames] == [frame.time for frame in whole[: len(frames)]]


def test_corrupt_frames_are_counted(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 40, options={"g": "10"})
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    for place in range(len(content) // 3, len(content) // 2, 97):
        content[place] ^= 0xFF
    (tmp_path / "bad.mp4").write_bytes(content)
    _, frames, warnings = read(tmp_path / "bad.mp4", "pyav")
    assert frames
    assert any("corrupt frames" in warning or "could not be decoded" in warning for warning in warnings)


def test_a_size_that_changes_is_an_error_that_names_the_frame(tmp_path: Path) -> None:
    make_video(tmp_path / "a.h264", 4)
    make_video(tmp_path / "b.h264", 4, size=(128, 96))
    joined = tmp_path / "joined.h264"
    joined.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with pytest.raises(VideoError, match="frame 4 is 128×96 pixels, the video began with 160×120"):
        read(joined)


def test_a_playlist_cannot_reach_the_network(tmp_path: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError):
        read(playlist)
