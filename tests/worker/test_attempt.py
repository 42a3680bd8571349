"""One attempt at a video, in a lane. Without Ray."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from rts_batch.io.video.spool import Brought
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Failed, Finished, Job, Opened, WorkerSettings
from tests.support.running import STUB, done, write_manifest
from tests.support.stub_tracker import Stub
from tests.support.videos import make_video
from tests.support.workers import decoding

FRAMES = 6


@pytest.fixture
def task(tmp_path: Path) -> VideoTask:
    make_video(tmp_path / "video.mp4", FRAMES)
    rows = [{"video": "video.mp4", "box": [40, 30, 20, 20]}]
    (task,) = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows))).tasks
    return task


def lane(out: Path, *, frames: int | None = None) -> Lane:
    """A lane that writes a checkpoint after each frame, and is told to leave after so many."""
    asked = itertools.count(1)
    settings = WorkerSettings(
        out=str(out),
        factory=STUB[1],
        tracker=Stub.describe(RunSettings()),
        decoder="auto",
        threads=1,
        extras={},
        checkpoint_every=1e-9,
    )
    return Lane(settings, leaving=lambda: frames is not None and next(asked) >= frames, decoding=decoding())


def report_of(out: Path) -> dict[str, Any]:
    (path,) = (out / "videos").iterdir()
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_speed_counts_the_frames_since_the_checkpoint(task: VideoTask, tmp_path: Path) -> None:
    out = tmp_path / "run"
    *_, left = lane(out, frames=4).run(Job(task=task, attempt=1))
    assert isinstance(left, Failed)
    events = list(lane(out).run(Job(task=task, attempt=2)))
    (opened,) = (event for event in events if isinstance(event, Opened))
    assert (opened.frames, opened.earlier) == (FRAMES, 4)
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.frames, last.earlier) == (FRAMES, 4)
    report = report_of(out)
    assert report["frames"] == FRAMES
    assert report["frames_per_second"] == pytest.approx((FRAMES - 4) / report["seconds"], rel=0.05, abs=0.01)


def test_seconds_are_those_that_passed_whatever_the_clock_is_set_to(
    task: VideoTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(time.time(), -3600)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    *_, last = lane(tmp_path / "run").run(Job(task=task, attempt=1))
    assert isinstance(last, Finished)
    assert 0 < report_of(tmp_path / "run")["seconds"] <= last.seconds < 60


def test_a_video_that_was_fetched_ahead_and_is_gone_is_fetched_here(task: VideoTask, tmp_path: Path) -> None:
    fetched = Brought(tmp_path / "tidied up" / "video.mp4", "its version")
    *_, last = lane(tmp_path / "run").run(Job(task=task, attempt=1, fetched=fetched))
    assert isinstance(last, Finished), last
    assert len(done(tmp_path / "run")) == 1
