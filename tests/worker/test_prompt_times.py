"""The frame that a prompt's `time` means, on real files: derived here from PyAV's own times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from rts_batch.errors import PromptError
from rts_batch.io.video.opening import open_video
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.worker.passes import reading
from rts_batch.worker.prompts import PromptBook
from tests.support.barcodes import make_numbered, read_number
from tests.support.running import write_manifest
from tests.support.videos import make_images

SCREEN = [round(number * 1000 / 30) for number in range(10)] + [
    8000 + round(number * 1000 / 30) for number in range(10)
]
"""A screen recording in milliseconds: something moves, nothing for eight seconds, something moves again."""

FILES: dict[str, dict[str, Any]] = {
    "screen.mkv": {"ticks": SCREEN},
    "screen.mp4": {"ticks": SCREEN},
    "late.mkv": {"ticks": [500 + 40 * number for number in range(20)]},
    "reordered.mp4": {"options": {"x264-params": "bframes=3"}},
    "offset.ts": {"container_options": {"mpegts_copyts": "1"}, "ticks": [1480 + 40 * number for number in range(20)]},
    "mpeg4.avi": {"codec": "mpeg4"},
    "timelapse.mp4": {"ticks": [number * 2000 for number in range(20)], "base": Fraction(1, 1000)},
}
DECODERS = {"screen.mkv": "decord", "screen.mp4": "decord", "late.mkv": "decord", "reordered.mp4": "decord"}


def make_task(path: Path, **row: Any) -> VideoTask:
    rows = [{"video": str(path), "box": [20, 20, 30, 30], **row}]
    (task,) = read_manifest(str(write_manifest(path.with_suffix(".jsonl"), rows))).tasks
    return task


def find(task: VideoTask, path: Path, **options: Any) -> tuple[int, int, list[str]]:
    """The frame on which the only prompt comes, what number it shows, and what the book warns of."""
    with open_video(str(path), reading(task), **options) as source:
        book = PromptBook(task, source.info, boxes=True)
        end = source.wanted.start
        for frame in source:
            end = max(end, frame.index + 1)
            if book.due(frame, backward=source.wanted.backward):
                return frame.index, read_number(frame.image), book.warnings
        book.check_end(end)
    raise AssertionError("the prompt did not come, and nobody said so")


@pytest.mark.parametrize("name", FILES)
def test_a_time_means_the_frame_that_is_nearest(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make_numbered(path, 20, **FILES[name])
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    asked = {0: times[0], 3: times[3], 9: times[9], 10: times[10], 12: times[12] + 0.004, 19: times[19]}
    halves = {number: (times[number] + times[number + 1]) / 2 for number in (4, 9)}  # ties: the one shown
    later = {number: (0.4 * times[number - 1] + 0.6 * times[number]) for number in (5, 10)}
    for expected, time in [*asked.items(), *halves.items(), *later.items()]:
        for direction in ("forward", "backward"):
            task = make_task(path, time=time, direction=direction)
            for decoder in ["pyav", DECODERS.get(name, "pyav")]:
                index, number, _ = find(task, path, decoder=decoder)
                assert (index, number) == (expected, expected), (time, direction, decoder)


def test_a_time_before_the_first_frame_is_refused_with_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "offset.ts"
    make_numbered(path, 20, **FILES["offset.ts"])
    for time in (0.0, 0.2, 1.4):
        with pytest.raises(PromptError, match=rf"time {time:g} s: .* before the video's first frame.* at 1\.48 s; add"):
            find(make_task(path, time=time), path)
    index, _, warnings = find(make_task(path, time=1.6), path)
    assert (index, len(warnings)) == (3, 1)
    assert "times of this file begin with 1.48 s on frame 0" in warnings[0]
    assert find(make_task(path, frame=3), path)[2] == []


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_time_past_the_end_is_refused(tmp_path: Path, direction: str) -> None:
    path = tmp_path / "a.mp4"
    make_numbered(path, 20)
    assert find(make_task(path, time=0.79, direction=direction), path)[0] == 19
    with pytest.raises(PromptError, match=r"it has 20 frames \(0 to 19\), the last of them shown at 0\.76 s"):
        find(make_task(path, time=0.9, direction=direction), path)


def test_a_time_outside_start_and_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    make_numbered(path, 20)
    assert find(make_task(path, time=0.2, start=5, end=10), path)[0] == 5
    with pytest.raises(PromptError, match="belongs to a frame before the video's `start` 5"):
        find(make_task(path, time=0.16, start=5), path)
    with pytest.raises(PromptError, match=r"10 frames \(0 to 9\) before `end` 10, the last of them shown at 0\.36 s"):
        find(make_task(path, time=0.4, end=10), path)


def test_the_later_frame_of_a_still_is_told(tmp_path: Path) -> None:
    path = tmp_path / "screen.mkv"
    make_numbered(path, 20, ticks=SCREEN)
    assert find(make_task(path, time=4.0), path) == (9, 9, [])
    index, _, (warning,) = find(make_task(path, time=6.0), path)
    assert index == 10
    assert warning == (
        "time 6 s: the nearest frame is 10 (8 s), but frame 9 (0.3 s) is the one shown then; give `frame` where that "
        "is meant"
    )


@pytest.mark.parametrize("name", ["clip", "raw.h264"])
def test_a_time_where_frames_have_none_is_refused_at_once(tmp_path: Path, name: str) -> None:
    if name == "clip":
        make_images(tmp_path / name, 3)
    else:
        make_numbered(tmp_path / name)
    task = make_task(tmp_path / name, time=0.1)
    with open_video(str(tmp_path / name)) as source, pytest.raises(PromptError, match="have none; give `frame`"):
        PromptBook(task, source.info, boxes=True)
