"""The help of every command; `python -m tests.support.help_texts` writes the file that the tests hold it against."""

from __future__ import annotations

from typing import Any

import typer.main
from typer.testing import CliRunner

from rts_batch.cli.app import app
from tests.support.places import REPOSITORY

FILE = REPOSITORY / "tests" / "support" / "fixtures" / "help.txt"


def help_texts() -> str:
    """What `--help` of the root, of every group and of every command prints on a terminal of 80 columns."""

    def of(command: Any, words: tuple[str, ...]) -> list[str]:
        # A name that no user types: the root command is called `root` by a test runner.
        answer = CliRunner().invoke(app, [*words, "--help"], prog_name="rts-batch", env={"COLUMNS": "80"})
        inner = [text for name, one in getattr(command, "commands", {}).items() for text in of(one, (*words, name))]
        return [f"$ {' '.join(('rts-batch', *words, '--help'))}\n{answer.output}", *inner]

    return "\n".join(of(typer.main.get_command(app), ()))


if __name__ == "__main__":
    FILE.write_text(help_texts(), encoding="utf-8")
