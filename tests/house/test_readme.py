"""What the documents show must be what there is: commands, options, make targets, links, exit codes, code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

import rts_batch.errors
from rts_batch.cli.app import app
from rts_batch.io.results.schema import RESULT_COLUMNS
from rts_batch.manifest import read_manifest
from tests.support.places import REPOSITORY

README = REPOSITORY / "README.md"
RUNNING = REPOSITORY / "docs" / "running.md"
TRAIN_JOB_OPTIONS = {"--workers", "--gpu", "--cpus-per-worker"}
DOCUMENTS = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]


def all_commands() -> dict[tuple[str, ...], set[str]]:
    """The options of every command, by its words: `("weights", "import")` for example."""
    found: dict[tuple[str, ...], set[str]] = {}

    def collect(command: Any, words: tuple[str, ...]) -> None:
        found[words] = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for name, inner in getattr(command, "commands", {}).items():
            collect(inner, (*words, name))

    collect(typer.main.get_command(app), ())
    return found


COMMANDS = all_commands()


def commands(text: str) -> list[list[str]]:
    """Every `rts-batch …` of a document, in blocks and in running text."""
    blocks = re.findall(r"^(?:\$ )?(rts-batch .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in [*blocks, *re.findall(r"`(rts-batch [^`]*)`", text)]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_shown_exists_with_its_options(document: Path) -> None:
    for _, *words in commands(document.read_text()):
        names = (
            ()
            if words[0].startswith("-")
            else tuple(words[: 2 if words[0] in ("weights", "evaluate", "manifest") else 1])
        )
        options = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options <= COMMANDS[names], f"{document.name}: rts-batch {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_named_in_the_text_exists(document: Path) -> None:
    known = set.union(*COMMANDS.values(), TRAIN_JOB_OPTIONS, {"--working-dir"})
    assert set(re.findall(r"`(--[a-z-]+)", document.read_text())) <= known


def test_the_documents_name_every_option_of_submit() -> None:
    group = typer.main.get_command(app)
    shown = {
        name
        for parameter in group.commands["submit"].params  # type: ignore[attr-defined]
        if not getattr(parameter, "hidden", False)
        for name in parameter.opts
        if name.startswith("--")
    }
    text = README.read_text() + RUNNING.read_text()
    assert {name for name in shown if f"`{name}" not in text and f" {name} " not in text} == set()


def test_every_command_is_in_the_readme() -> None:
    group = typer.main.get_command(app)
    text = README.read_text()
    for name in group.commands:  # type: ignore[attr-defined]
        assert f"`rts-batch {name} " in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    named = set(re.findall(r"\((docs/[\w./-]+\.md)\)", README.read_text()))
    assert named >= {f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")}


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", README.read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for target in re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE):
        assert re.search(rf"^\.PHONY:.*\b{target}\b", makefile, flags=re.MULTILINE), target


def test_exit_codes_are_all_there() -> None:
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", README.read_text(), flags=re.MULTILINE)}
    classes = [value for value in vars(rts_batch.errors).values() if hasattr(value, "exit_code")]
    fixed = {value for name, value in vars(rts_batch.errors).items() if name.startswith("EXIT_")}
    assert shown == {value.exit_code for value in classes} | fixed


def test_the_example_manifest_is_the_one_shown() -> None:
    content = (REPOSITORY / "examples" / "demo.csv").read_text()
    assert f"$ cat examples/demo.csv\n{content}$ " in README.read_text()
    tasks = read_manifest(str(REPOSITORY / "examples" / "demo.csv")).tasks
    for task in tasks:
        assert f"{task.key}.parquet" in README.read_text()
        mask = task.targets[0].prompts[0].mask_uri
        assert mask is not None
        assert Path(mask).exists()


def test_the_manifest_of_the_readme_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```csv\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "manifest.csv").write_text(block)
    assert [len(task.targets) for task in read_manifest(str(tmp_path / "manifest.csv")).tasks] == [2, 1]


def test_the_columns_of_the_masks_table_are_all_named() -> None:
    assert "`, `".join(RESULT_COLUMNS) in re.sub(r"\s+", " ", RUNNING.read_text())


def test_the_python_of_the_readme_compiles_and_its_imports_exist() -> None:
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL):
        compile(block, "README.md", "exec")
        exec("\n".join(line for line in block.splitlines() if line.startswith("from ")), {})


def test_the_code_of_the_style_page_is_the_repositorys() -> None:
    style = (REPOSITORY / "docs" / "development.md").read_text().partition("## Style")[2]
    quotes = re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", style, flags=re.DOTALL)
    assert len(quotes) == style.count("```python") > 4
    for path, code in quotes:
        assert code in (REPOSITORY / path).read_text(), f"{path} no longer has this:\n{code}"
