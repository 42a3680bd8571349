"""Who may write into a run's folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from rts_batch.errors import RunBusyError
from rts_batch.io.storage import files
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease, _identity
from tests.support.running import wait_until


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}/run")


# The lease
def holder(**fields: Any) -> bytes:
    return json.dumps({**_identity(), "token": "theirs", "beat": 0, **fields}).encode()


def test_a_lease_is_there_while_it_is_held(folder: RunFolder) -> None:
    with Lease(folder.paths.lease) as lease:
        content = json.loads(files.read_bytes(folder.paths.lease))
        assert (content["pid"], content["host"]) == (os.getpid(), socket.gethostname())
        assert not lease.lost.is_set()
    assert not files.exists(folder.paths.lease)


def test_a_live_process_keeps_its_lease(folder: RunFolder) -> None:
    with Lease(folder.paths.lease):
        with pytest.raises(RunBusyError, match=f"process {os.getpid()} .*alive") as refused, Lease(folder.paths.lease):
            pass
        assert refused.value.exit_code == 11
        assert files.exists(folder.paths.lease)


def test_a_lease_is_renewed_after_any_trouble_with_its_file(folder: RunFolder) -> None:
    with Lease(folder.paths.lease, heartbeat=0.05) as lease:
        files.put_bytes(folder.paths.lease, b"nonsense")
        time.sleep(0.3)
        files.delete(folder.paths.lease)
        wait_until(lambda: files.exists(folder.paths.lease))
        assert json.loads(files.read_bytes(folder.paths.lease))["token"] == lease.token
        assert not lease.lost.is_set()


def test_a_folder_that_was_removed_does_not_come_back_with_its_lease(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    with Lease(folder.paths.lease, heartbeat=0.05):
        (tmp_path / "run").rename(tmp_path / "moved")
        time.sleep(0.3)
        assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


def test_the_lease_of_a_dead_process_is_taken_at_once(folder: RunFolder) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    files.put_bytes(folder.paths.lease, holder(pid=child.pid))
    assert seconds_to_take(folder) < 5


def test_a_process_id_that_was_given_again_does_not_hold_a_lease(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(started="12"))
    assert seconds_to_take(folder) < 5


def test_a_lease_from_before_a_reboot_is_taken_at_once(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(boot="another boot"))
    assert seconds_to_take(folder) < 5


def test_a_zombie_does_not_hold_a_lease(folder: RunFolder) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        stat = Path(f"/proc/{child.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        started = stat.read_text().rpartition(")")[2].split()[19]
        files.put_bytes(folder.paths.lease, holder(pid=child.pid, started=started))
        assert seconds_to_take(folder) < 5
    finally:
        child.wait()


def seconds_to_take(folder: RunFolder) -> float:
    begun = time.monotonic()
    with Lease(folder.paths.lease):
        return time.monotonic() - begun


@pytest.mark.long
def test_a_silent_lease_elsewhere_is_waited_for_and_said_so(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(host="elsewhere"))
    notes: list[str] = []
    begun = time.monotonic()
    with Lease(folder.paths.lease, note=notes.append, silent=1.5):
        assert time.monotonic() - begun >= 1.5
    assert len(notes) == 1
    assert "elsewhere" in notes[0]
    assert "2 s" in notes[0]


def test_a_lease_elsewhere_that_beats_is_refused(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, holder(host="elsewhere"))

    def beat(text: str) -> None:
        files.put_bytes(folder.paths.lease, holder(host="elsewhere", beat=1))

    with pytest.raises(RunBusyError, match="on elsewhere"), Lease(folder.paths.lease, note=beat, silent=30):
        pass


def test_a_holder_notices_that_its_lease_was_taken(folder: RunFolder) -> None:
    with Lease(folder.paths.lease, heartbeat=0.05) as lease:

        def taken() -> bool:
            # Once more where a heartbeat that had just looked wrote over it.
            files.put_bytes(folder.paths.lease, holder(host="elsewhere"))
            return lease.lost.wait(1)

        wait_until(taken, 10)
    assert json.loads(files.read_bytes(folder.paths.lease))["token"] == "theirs", "the other's lease must stay"


def test_a_lease_is_renewed(folder: RunFolder) -> None:
    with Lease(folder.paths.lease, heartbeat=0.05):
        first = files.read_bytes(folder.paths.lease)
        deadline = time.monotonic() + 10
        while files.read_bytes(folder.paths.lease) == first:
            assert time.monotonic() < deadline


def test_rubbish_in_place_of_a_lease_is_named(folder: RunFolder) -> None:
    files.put_bytes(folder.paths.lease, b"rubbish")
    with pytest.raises(RunBusyError, match="is not a lease"), Lease(folder.paths.lease):
        pass


def hold(uri: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        with Lease(uri):
            results.put("held")
            barrier.wait()
    except RunBusyError:
        results.put("busy")
        barrier.wait()


def test_of_many_processes_one_gets_the_lease(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    files.put_bytes(str(tmp_path / "lease.json"), holder(started="12"))  # stale, so that all want to replace it
    barrier, results = context.Barrier(6), context.Queue()
    processes = [context.Process(target=hold, args=(str(tmp_path / "lease.json"), barrier, results)) for _ in range(6)]
    for process in processes:
        process.start()
    outcomes = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert outcomes == ["busy"] * 5 + ["held"]
