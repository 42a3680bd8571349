"""What the Ray actor does beside its process: it fetches the next video."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec

from rts_batch.actors.worker import FetchedAhead
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.messages import WorkerSettings
from tests.support.manifests import tasks
from tests.support.stub_tracker import Stub


def test_what_was_fetched_ahead_is_used_once_and_removed(tmp_path: Path) -> None:
    bucket = f"memory://{uuid.uuid4().hex}/"
    with fsspec.open(f"{bucket}v0", "wb") as file:
        file.write(b"a video")
    present, missing = tasks(2, bucket)
    settings = WorkerSettings(
        out="run",
        factory="",
        tracker=Stub.describe(RunSettings()),
        decoder="auto",
        threads=1,
        extras={},
        scratch=str(tmp_path),
    )
    ahead = FetchedAhead(settings)
    ahead.begin(present)
    with ahead.taken(present) as brought:
        assert brought is not None
        assert isinstance(brought.video, Path)
        assert brought.video.read_bytes() == b"a video"
    assert list(tmp_path.iterdir()) == []
    with ahead.taken(present) as brought:
        assert brought is None
    ahead.begin(missing)
    with ahead.taken(missing) as brought:
        assert brought is None  # the worker itself will find out and tell
    ahead.begin(present)
    with ahead.taken(missing) as brought:
        assert brought is None
    ahead.begin(missing)
    assert len(list(tmp_path.iterdir())) == 1
