"""How long videos are, by what their containers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.manifest.lengths import expected_lengths
from rts_batch.worker.lengths import read_lengths
from tests.support.running import write_manifest
from tests.support.videos import make_images, make_video


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[VideoTask, ...]:
    make_video(tmp_path / "a.mp4", 40)
    make_video(tmp_path / "b.mp4", 24)
    make_images(tmp_path / "pictures", 3)
    (tmp_path / "no.mp4").write_bytes(bytes(20_000))
    rows = [
        {"video": "a.mp4"},
        {"video": "b.mp4", "start": 4, "end": 10, "frame": 4},
        {"video": "pictures"},
        {"video": "no.mp4"},
        {"video": "gone.mp4", "frames": 500},
    ]
    manifest = write_manifest(tmp_path / "m.jsonl", [{"box": [0, 0, 9, 9], **row} for row in rows])
    return read_manifest(str(manifest)).tasks


def test_containers_say_it(tasks: tuple[VideoTask, ...]) -> None:
    lengths = read_lengths(tasks)
    assert [lengths[task.key] for task in tasks[:3]] == [40, 6, 3]
    assert lengths[tasks[4].key] == 500
    assert lengths[tasks[3].key] > 0, "a guess, by its size"


def test_what_is_not_opened_is_guessed(tasks: tuple[VideoTask, ...]) -> None:
    assert read_lengths(tasks, seconds=0) == expected_lengths(tasks)
