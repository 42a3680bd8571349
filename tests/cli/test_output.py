"""What every command prints in the same way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.cli.output import print_json
from tests.support.run_folders import Video, moving_squares, write_run


def test_errors_as_json(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('video,box\na.mp4,"1,2,3"\n')
    outcome = CliRunner().invoke(app, ["validate", str(path), "--json"])
    assert outcome.exit_code == 10
    content = json.loads(outcome.stdout)
    assert (content["event"], content["error"], content["exit_code"]) == ("error", "ManifestError", 10)
    assert len(content["problems"]) == 1
    assert "1 of 1 rows cannot be used" in outcome.stderr


def test_json_is_ascii_whatever_names_hold(capfd: pytest.CaptureFixture[str]) -> None:
    """A name that is no UTF-8 made a line that is no JSON, and a stream in ASCII a traceback."""
    print_json("probe", {"path": "caf\udce9 é.mp4"})
    printed = capfd.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["path"] == "caf\udce9 é.mp4"


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run", [Video("a", "/videos/a.mp4", moving_squares(5, 1), {1: "cat"})])
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in (["show", "run"], ["status", "run"], ["compact", str(tmp_path / "run"), "-o", str(tmp_path / "c")]):
        outcome = CliRunner().invoke(app, [*command, "--json"])
        assert outcome.exit_code == 2, (command, outcome.output)
        assert "error: the working folder no longer exists; cd elsewhere" in outcome.stderr
        assert json.loads(outcome.stdout)["error"] == "UsageError"
    assert CliRunner().invoke(app, ["show", str(tmp_path / "run")]).exit_code == 0
