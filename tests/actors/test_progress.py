"""How many frames a run will have tracked, as far as can be known."""

from __future__ import annotations

import time

import pytest

from rts_batch.actors.progress import RunProgress, VideoProgress
from rts_batch.worker.messages import Finished


def done(key: str, frames: int) -> Finished:
    return Finished(key=key, frames=frames, seconds=1.0)


def test_guesses_are_corrected_by_what_videos_really_hold() -> None:
    progress = RunProgress(videos=4, guesses={"a": 10, "b": 10, "c": 30, "d": 10})
    assert progress.expected_frames == 60
    progress.running["a"] = VideoProgress("a")
    assert progress.expected_frames == 60
    progress.running["a"].expected = 5
    assert progress.expected_frames == 30
    del progress.running["a"]
    progress.add(done("a", 5))
    assert progress.expected_frames == 30
    progress.give_up("c")
    assert progress.expected_frames == 15
    for key in ("b", "d"):
        progress.add(done(key, 20))
    assert (progress.expected_frames, progress.frames) == (45, 45)


def test_an_unknown_length_is_unknown() -> None:
    progress = RunProgress(videos=2, guesses={"a": 10, "b": 0})
    assert progress.expected_frames is None
    progress.running["b"] = VideoProgress("b")
    assert progress.expected_frames is None
    progress.running["b"].expected = 7
    assert progress.expected_frames == 17
    assert progress.seconds_left is None
    assert progress.to_dict()["seconds_left"] is None


def test_frames_from_before_a_checkpoint_are_no_speed_of_this_run() -> None:
    progress = RunProgress(videos=2, guesses={"a": 100, "b": 100}, started=time.monotonic() - 10)
    progress.running["a"] = VideoProgress("a")
    progress.running["a"].open(100, 80)
    assert (progress.frames, progress.expected_frames) == (0, 20 + 100)
    progress.running["a"].frames = 90
    assert (progress.frames, progress.expected_frames) == (10, 20 + 100)
    assert progress.seconds_left == pytest.approx(110, rel=0.05)
    del progress.running["a"]
    progress.add(Finished(key="a", frames=100, seconds=2.0, earlier=80))
    assert (progress.frames, progress.finished_frames, progress.expected_frames) == (20, 20, 20 + 100)
    assert progress.to_dict()["frames_per_second"] == pytest.approx(2, rel=0.05)
