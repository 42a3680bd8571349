"""The documents name files of the repository; a file that has moved must move there too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
ROOMS = {path.name for path in REPOSITORY.iterdir() if path.is_dir() and not path.name.startswith(".")}
INNER = {path.name for path in (REPOSITORY / "rts_batch").iterdir() if path.is_dir()}
MADE = ("build/", "demo/", "runs/")
"""Folders that a command makes."""


def named_paths(text: str) -> list[str]:
    """Paths in code spans that begin with a folder of the repository or of the package, or are modules."""
    found = []
    for span in CODE.findall(text):
        path = span.split("::")[0]
        if not PATH.fullmatch(path) or "/" not in path or path.startswith(MADE):
            continue
        first = path.split("/")[0]
        if first in ROOMS or (first in INNER and path.endswith((".py", "/"))):
            found.append(path)
    return found


def exists(path: str) -> bool:
    return any((folder / path).exists() for folder in (REPOSITORY, REPOSITORY / "rts_batch"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path) -> None:
    assert [path for path in named_paths(document.read_text()) if not exists(path)] == []


def test_a_file_that_has_moved_is_noticed() -> None:
    assert named_paths("see `io/video/opening.py`, `tests/gone/test_x.py::test` and `a/b`") == [
        "io/video/opening.py",
        "tests/gone/test_x.py",
    ]
    assert exists("io/video/opening.py")
    assert not exists("tests/gone/test_x.py")
