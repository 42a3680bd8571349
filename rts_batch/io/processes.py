"""Python processes of ours import nothing from the folder that they are started in, nor from a user's script's.

There are the user's files, and a `random.py` or `queue.py` among them is not meant for us. But Python looks there
first: in the current folder with `-m` and `-c` (`-P` and PYTHONSAFEPATH, which keep it from that, came with 3.11), in a
script's own folder with a script, and in the current folder again where PYTHONPATH has an empty entry.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PACKAGE: Final = str(Path(__file__).resolve().parents[2])
"""The folder that holds `rts_batch`."""

_RUN: Final = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "  # before anything else is imported
    "import json, runpy; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


_LIBRARY: Final = os.path.dirname(os.__file__)
"""Of Python itself. What comes after it on the path was put there by an installation, and cannot stand for it."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as `python -m` does; to be started with `environment`."""
    return [sys.executable, "-c", _RUN, json.dumps(import_path()), module, *arguments]


def environment() -> dict[str, str]:
    """This process's environment, with a PYTHONPATH that has no empty entry, which would be the current folder."""
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folders = _python_path()
    return {**others, "PYTHONPATH": os.pathsep.join(folders)} if folders else others


def import_path() -> list[str]:
    """Where a process that this one starts looks for modules: where this one does, but among no user's files."""
    before, after = _divided_path()
    named = {os.path.abspath(folder) for folder in _python_path()}
    shunned = _users_folders() - named
    folders = [*(folder for folder in before if os.path.abspath(folder) not in shunned), *after]
    return folders if _PACKAGE in folders else [*folders, _PACKAGE]


@contextlib.contextmanager
def elsewhere(folder: str | Path = _LIBRARY) -> Iterator[None]:
    """Keep the Python processes that a library starts by itself from the user's files.

    For that moment another folder is the current one, and what `import_path` and `environment` say holds for this
    process itself. A package that is found by PYTHONPATH or the current folder alone stays to be found.

    Args:
        folder: in which the processes start, with no Python files of a user's.
    """
    here, path, python_path = _current_folder(), sys.path[:], os.environ.get("PYTHONPATH")
    before, after = _divided_path()
    found = _python_path()
    if _PACKAGE in before and _PACKAGE not in [*found, *after]:
        found.append(_PACKAGE)
    try:
        sys.path[:] = import_path()
        _set_python_path(os.pathsep.join(found) or None)
        os.chdir(folder)
        yield
    finally:
        if here is not None:
            os.chdir(here)
        _set_python_path(python_path)
        sys.path[:] = path


def _divided_path() -> tuple[list[str], list[str]]:
    """Where modules are looked for, before Python's own and after, without the entry that is the current folder."""
    folders = [folder for folder in sys.path if folder]
    place = folders.index(_LIBRARY) if _LIBRARY in folders else len(folders)
    return folders[:place], folders[place:]


def _users_folders() -> set[str]:
    """Where this process looks for modules only because it, or its script, happens to be there."""
    program = sys.modules.get("__main__")
    script = getattr(program, "__file__", None)
    is_script = script is not None and getattr(program, "__spec__", None) is None
    folders = [_current_folder(), os.path.dirname(os.path.abspath(script)) if script and is_script else None]
    return {name for folder in folders if folder is not None for name in (folder, os.path.realpath(folder))}


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it has been removed
        return None


def _python_path() -> list[str]:
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _set_python_path(value: str | None) -> None:
    if value is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = value
