"""What `validate --deep` says of a video's prompts, which a run would say when it tracks them."""

from __future__ import annotations

from pathlib import Path

from rts_batch.manifest import read_manifest
from rts_batch.worker.precheck import check_videos
from tests.support.running import write_manifest
from tests.support.videos import make_video


def test_masks_that_share_pixels_are_told_without_a_tracker(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 4)
    rows = [
        {"video": "a.mp4", "frame": 2, "polygon": "20 20 70 20 70 70 20 70"},
        {"video": "a.mp4", "frame": 2, "polygon": "60 30 80 30 80 40 60 40", "object_id": 2},
    ]
    tasks = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows))).tasks
    (found,) = check_videos(tasks, processes=1)
    assert found.problem is None
    assert found.warnings == ("frame 2: 100 pixels of object 1's mask are left to smaller targets on top of it",)
    (found,) = check_videos(tasks, processes=1, overlap="allow")
    assert found.warnings == ()
