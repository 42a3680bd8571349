"""The command line: what is quick, what goes where, and the exit codes that need no run."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import rts_batch
from rts_batch.cli.app import app
from tests.support.places import REPOSITORY


def test_help_needs_no_heavy_import() -> None:
    script = (
        "import sys; from rts_batch.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'cv2', 'pyarrow', 'numpy', 'fsspec', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "submit" in outcome.stdout
    assert "validate" in outcome.stdout
    assert "weights" in outcome.stdout


@pytest.mark.long
def test_help_starts_as_fast_as_python_allows() -> None:
    def seconds(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, check=True)
        return time.perf_counter() - started

    ours = min(seconds("-m", "rts_batch.cli", "--help") for _ in range(3))
    torch = min(seconds("-c", "import torch") for _ in range(2))
    assert ours < torch / 2


def test_version() -> None:
    outcome = CliRunner().invoke(app, ["--version"])
    assert (outcome.exit_code, outcome.stdout) == (0, f"rts-batch {rts_batch.__version__}\n")


def test_the_weights_commands_are_there() -> None:
    outcome = CliRunner().invoke(app, ["weights", "inspect", "no-such-file"])
    assert outcome.exit_code == 12
    assert "no-such-file" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "m.csv"],
        ["submit", "m.csv", "--out", "run", "--workers", "0"],
        ["submit", "m.csv", "--out", "run", "--decoder", "cv2"],
        ["submit", "m.csv", "--out", "run", "--no-such-option"],
        ["no-such-command"],
    ],
)
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert "Error" in outcome.stderr


def test_the_help_fits_one_screen_and_h_is_short_for_it() -> None:
    outcomes = [CliRunner().invoke(app, [option], env={"COLUMNS": "80"}) for option in ("--help", "-h")]
    assert outcomes[0].output == outcomes[1].output
    lines = outcomes[0].output.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_python_dash_m_is_the_command() -> None:
    command = [sys.executable, "-m", "rts_batch", "--version"]
    outcome = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert rts_batch.__version__ in outcome.stdout
