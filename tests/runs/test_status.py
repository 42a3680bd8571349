"""Where a run stands, and asking it to stop, from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Shard
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
    with Lease(one.paths.lease), Lease(two.paths.lease):
        assert [submission.shard for submission in ask_to_stop(out, now=True)] == ["1-of-2", "2-of-2"]
    assert (one.asked_to_stop(), two.asked_to_stop()) == ("now", "now")
    two.prepare(manifest, RECORD)  # the next submission is not meant
    assert (one.asked_to_stop(), two.asked_to_stop()) == ("now", "no")
    with Lease(one.paths.lease):
        ask_to_stop(out, now=False)
    assert one.asked_to_stop() == "finish"
