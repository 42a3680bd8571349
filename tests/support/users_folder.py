"""A user's folder, in which files happen to be called as modules are; who imports one leaves its name there."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

LIBRARIES = (
    "aiohttp",
    "av",
    "click",
    "cv2",
    "decord",
    "fsspec",
    "numpy",
    "PIL",
    "pyarrow",
    "ray",
    "rich",
    "torch",
    "yaml",
)
MARK = "imported-"


def fill(folder: Path, *, names: tuple[str, ...] = ()) -> Path:
    """Makes the folder with such files: those named, or one for every module of Python's own and of some libraries."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or [name for name in (*sys.stdlib_module_names, *LIBRARIES) if _exists(name)]:
        mark = folder / f"{MARK}{name}"
        (folder / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'w').close()\nraise SystemError('a file of the user')\n"
        )
    return folder


def imported(folder: Path) -> list[str]:
    """What has been imported from there."""
    return sorted(path.name.removeprefix(MARK) for path in folder.glob(f"{MARK}*"))


@functools.cache
def _by_python() -> frozenset[str]:
    """What Python itself imports for `-m`, before the first line of the module is read."""
    program = "import runpy, importlib.util, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return frozenset(shown.split())


def _exists(name: str) -> bool:
    """Not what only other systems have, which a library may try to import in vain."""
    return name not in _by_python() and (name in sys.modules or importlib.util.find_spec(name) is not None)
