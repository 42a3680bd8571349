"""What `validate --deep` says of a video's prompts, which a run would say when it tracks them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from rts_batch.io.storage import files
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


def test_a_video_from_a_store_is_called_by_its_address() -> None:
    """It was called by its copy among the temporary files, which is gone when the message is read."""
    folder = f"memory://{uuid.uuid4().hex}"
    for name, content in {"a.mp4": b"no video", "b/0.png": b"no picture"}.items():
        files.put_bytes(f"{folder}/{name}", content)
    rows = [{"video": "a.mp4", "box": [1, 2, 30, 40]}, {"video": "b", "box": [1, 2, 30, 40]}]
    files.put_bytes(f"{folder}/m.jsonl", "\n".join(map(json.dumps, rows)).encode())
    problems = [found.problem for found in check_videos(read_manifest(f"{folder}/m.jsonl").tasks, processes=1)]
    assert problems[0] is not None
    assert problems[0].startswith(f"{folder}/a.mp4 is not a video that can be read")
    assert problems[1] is not None
    assert problems[1].startswith(f"{folder}/b/0.png is not an image that can be decoded")
