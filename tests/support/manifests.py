"""Videos to be done: without a manifest, or with one that names many."""

from __future__ import annotations

from pathlib import Path

from rts_batch.manifest import VideoTask
from tests.support.running import write_manifest


def tasks(count: int, scheme: str = "", frames: int = 1) -> list[VideoTask]:
    return [
        VideoTask(
            video_id=f"v{number}",
            uri=f"{scheme}v{number}",
            targets=(),
            start=0,
            end=None,
            direction="forward",
            frames=frames,
            digest="",
            key=f"v{number}",
        )
        for number in range(count)
    ]


def write_many(folder: Path, count: int) -> Path:
    """A manifest of so many videos, `0.mp4` and so on, of ten frames each."""
    rows = [{"video": f"{number}.mp4", "box": [1, 2, 3, 4], "frames": 10} for number in range(count)]
    return write_manifest(folder / "manifest.jsonl", rows)
