"""Planning, watching and stopping a run, as far as no Ray is needed."""

from __future__ import annotations

import json
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rts_batch.actors.cluster import _within
from rts_batch.actors.job import submit_job
from rts_batch.actors.submit import refuse_other_divisions
from rts_batch.cli.app import app
from rts_batch.errors import ClusterError, RunBusyError, SettingsError, UsageError
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope, Shard
from rts_batch.runs.status import ask_to_stop, read_status
from tests.support.running import STUB, write_manifest

RECORD = RunRecord(results={"weights": "abc"}, environment={}, settings=RunSettings().to_dict())


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(str(many(tmp_path, 40)))


def many(folder: Path, count: int) -> Path:
    rows = [{"video": f"{number}.mp4", "box": [1, 2, 3, 4], "frames": 10} for number in range(count)]
    return write_manifest(folder / "manifest.jsonl", rows)


def keys(tasks: Any) -> set[str]:
    return {task.key for task in tasks}


def finish(folder: RunFolder, key: str) -> None:
    files.put_bytes(uris.join(folder.uri, "masks", f"{key}.parquet"), b"masks")


def fail(folder: RunFolder, key: str) -> None:
    files.put_bytes(uris.join(folder.uri, "failed", f"{key}.json"), b"{}")


def test_shards_divide_the_videos_and_a_growing_manifest_moves_none(manifest: Manifest, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    shards = [Shard.parse(f"{index}/3") for index in (1, 2, 3)]
    parts = [keys(RunFolder(out, shard).look(manifest, RECORD, Scope(shard=shard)).left) for shard in shards]
    assert set.union(*parts) == keys(manifest.tasks)
    assert sum(map(len, parts)) == len(manifest.tasks)
    assert min(map(len, parts)) > 5
    longer = read_manifest(str(many(tmp_path, 60)))
    for shard, part in zip(shards, parts, strict=True):
        assert part <= keys(RunFolder(out, shard).look(longer, RECORD).left)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3"])
def test_a_shard_that_makes_no_sense(text: str) -> None:
    with pytest.raises(SettingsError, match="shard"):
        Shard.parse(text)


def test_a_limit_and_the_failed_ones_only(manifest: Manifest, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    first, second, third, *_ = (task.key for task in manifest.tasks)
    folder.prepare(manifest, RECORD)
    finish(folder, first)
    fail(folder, first)  # stale: masks win
    fail(folder, third)
    assert [task.key for task in folder.look(manifest, RECORD, Scope(limit=2)).left] == [second, third]
    plan = folder.look(manifest, RECORD, Scope(only_failed=True))
    assert ([task.key for task in plan.left], plan.done, plan.videos) == ([third], 1, 40)


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


@pytest.mark.parametrize(
    ("held", "shard", "refused"),
    [
        ("lease-1-of-2.json", None, True),
        ("lease-1-of-2.json", "1/3", True),
        ("lease-1-of-2.json", "1/2", True),
        ("lease-1-of-2.json", "2/2", False),
        ("lease.json", "2/2", True),
    ],
)
def test_divisions_of_a_run_do_not_mix(
    manifest: Manifest, tmp_path: Path, held: str, shard: str | None, refused: bool
) -> None:
    out = tmp_path / "run"
    scope = Scope(shard=Shard.parse(shard) if shard else None)
    folder = RunFolder(str(out), scope.shard)

    def take_it() -> None:
        with Lease(folder.paths.lease):
            refuse_other_divisions(folder)

    with Lease(str(out / held)):
        if refused:
            with pytest.raises(RunBusyError, match="which is alive"):
                take_it()
        else:
            take_it()
    take_it()


def test_a_plan_writes_nothing_and_counts(tmp_path: Path) -> None:
    path = many(tmp_path, 40)
    out = tmp_path / "run"
    for command in (["plan", str(path)], ["submit", str(path), "--dry-run"]):
        outcome = CliRunner().invoke(app, [*command, "--out", str(out), "--limit", "7", "--json", *STUB])
        assert outcome.exit_code == 0, outcome.output
        content = json.loads(outcome.stdout)
        assert (content["event"], content["to_do"], content["videos"], content["targets"]) == ("plan", 7, 40, 7)
        assert (content["estimated_frames"], content["videos_of_unknown_length"]) == (70, 0)
    assert "40 to do, 0 of 40 done" in CliRunner().invoke(app, [*command, "--out", str(out), *STUB]).stdout
    assert not out.exists()


def test_a_folder_that_does_not_say_how_it_was_begun_cannot_be_resumed(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["resume", str(tmp_path)])
    assert outcome.exit_code == 11
    assert CliRunner().invoke(app, ["retry", str(tmp_path)]).exit_code == 2


def test_settings_survive_the_folder() -> None:
    settings = RunSettings(workers=3, resources={"spot": 0.5}, tracker_options={"rules": "paper"}, stall_timeout=9)
    written = json.loads(RunRecord(results={}, environment={}, settings=settings.to_dict()).to_json())["settings"]
    assert RunSettings.from_dict(written | {"of_a_later_version": 1}) == settings


def test_a_cluster_that_never_answers_is_waited_for_only_so_long() -> None:
    forever = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        _within(0.05, lambda: wait_for(forever))
    with pytest.raises(ConnectionError, match="refused"):
        _within(60, fail_to_connect)
    _within(60, lambda: None)


def wait_for(event: threading.Event) -> None:
    event.wait(60)


def fail_to_connect() -> None:
    raise ConnectionError("refused")


def test_a_job_runs_these_words_on_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, address: str | None) -> None:
            sent["address"] = address

        def submit_job(self, **job: Any) -> str:
            sent.update(job)
            return "job"

    sent: dict[str, Any] = {}
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    words = ["--out=s3://bucket/a run", "--limit=3", "--", "/here/m.csv"]
    assert submit_job(words, address="http://head:8265") == "job"
    assert (shlex.split(sent["entrypoint"]), sent["address"]) == (["python", "track.py", *words], "http://head:8265")
    assert Path(sent["runtime_env"]["working_dir"], "track.py").is_file()


def test_a_cluster_that_has_just_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, address: str | None) -> None: ...

        def submit_job(self, **job: Any) -> str:
            if left.pop(0):
                raise RuntimeError("Request failed with status code 500: No available agent to submit job")
            return "job"

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setattr("rts_batch.actors.job.time.sleep", lambda seconds: None)
    left = [True, True, False]
    assert submit_job(["m.csv"], address="http://head:8265") == "job"
    monkeypatch.setattr("rts_batch.actors.job.CONNECT_SECONDS", -1)
    left = [True, False]
    with pytest.raises(ClusterError, match="among Ray's logs on the head says why"):
        submit_job(["m.csv"], address="http://head:8265")
    assert left == [False]


def test_detaching_needs_a_cluster() -> None:
    with pytest.raises(UsageError, match="--detach needs a cluster"):
        submit_job(["m.csv"], address="local")
