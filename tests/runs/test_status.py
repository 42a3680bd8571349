"""Where a run stands, and asking it to stop, from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.errors import RunFolderError
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope, Shard
from rts_batch.runs.status import ask_to_stop, read_status
from tests.support.manifests import write_many

RECORD = RunRecord(results={"weights": "abc"}, environment={}, settings=RunSettings().to_dict())


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(str(write_many(tmp_path, 40)))


def finish(folder: RunFolder, key: str) -> None:
    files.put_bytes(uris.join(folder.uri, "masks", f"{key}.parquet"), b"masks")


def fail(folder: RunFolder, key: str) -> None:
    files.put_bytes(uris.join(folder.uri, "failed", f"{key}.json"), b"{}")


def test_status_comes_from_the_folder_alone(manifest: Manifest, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    first, _, third, *_ = (task.key for task in manifest.tasks)
    folder.prepare(manifest, RECORD)
    finish(folder, first)
    fail(folder, first)
    fail(folder, third)
    folder.put_status({"frames_per_second": 7.5, "written": "then", "videos_running": []})
    found = read_status(folder.uri)
    assert (found.videos, found.done, found.failed, found.is_running) == (40, 1, 1, False)
    with Lease(folder.paths.lease):
        outcome = CliRunner().invoke(app, ["status", folder.uri])
        assert outcome.exit_code == 0
        assert "1 of 40 done, 1 failed, 38 left" in outcome.stdout
        assert "running (process" in outcome.stdout
        assert "7.5 frames/s" in outcome.stdout
        (shown,) = json.loads(CliRunner().invoke(app, ["status", folder.uri, "--json"]).stdout)["submissions"]
        assert (shown["holder"], shown["shard"]) == ("alive", None)
    outcome = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert outcome.exit_code == 11
    assert "no run.json" in outcome.stderr


def test_cancel_reaches_every_submission_that_is_at_work(manifest: Manifest, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    one, two = RunFolder(out, Shard.parse("1/2")), RunFolder(out, Shard.parse("2/2"))
    one.prepare(manifest, RECORD)
    two.prepare(manifest, RECORD)
    assert ask_to_stop(out, now=False) == []
    with Lease(one.paths.lease) as first, Lease(two.paths.lease) as second:
        assert [submission.shard for submission in ask_to_stop(out, now=True)] == ["1-of-2", "2-of-2"]
        assert (one.asked_to_stop(first.token), two.asked_to_stop(second.token)) == ("now", "now")
    with Lease(one.paths.lease) as first:
        assert one.asked_to_stop(first.token) == "no", "the submission before was meant"
        ask_to_stop(out, now=False)
        one.prepare(manifest, RECORD)
        assert one.asked_to_stop(first.token) == "finish", "it was asked while it began"
    answer = CliRunner().invoke(app, ["cancel", "--now", out])
    assert (answer.exit_code, answer.stdout) == (0, f"{out}: nothing is running\n"), "nothing is said of videos in hand"
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        ask_to_stop(str(tmp_path), now=False)


def test_a_submission_is_known_before_it_has_made_the_folder_a_runs(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    with Lease(folder.paths.lease):
        found = read_status(folder.uri)
        assert (found.videos, found.is_running, found.is_known_to_run) == (0, True, True)
        assert len(ask_to_stop(folder.uri, now=True)) == 1


def test_a_video_that_is_done_again_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('video,box\na.mp4,"1,2,3,4"\nb.mp4,"1,2,3,4"\n')
    folder, first = RunFolder(str(tmp_path / "run")), read_manifest(str(tmp_path / "m.csv"))
    folder.prepare(first, RECORD)
    for task in first.tasks:
        (tmp_path / "masks").write_bytes(b"masks")
        folder.commit(task, tmp_path / "masks", {"video_id": task.video_id})
    (tmp_path / "m.csv").write_text('video,box\na.mp4,"1,2,3,9"\nb.mp4,"1,2,3,4"\n')
    second = read_manifest(str(tmp_path / "m.csv"))
    folder.prepare(second, RECORD, Scope(redo_changed=True))
    assert (read_status(folder.uri).done, read_status(folder.uri).failed) == (1, 0)
    fail(folder, second.tasks[0].key)
    found = read_status(folder.uri).to_dict()
    assert (found["done"], found["failed"], found["left"]) == (1, 1, 0)


def test_who_follows_a_run_elsewhere_is_told_that_it_died(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    folder.prepare(manifest, RECORD)
    files.put_bytes(folder.paths.lease, json.dumps({"host": "far", "pid": 7, "token": "theirs", "beat": 0}).encode())
    monkeypatch.setattr("rts_batch.runs.lease.SILENT_SECONDS", 0.05)
    monkeypatch.setattr("rts_batch.cli.status.FOLLOW_SECONDS", 0.02)
    outcome = CliRunner().invoke(app, ["status", folder.uri, "--follow"])
    assert outcome.exit_code == 0
    assert "its process has died; rts-batch resume goes on" in outcome.stderr


def test_damaged_files_are_named_and_do_not_keep_a_run_from_being_cancelled(manifest: Manifest, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    folder.prepare(manifest, RECORD)
    files.put_bytes(folder.paths.status, b'{"frames')
    assert read_status(folder.uri).submissions[0].status == {}
    files.put_bytes(folder.paths.manifest, b"PAR1")
    with pytest.raises(RunFolderError, match=r"manifest\.parquet is damaged"):
        read_status(folder.uri)
    content = bytearray(manifest.to_parquet())
    content[content.index(b"ARROW:schema") + 12] ^= 1  # one bit, which Arrow tells as an OSError
    files.put_bytes(folder.paths.manifest, bytes(content))
    with pytest.raises(RunFolderError, match=r"manifest\.parquet is damaged"):
        read_status(folder.uri)
    with Lease(folder.paths.lease):
        assert len(ask_to_stop(folder.uri, now=True)) == 1
    files.put_bytes(folder.paths.replaced, b"[]")
    with pytest.raises(RunFolderError, match=r"replaced\.json is damaged: it holds no JSON object"):
        folder.done()
