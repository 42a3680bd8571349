"""Runs the real command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.places import REPOSITORY

COMMAND = ("-m", "rts_batch.cli")
"""What Python is given to be `rts-batch`."""

STUB = ("--tracker", "tests.support.stub_tracker:Stub")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; anything else on it fails the test."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        (found,) = [event for event in self.events() if event["event"] == "summary"]
        return found


def start(*arguments: object, program: Sequence[str] = COMMAND, **environment: str) -> subprocess.Popen[str]:
    """Starts `rts-batch` as the leader of a process group, as a shell would."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **environment},
    )


def finish(process: subprocess.Popen[str], timeout: float = 240) -> Outcome:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the command did not end within {timeout} s\n{out}\n{err}") from None
    return Outcome(process.returncode, out, err)


def run(*arguments: object) -> Outcome:
    return finish(start(*arguments))


def wait_until(
    condition: Callable[[], object], timeout: float = 90, *, process: subprocess.Popen[str] | None = None
) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.poll() is None, process.communicate() if process else ""
        time.sleep(0.05)


def masks_of(out: Path) -> dict[str, bytes]:
    """Every file whose bytes must not depend on what happened to the run."""
    files = [out / "manifest.parquet", *sorted((out / "masks").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows))
    return path


def done(out: Path) -> Sequence[Path]:
    return sorted((out / "masks").glob("*.parquet"))
