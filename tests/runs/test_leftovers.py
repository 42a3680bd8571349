"""What submissions that were killed leave behind, and the next one removes."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import Scope, Shard
from tests.support.running import write_manifest

RECORD = RunRecord(results={"weights": "abc"}, environment={})


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}/run")


def manifest(tmp_path: Path, *names: str, height: int = 9) -> Manifest:
    rows = [{"video": name, "box": [1, 1, 9, height]} for name in names]
    return read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows)))


def leave_checkpoint(folder: RunFolder, key: str) -> None:
    files.put_bytes(uris.join(folder.paths.checkpoints(key), "000000007-1-a", "state.bin"), b"100 MB")


def finish(folder: RunFolder, key: str, **report: object) -> None:
    files.put_bytes(folder.paths.masks_file(key), b"masks")
    files.put_bytes(folder.paths.report(key), json.dumps(report).encode())


def test_checkpoints_of_rows_that_changed_before_they_were_done_go(folder: RunFolder, tmp_path: Path) -> None:
    first, second = (manifest(tmp_path, "a.mp4", "b.mp4", height=height) for height in (4, 5))
    folder.prepare(first, RECORD)
    for task in (*first.tasks, *second.tasks):
        leave_checkpoint(folder, task.key)
    RunFolder(folder.uri, Shard(index=1, count=2)).prepare(second, RECORD)
    assert len(folder.checkpointed()) == 4, "another shard may be at work"
    folder.prepare(second, RECORD)
    assert folder.checkpointed() == {task.key for task in second.tasks}


def test_checkpoints_of_a_video_that_is_done_go_unless_they_were_to_stay(folder: RunFolder, tmp_path: Path) -> None:
    """The driver was killed between the end of the video and theirs."""
    videos = manifest(tmp_path, "done.mp4", "kept.mp4", "unknown.mp4", "damaged.mp4", "under-way.mp4", "silent.mp4")
    done, kept, unknown, damaged, under_way, silent = (task.key for task in videos.tasks)
    folder.prepare(videos, RECORD)
    for key in (done, kept, unknown, damaged, under_way, silent):
        leave_checkpoint(folder, key)
    finish(folder, done, checkpoints_kept=False)
    finish(folder, kept, checkpoints_kept=True)
    finish(folder, unknown)  # an earlier version's
    finish(folder, damaged)
    files.put_bytes(folder.paths.report(damaged), b"{")
    files.put_bytes(folder.paths.masks_file(silent), b"masks")
    folder.prepare(videos, replace(RECORD, settings={"keep_checkpoints": True}))
    assert folder.checkpointed() == {task.key for task in videos.tasks}, "no report is read then"
    folder.prepare(videos, RECORD)
    assert folder.checkpointed() == {kept, unknown, damaged, under_way, silent}


def test_kept_checkpoints_stay_until_changed_rows_are_done(folder: RunFolder, tmp_path: Path) -> None:
    first, second = (manifest(tmp_path, "a.mp4", height=height) for height in (4, 5))
    folder.prepare(first, RECORD)
    finish(folder, first.tasks[0].key, video_id="a.mp4", checkpoints_kept=True)
    leave_checkpoint(folder, first.tasks[0].key)
    for _ in range(2):  # the second goes on after a kill
        folder.prepare(second, RECORD, Scope(redo_changed=True))
        assert folder.checkpointed() == {first.tasks[0].key}


@pytest.mark.parametrize(
    "name", ["masks/.a", "videos/.a", "failed/.a", ".manifest.parquet", ".status.json", ".lease.json"]
)
def test_what_is_half_written_goes(tmp_path: Path, name: str) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    videos = manifest(tmp_path, "a.mp4")
    folder.prepare(videos, RECORD)
    half = tmp_path / "run" / f"{name}.0123abcd.part"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    others = [tmp_path / "run" / other for other in ("film.mp4.part", ".film.mp4.0123abcd.part")]
    for other in others:
        other.write_bytes(b"a download of somebody's, who runs in this folder")
    folder.prepare(videos, RECORD)
    assert not half.exists()
    assert all(other.exists() for other in others)
