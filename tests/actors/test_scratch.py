"""Whose folder is whose among the temporary files that runs, users and containers share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rts_batch.actors import scratch
from rts_batch.actors.scratch import scratch_folder
from rts_batch.errors import ClusterError, RunBusyError
from tests.support.places import REPOSITORY

HOLD = """
import sys, time
from rts_batch.actors.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "work").write_text("under way")
    print(folder, flush=True)
    {then}
"""
IN_ANOTHER_NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that several share; short, as Ray needs it."""
    folder = Path("/tmp") / f"t-{os.getpid()}"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def start(shared: Path, *before: str, then: str = "time.sleep(60)") -> tuple[subprocess.Popen[str], Path]:
    command = [*before, sys.executable, "-c", HOLD.format(then=then)]
    environment = {**os.environ, "TMPDIR": str(shared), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    for child in psutil.Process(process.pid).children():
        child.kill()
        child.wait(90)
    process.kill()
    process.wait(90)


def needs_namespaces() -> None:
    if not shutil.which("unshare") or subprocess.run([*IN_ANOTHER_NAMESPACE, "true"], check=False).returncode:
        pytest.skip("no process namespace can be made here")


def test_the_folder_of_a_live_run_stays(shared: Path) -> None:
    process, theirs = start(shared)
    with scratch_folder() as ours:
        assert ours != theirs
        assert (theirs / "work").read_text() == "under way"
    assert not ours.exists()
    kill(process)


@pytest.mark.parametrize("who", ["the live one", "the other"])
def test_the_folder_of_a_live_run_stays_across_process_namespaces(shared: Path, who: str) -> None:
    """Two containers with one /tmp: in each the process ids of the other mean nothing, or another process."""
    needs_namespaces()
    live, other = (IN_ANOTHER_NAMESPACE, ()) if who == "the live one" else ((), IN_ANOTHER_NAMESPACE)
    process, theirs = start(shared, *live)
    try:
        second, _ = start(shared, *other, then="pass")
        assert second.wait(90) == 0
        assert (theirs / "work").read_text() == "under way"
    finally:
        kill(process)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_what_a_killed_run_left_is_removed(shared: Path, where: str) -> None:
    if where == "elsewhere":
        needs_namespaces()
    process, theirs = start(shared, *(IN_ANOTHER_NAMESPACE if where == "elsewhere" else ()))
    kill(process)
    assert (theirs / "work").exists()
    with scratch_folder():
        assert not theirs.exists()


def test_no_child_holds_the_lock_of_a_killed_run(shared: Path) -> None:
    then = "import os, signal, subprocess; subprocess.Popen(['sleep', '20']); os.kill(os.getpid(), signal.SIGKILL)"
    process, theirs = start(shared, then=then)
    assert process.wait(90) == -signal.SIGKILL
    with scratch_folder():
        assert not theirs.exists()


@pytest.mark.parametrize(
    ("owner", "stays"),
    [
        ({"host": "here", "boot": "now"}, False),
        ({"host": "here", "boot": "before"}, False),
        ({"host": "container", "boot": "now"}, False),
        ({"host": "elsewhere", "boot": "theirs"}, True),
        ({"host": "elsewhere", "boot": ""}, True),
        ([], True),
        (None, True),
    ],
)
def test_only_a_lock_that_would_be_seen_here_decides(
    shared: Path, monkeypatch: pytest.MonkeyPatch, owner: object, stays: bool
) -> None:
    """On a network file system another machine's lock may not be seen; its run's folder is left alone."""
    monkeypatch.setattr(scratch, "_here", lambda: {"host": "here", "boot": "now"})
    left = shared / "rtsb-1-abc"
    left.mkdir()
    (left / "lock").write_text("" if owner is None else json.dumps(owner))
    with scratch_folder():
        assert left.exists() is stays


def test_what_has_no_lock_is_nobodys_to_remove(shared: Path) -> None:
    """A run that is just making its folder, or something else of that name."""
    (shared / f"rtsb-{2**22 + 1}-abc").mkdir()
    (shared / "rtsb-link").symlink_to("/")
    (shared / "rtsb-file").write_text("")
    with scratch_folder():
        assert len(list(shared.iterdir())) == 4
    assert len(list(shared.iterdir())) == 3


def test_logs_that_an_error_names_stay_until_the_next_run(shared: Path) -> None:
    with pytest.raises(ClusterError), scratch_folder():
        raise ClusterError("see its logs")
    assert len(list(shared.iterdir())) == 1
    with pytest.raises(RunBusyError), scratch_folder():
        raise RunBusyError("busy")
    assert list(shared.iterdir()) == []
