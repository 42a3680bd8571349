"""The command line: what is quick, what goes where, and the exit codes that need no run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib import metadata

import pytest
from typer.testing import CliRunner

import rts_batch
from rts_batch.cli.app import app
from tests.support import help_texts
from tests.support.places import REPOSITORY
from tests.support.running import finish, start


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


def test_every_help_is_the_one_that_was_agreed_on() -> None:
    pinned = re.search(r"^typer==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    if metadata.version("typer") != pinned[1]:
        pytest.skip("another typer than the pinned one words its part of the help in another way")
    expected = help_texts.FILE.read_text(encoding="utf-8").split("\n$ ")
    now = help_texts.help_texts().split("\n$ ")
    for one, other in zip(now, expected, strict=False):
        assert one == other, "if it is meant: python -m tests.support.help_texts, and commit the file with its change"
    assert len(now) == len(expected), "python -m tests.support.help_texts"


def test_the_help_of_a_command_is_in_sections() -> None:
    answer = CliRunner().invoke(app, ["submit", "--help"], env={"COLUMNS": "80"})
    sections = [line for line in answer.output.splitlines() if re.fullmatch(r"[A-Z][\w ]+:", line)]
    assert sections[:2] == ["Arguments:", "Options:"]
    assert {"Tracking:", "Workers:", "Videos:", "How much of it:", "What is said:"} <= set(sections)


@pytest.mark.parametrize(
    ("line", "found"),
    [("rts-batch sub", {"submit"}), ("rts-batch weights im", {"import"}), ("rts-batch submit --devi", {"--device"})],
)
def test_a_shell_completes(line: str, found: set[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_RTS_BATCH_COMPLETE": "complete_bash"}
    outcome = finish(start(program=("-c", "from rts_batch.cli.app import main; main()"), **words))
    assert set(outcome.out.split()) == found


def test_python_dash_m_is_the_command() -> None:
    command = [sys.executable, "-m", "rts_batch", "--version"]
    outcome = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert rts_batch.__version__ in outcome.stdout
