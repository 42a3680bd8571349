"""Single frames: the right ones wherever one steps or jumps, and no more decoding than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


def test_a_video_is_entered_once_for_many_steps(reader: FrameReader, opened: list[int]) -> None:
    for index in range(40, 60):
        reader.jpeg("clip.mp4", index)
    assert opened == [25], "with those before it"
    for index in range(59, 19, -1):
        reader.jpeg("clip.mp4", index)
    assert opened == [25, 9], "backward in pieces, of which the first frames were there"
    for index in range(20, 60):
        reader.jpeg("clip.mp4", index)
    assert opened == [25, 9], "all of them were kept"


def test_the_caches_are_bounded(reader: FrameReader, monkeypatch: pytest.MonkeyPatch, opened: list[int]) -> None:
    cache = frames._Cache(3000)
    for index in range(10):
        cache.put(("a", index), bytes(1000))
    assert [cache.get(("a", index)) is not None for index in range(10)] == [False] * 7 + [True] * 3
    cache.put(("a", 10), bytes(10_000))
    assert cache.get(("a", 10)) is not None, "one is kept, however large"
    assert cache.get(("a", 9)) is None


def test_a_frame_that_is_not_there(reader: FrameReader) -> None:
    for index in (FRAMES, 10_000_000):
        with pytest.raises(VideoError, match="no frame"):
            reader.jpeg("clip.mp4", index)
    assert reader.jpeg("clip.mp4", 3)


def test_after_a_jump_the_frames_before_it_are_there(reader: FrameReader, opened: list[int], tmp_path: Path) -> None:
    images = truth(tmp_path / "clip.mp4")
    for index in range(70, 70 - frames.BACK, -1):
        assert np.array_equal(reader.image("clip.mp4", index), images[index])
    assert opened == [71 - frames.BACK]


def test_what_is_kept_is_given_while_somebody_else_waits_for_a_frame(reader: FrameReader) -> None:
    kept = reader.jpeg("clip.mp4", 5)
    with reader._lock, ThreadPoolExecutor(1) as pool:  # as a thread holds it that decodes
        assert pool.submit(reader.jpeg, "clip.mp4", 5).result(timeout=10) == kept
        assert pool.submit(reader.image, "clip.mp4", 4).result(timeout=10) is not None


@pytest.mark.parametrize(
    ("size", "kept"), [(None, 16), ((0, 0), 16), ((120, 160), 16), ((1080, 1920), 16), ((4320, 7680), 1)]
)
def test_fewer_of_large_frames_are_read_at_once(size: tuple[int, int] | None, kept: int) -> None:
    assert frames._kept(size) == kept
    height, width = size or (0, 0)
    assert 2 * kept * 3 * height * width <= frames.IMAGE_BYTES
