"""One attempt at a video, in a lane. Without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.io.video.spool import Brought
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Finished, Job, WorkerSettings
from tests.support.running import STUB, done, write_manifest
from tests.support.stub_tracker import Stub
from tests.support.videos import make_video

FRAMES = 6


@pytest.fixture
def task(tmp_path: Path) -> VideoTask:
    make_video(tmp_path / "video.mp4", FRAMES)
    rows = [{"video": "video.mp4", "box": [40, 30, 20, 20]}]
    (task,) = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows))).tasks
    return task


def lane(out: Path) -> Lane:
    settings = WorkerSettings(
        out=str(out), factory=STUB[1], tracker=Stub.describe(RunSettings()), decoder="auto", threads=1, extras={}
    )
    return Lane(settings)


def test_a_video_that_was_fetched_ahead_and_is_gone_is_fetched_here(task: VideoTask, tmp_path: Path) -> None:
    fetched = Brought(tmp_path / "tidied up" / "video.mp4", "its version")
    *_, last = lane(tmp_path / "run").run(Job(task=task, attempt=1, fetched=fetched))
    assert isinstance(last, Finished), last
    assert len(done(tmp_path / "run")) == 1
