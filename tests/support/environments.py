"""Environments for libraries that ask for other versions of what we use, or whose licence keeps them apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def environment_with(folder: Path, *requirements: str, beside_ours: bool = False) -> Path:
    """Makes an environment with these packages in `folder` and returns its Python; skips the test where it cannot.

    With `beside_ours` it sees our packages, PyTorch among them, and gets these without what they ask for.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    alone = ("--no-deps",) if beside_ours else ()
    install = [folder / "bin" / "pip", "install", "--quiet", *alone, *requirements]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{', '.join(requirements)} cannot be installed here: {installed.stderr[-300:]}")
    if beside_ours:
        packages = next((folder / "lib").glob("python*/site-packages"))
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "ours.pth").write_text("".join(f"{path}\n" for path in ours))
    return folder / "bin" / "python"
