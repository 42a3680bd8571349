"""Triton kernels under Triton's interpreter, which is chosen when Triton is imported: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest


def interpreted(module: str, *arguments: str) -> None:
    """Run a module of the tests with the interpreter, and fail with what it says if it fails."""
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def few_programs(rounds: Any) -> None:
    """Have `kernels.rounds` launch few and large ones, as each takes its time; two still share an image's tiles."""
    rounds.PROGRAMS, rounds.BLOCK, rounds.COPIED, rounds.CELLS = 2, 1 << 14, 1 << 13, 8
