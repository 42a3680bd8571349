"""The house rules that a reader relies on: which folder imports which, how long a module may grow, what is public."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import rts_batch.errors

PACKAGE = Path(__file__).resolve().parents[2] / "rts_batch"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each folder must not import (the arrows of docs/design.md point one way).
FORBIDDEN = {
    "model": ("tracking", "io", "actors", "cli", "runs", "manifest"),
    "tracking": ("io", "actors", "cli", "runs", "manifest"),
    "io": ("model", "tracking", "actors", "cli", "runs"),
}


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_keeps_the_arrows(path: Path) -> None:
    folder = path.relative_to(PACKAGE).parts[0]
    for name in imported_modules(path):
        if folder != "actors":
            assert name.split(".")[0] != "ray", f"{path} imports ray; only rts_batch/actors may"
        for forbidden in FORBIDDEN.get(folder, ()):
            assert not name.startswith(f"rts_batch.{forbidden}"), f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 380, f"{path} has grown into two subjects"


def test_every_exception_is_public_and_has_an_exit_code() -> None:
    classes = {
        name: value
        for name, value in vars(rts_batch.errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert sorted(classes) == sorted(rts_batch.errors.__all__)
    for value in classes.values():
        assert issubclass(value, rts_batch.errors.RtsBatchError)
        assert value.exit_code in {1, 2, 10, 11, 12, 13}


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_benchmarks_find_what_they_import(path: Path) -> None:
    """No test runs them, so one that names what has moved would only be noticed by its user."""
    importlib.import_module(f"benchmarks.{path.stem}")
