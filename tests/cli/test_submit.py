"""Submitting, planning and going on with a run, as far as no Ray is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rts_batch.actors.prepare import prepare
from rts_batch.cli.app import app
from rts_batch.cli.submission import Submission
from rts_batch.manifest import read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings
from tests.support.manifests import write_many
from tests.support.running import STUB


def test_a_plan_writes_nothing_and_counts(tmp_path: Path) -> None:
    path = write_many(tmp_path, 40)
    out = tmp_path / "run"
    for command in (["plan", str(path)], ["submit", str(path), "--dry-run"]):
        outcome = CliRunner().invoke(app, [*command, "--out", str(out), "--limit", "7", "--json", *STUB])
        assert outcome.exit_code == 0, outcome.output
        content = json.loads(outcome.stdout)
        assert (content["event"], content["to_do"], content["videos"], content["targets"]) == ("plan", 7, 40, 7)
        assert (content["lanes"], content["cpus_per_worker"]) == (1, 1)
        assert (content["estimated_frames"], content["videos_of_unknown_length"]) == (70, 0)
    assert "40 to do, 0 of 40 done" in CliRunner().invoke(app, [*command, "--out", str(out), *STUB]).stdout
    assert not out.exists()


def test_a_folder_that_does_not_say_how_it_was_begun_cannot_be_resumed(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["resume", str(tmp_path)])
    assert outcome.exit_code == 11
    assert CliRunner().invoke(app, ["retry", str(tmp_path)]).exit_code == 2


@pytest.mark.long
def test_a_plan_knows_the_settings_that_the_run_was_begun_with(tmp_path: Path) -> None:
    path, out = write_many(tmp_path, 3), str(tmp_path / "run")
    settings = RunSettings(tracker_options={"rules": "paper"}, device="cpu")
    begun = prepare(read_manifest(str(path)), out, settings)
    begun.folder.prepare(begun.manifest, begun.record)
    outcome = CliRunner().invoke(app, ["plan", str(path), "--out", out, "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["to_do"] == 3


def test_fewer_workers_than_were_kept_when_the_run_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    settings = RunSettings(workers=8, min_workers=4, tracker=STUB[1])
    record = RunRecord(results={"weights": "abc"}, environment={}, settings=settings.to_dict())
    folder.prepare(read_manifest(str(write_many(tmp_path, 3))), record)
    seen: list[Submission] = []
    monkeypatch.setattr(Submission, "run", lambda self, again: seen.append(self))
    outcome = CliRunner().invoke(app, ["resume", folder.uri, "--workers", "2"])
    assert outcome.exit_code == 0, outcome.output
    assert (seen[0].settings.workers, seen[0].settings.min_workers) == (2, 2)


MANIFEST = 'video,box\na.mp4,"1,2,3,4"\n'


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--not-found-threshold", "-1"], 10, "not_found_threshold is -1"),
        (["--gpus-per-worker", "1.5"], 10, "GPUs per worker is 1.5"),
        (["--crop-size", "240"], 10, "--crop-size '240': expected height and width in pixels"),
        (["--tracker", "no.such:Thing"], 10, "cannot be imported"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, options: list[str], code: int, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(MANIFEST)
    outcome = CliRunner().invoke(app, ["submit", str(path), "--out", str(tmp_path / "run"), *STUB, *options])
    assert outcome.exit_code == code, outcome.output
    assert message in outcome.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--weights", "rts51"], 12, "rts51"),
        (["--weights", "rts-mini-untrained"], 10, "give a mask, or weights with an STA network"),
        (["--weights", "rts-mini-untrained", "--address", "auto"], 10, "--device auto looks at this machine"),
    ],
)
@pytest.mark.long
def test_weights_are_looked_at_before_anything_starts(
    tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_text(MANIFEST)
    outcome = CliRunner().invoke(app, ["submit", str(path), "--out", str(tmp_path / "run"), *options])
    assert outcome.exit_code == code, outcome.output
    assert message in outcome.stderr
    assert not (tmp_path / "run").exists()
