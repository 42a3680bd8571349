"""What the Ray actor does beside its process: it fetches the next video."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec

from rts_batch.actors.worker import FetchedAhead
from rts_batch.io.video.spool import Brought
from rts_batch.manifest import VideoTask
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.messages import WorkerSettings
from tests.support.manifests import tasks
from tests.support.stub_tracker import Stub


def settings_of(scratch: Path) -> WorkerSettings:
    return WorkerSettings(
        out="run",
        factory="",
        tracker=Stub.describe(RunSettings()),
        decoder="auto",
        threads=1,
        extras={},
        scratch=str(scratch),
    )


def stored(count: int) -> list[VideoTask]:
    """Videos in a bucket."""
    videos = tasks(count, f"memory://{uuid.uuid4().hex}/")
    for task in videos:
        with fsspec.open(task.uri, "wb") as file:
            file.write(task.key.encode())
    return videos


def content_of(brought: Brought | None) -> str:
    assert brought is not None
    assert isinstance(brought.video, Path)
    return brought.video.read_text()


def test_what_fetched_ahead_is_used_once_and_removed(tmp_path: Path) -> None:
    bucket = f"memory://{uuid.uuid4().hex}/"
    with fsspec.open(f"{bucket}v0", "wb") as file:
        file.write(b"a video")
    present, missing = tasks(2, bucket)
    ahead = FetchedAhead(settings_of(tmp_path))
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


def test_a_video_that_was_handed_out_stays_when_the_next_one_is_asked_for(tmp_path: Path) -> None:
    """The pool asks for it while the one before may still be on its way to its lane."""
    first, second, third = stored(3)
    ahead = FetchedAhead(settings_of(tmp_path))
    ahead.begin(first)
    ahead.want(first)
    ahead.begin(second)
    assert len(list(tmp_path.iterdir())) == 2
    with ahead.taken(first) as brought:
        assert content_of(brought) == first.key
        ahead.begin(third)  # another worker has taken the second over
        assert content_of(brought) == first.key
        assert len(list(tmp_path.iterdir())) == 2, "one in hand and one ahead"
        ahead.begin(first)
        assert len(list(tmp_path.iterdir())) == 1, "what is in hand is not fetched once more"
    with ahead.taken(second) as brought:
        assert brought is None
    assert list(tmp_path.iterdir()) == []


def test_many_videos_one_after_another_all_come(tmp_path: Path) -> None:
    """As the pool does it, with the next one asked for in another thread than the one that takes."""
    videos = stored(40)
    ahead = FetchedAhead(settings_of(tmp_path))
    ahead.begin(videos[0])
    with ThreadPoolExecutor(1) as control:
        for video, following in itertools.pairwise(videos):
            ahead.want(video)
            asked = control.submit(ahead.begin, following)
            with ahead.taken(video) as brought:
                assert content_of(brought) == video.key
            asked.result()
            assert len(list(tmp_path.iterdir())) == 1
