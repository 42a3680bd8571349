"""Environments for libraries that ask for other versions of what we use, or whose licence keeps them apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def environment_with(folder: Path, *requirements: str) -> Path:
    """Makes an environment with these packages in `folder` and returns its Python; skips the test where it cannot."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "pip", "install", "--quiet", *requirements]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{', '.join(requirements)} cannot be installed here: {installed.stderr[-300:]}")
    return folder / "bin" / "python"
