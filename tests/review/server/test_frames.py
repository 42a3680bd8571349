"""Single frames: the right ones wherever one steps or jumps, and no more decoding than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rts_batch.errors import VideoError
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import open_video
from rts_batch.review.server import frames
from rts_batch.review.server.frames import FrameReader, Source
from tests.support.videos import make_images, make_video

FRAMES = 90


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames at which a video has been entered."""
    starts: list[int] = []
    real = DecodingProcess.open

    def counting(self: DecodingProcess, video: Any, wanted: Any, **others: Any) -> Any:
        starts.append(wanted.start)
        return real(self, video, wanted, **others)

    monkeypatch.setattr(DecodingProcess, "open", counting)
    return starts


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[FrameReader]:
    make_video(tmp_path / "clip.mp4", FRAMES, options={"g": "15"})
    make_images(tmp_path / "folder", 9)
    with FrameReader(lambda name: Source(str(tmp_path / name), None, lambda frame: frame / 25)) as reader:
        yield reader


def truth(path: Path) -> list[np.ndarray]:
    with open_video(str(path)) as source:
        return [frame.image for frame in source]


def test_steps_and_jumps_lead_to_the_right_frames(reader: FrameReader, tmp_path: Path) -> None:
    images = truth(tmp_path / "clip.mp4")
    for index in (0, 1, 2, 50, 51, 49, 48, 10, FRAMES - 1, 0, 33):
        assert np.array_equal(reader.image("clip.mp4", index), images[index]), index
    for index, image in enumerate(truth(tmp_path / "folder")):
        assert np.array_equal(reader.image("folder", index), image)
    assert np.array_equal(reader.image("clip.mp4", 7), images[7]), "back in the first one"


def test_a_video_is_entered_once_for_many_steps(reader: FrameReader, opened: list[int], tmp_path: Path) -> None:
    images = truth(tmp_path / "clip.mp4")
    steps = [*range(44, 60), *range(59, 29, -1), *range(30, 60)]
    for index in steps:
        assert np.array_equal(reader.image("clip.mp4", index), images[index])
    assert opened == [44], "a place in the last of a group's frames, and those before it"
    reader.jpeg("clip.mp4", 29)
    assert opened == [44, 29], "the group before it"


def test_a_step_back_over_a_key_frame_enters_the_group_before(
    reader: FrameReader, opened: list[int], tmp_path: Path
) -> None:
    images = truth(tmp_path / "clip.mp4")
    for index in (45, 46, 44, 43, 47):
        assert np.array_equal(reader.image("clip.mp4", index), images[index])
    assert opened == [45, 44]


def test_the_caches_are_bounded(reader: FrameReader, monkeypatch: pytest.MonkeyPatch, opened: list[int]) -> None:
    cache = frames._Cache(3000)
    for index in range(10):
        cache.put(("a", index), bytes(1000))
    assert [cache.get(("a", index)) is not None for index in range(10)] == [False] * 7 + [True] * 3
    cache.put(("a", 10), bytes(10_000))
    assert cache.get(("a", 10)) is not None, "one is kept, however large"
    assert cache.get(("a", 9)) is None


@pytest.mark.parametrize(
    ("name", "options", "times"),
    [
        ("live.webm", {"live": "1"}, None),  # as browsers record: it says neither how many frames nor how long
        ("uneven.mkv", {}, [min(place, 30) * 0.04 + max(0, place - 30) * 0.01 for place in range(60)]),
        ("dropped.avi", {}, [place * 0.04 + (place > 20) for place in range(40)]),  # says how long it is, in frames
        ("raw.h264", {}, None),
        ("one.mkv", {"live": "1"}, [0.0]),
    ],
)
def test_the_frames_of_a_file_that_does_not_tell_their_number(
    tmp_path: Path, name: str, options: dict[str, str], times: list[float] | None
) -> None:
    codec = "libvpx" if name == "live.webm" else "libx264"
    frames = len(times) if times else 60
    make_video(tmp_path / name, frames, codec=codec, container_options=options, times=times)
    images = truth(tmp_path / name)
    with FrameReader(lambda name: Source(str(tmp_path / name), None, lambda frame: None)) as reader:
        assert reader.info(name).frames == frames
        for index in (0, frames - 1):
            assert np.array_equal(reader.image(name, index), images[index])


def test_a_frame_that_is_not_there(reader: FrameReader) -> None:
    for index in (FRAMES, 10_000_000):
        with pytest.raises(VideoError, match="no frame"):
            reader.jpeg("clip.mp4", index)
    assert reader.jpeg("clip.mp4", 3)


def test_after_a_jump_its_frame_is_first_and_those_around_it_are_there(
    reader: FrameReader, opened: list[int], tmp_path: Path
) -> None:
    images = truth(tmp_path / "clip.mp4")
    reader.image("clip.mp4", 70)
    assert [index for index in range(FRAMES) if reader._images.get(("clip.mp4", index)) is not None] == [70]
    for away in range(1, 10):
        for index in (70 - away, 70 + away):
            assert np.array_equal(reader.image("clip.mp4", index), images[index])
    assert opened == [70]


def test_a_picture_is_as_wide_as_it_is_shown(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", 3, size=(640, 360))
    with FrameReader(lambda name: Source(str(tmp_path / name), None, lambda frame: None)) as reader:
        whole = picture(reader.jpeg("clip.mp4", 1))
        for width, wide in ((None, 640), (1000, 640), (640, 640), (600, 640), (500, 500), (320, 320), (300, 320)):
            small = picture(reader.jpeg("clip.mp4", 1, width))
            assert small.shape == (round(360 * wide / 640), wide, 3), width
            again = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(small.astype(int) - again).mean() < 6
        assert picture(reader.jpeg("clip.mp4", 1, 16)).shape[1] == 16
        assert reader.image("clip.mp4", 1).shape == (360, 640, 3)


def picture(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_what_is_kept_is_given_while_somebody_else_waits_for_a_frame(reader: FrameReader) -> None:
    kept = reader.jpeg("clip.mp4", 5)
    reader.image("clip.mp4", 4)
    with reader._lock, ThreadPoolExecutor(1) as pool:  # as a thread holds it that decodes
        assert pool.submit(reader.jpeg, "clip.mp4", 5).result(timeout=60) == kept
        assert pool.submit(reader.image, "clip.mp4", 4).result(timeout=60) is not None


@pytest.mark.parametrize(
    ("size", "kept"), [(None, 16), ((0, 0), 16), ((120, 160), 64), ((1080, 1920), 64), ((2160, 3840), 16)]
)
def test_fewer_of_large_frames_are_kept(size: tuple[int, int] | None, kept: int) -> None:
    assert frames._around(size) == kept
    height, width = size or (0, 0)
    assert kept * 2 * height * width <= frames.AROUND_BYTES
