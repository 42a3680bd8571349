"""Workers' processes that are copies of one that has read the tracker. Without Ray.

How such a process ends, and whom that speaks against, is tested in `test_process.py` together with others.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from rts_batch.actors.worker import WorkerActor
from rts_batch.errors import ClusterError
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.forked import fork_server
from rts_batch.worker.messages import Event, Failed, Finished, Job, WorkerSettings
from rts_batch.worker.process import WorkerProcess
from rts_batch.worker.tracker import find_factory
from tests.support.places import REPOSITORY
from tests.support.running import done, wait_until, write_manifest
from tests.support.videos import make_video

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only"),
    pytest.mark.long,
]

FORKABLE = "tests.support.stub_tracker:ForkableStub"


def settings_of(out: Path, factory: str = FORKABLE, **choices: object) -> WorkerSettings:
    tracker = find_factory(factory).describe(RunSettings(**{"weights": "stub", "device": "cpu", **choices}))
    return WorkerSettings(out=str(out), factory=factory, tracker=tracker, decoder="auto", threads=2, extras={})


@pytest.fixture(params=[0, 1], ids=["no spare", "a spare"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[WorkerSettings]:
    """What an actor beside whom there is a server is told."""
    settings = settings_of(tmp_path / "run")
    with fork_server(settings, tmp_path, spares=request.param) as address:
        yield dataclasses.replace(settings, fork_server=address)


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[[str], VideoTask]:
    masks = make_video(tmp_path / "video.mp4", 12)
    cv2.imwrite(str(tmp_path / "mask.png"), masks[0, 0].astype(np.uint8) * 255)

    def make(name: str) -> VideoTask:
        rows = [{"video_id": name, "video": str(tmp_path / "video.mp4"), "mask": str(tmp_path / "mask.png")}]
        (task,) = read_manifest(str(write_manifest(tmp_path / f"{name}.jsonl", rows))).tasks
        return task

    return make


def pid_of(process: WorkerProcess) -> int:
    return int(process.name.rpartition(":")[2])


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def track(process: WorkerProcess, task: VideoTask) -> Event:
    process.begin(Job(task=task, attempt=1))
    events: list[Event] = []
    while process.busy:
        events += process.events(0.1)
    return events[-1]


def test_a_copy_has_its_actors_place_output_and_priority(
    served: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    process = WorkerProcess(served, stall_seconds=9)
    copy = psutil.Process(pid_of(process))
    assert copy.parent() != psutil.Process()
    assert Path(copy.cwd()) == folder
    assert copy.nice() == psutil.Process().nice()
    for descriptor in (1, 2):
        assert os.readlink(f"/proc/{copy.pid}/fd/{descriptor}") == os.readlink(f"/proc/self/fd/{descriptor}")
    process.close()
    assert is_gone(copy.pid)


def test_copies_know_nothing_of_each_other(served: WorkerSettings, make_task: Callable[[str], VideoTask]) -> None:
    first, second = WorkerProcess(served, stall_seconds=9), WorkerProcess(served, stall_seconds=9)
    assert isinstance(track(first, make_task("a")), Finished)
    first.close()
    assert isinstance(track(second, make_task("b")), Finished)
    assert second.alive
    second.close()


ACTOR = """
import sys, time
from pathlib import Path
from tests.worker.test_forked import settings_of
from rts_batch.worker.process import WorkerProcess
from dataclasses import replace
settings = replace(settings_of(Path(sys.argv[1])), fork_server=sys.argv[2])
process = WorkerProcess(settings, stall_seconds=9)  # as a temporary its end would be the copy's
print(process.name.rpartition(":")[2], flush=True)
time.sleep(99)
"""


def test_a_copy_whose_actor_is_gone_is_ended(served: WorkerSettings, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ACTOR, str(tmp_path), str(served.fork_server)]
    actor = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert actor.stdout is not None
    copy = int(actor.stdout.readline())
    os.kill(copy, 19)  # SIGSTOP: it cannot go by itself
    actor.kill()
    actor.communicate()
    wait_until(lambda: is_gone(copy))


DRIVER = """
import sys, time
from pathlib import Path
from tests.worker.test_forked import settings_of
from rts_batch.worker.forked import fork_server
from rts_batch.worker.process import WorkerProcess
from dataclasses import replace
settings = settings_of(Path(sys.argv[1]))
with fork_server(settings, Path(sys.argv[1]), spares=2) as address:
    process = WorkerProcess(replace(settings, fork_server=address), stall_seconds=9)
    print(process.name.rpartition(":")[2], flush=True)
    time.sleep(99)
"""


def test_server_and_copies_end_with_the_driver(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    server = psutil.Process(int(driver.stdout.readline())).parent()
    assert server is not None
    # Copies begin their decoding side by side with the driver's line.
    wait_until(lambda: len(server.children(recursive=True)) == 4, process=driver)
    family = [server, *server.children(recursive=True)]
    assert len(family) == 5, "the server, two copies and what decodes for them"
    driver.kill()
    driver.communicate()
    wait_until(lambda: all(is_gone(process.pid) for process in family))


def test_without_its_server_a_copy_was_killed_and_the_next_process_is_started(
    served: WorkerSettings, make_task: Callable[[str], VideoTask]
) -> None:
    actor = WorkerActor(served, 30)
    server = psutil.Process(pid_of(actor._process)).parent()
    assert server is not None
    job = Job(task=make_task("a"), attempt=1)
    server.kill()
    wait_until(lambda: not actor._process.alive)
    events = actor.work([job])
    while not events or not isinstance(events[-1], Failed | Finished):
        events = actor.work([])
    assert isinstance(events[-1], Finished)
    assert psutil.Process(pid_of(actor._process)).parent() == psutil.Process()
    actor._process.close()


def test_a_tracker_that_cannot_be_read_is_told_of_by_each_worker(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "run", weights="cannot-load")
    with fork_server(settings, tmp_path, spares=1) as address:
        for _ in range(2):
            with pytest.raises(ClusterError, match="the stub was told not to load"):
                WorkerProcess(dataclasses.replace(settings, fork_server=address), stall_seconds=9)


def test_only_trackers_that_can_be_forked_have_a_server(tmp_path: Path) -> None:
    plain = settings_of(tmp_path, "tests.support.stub_tracker:Stub")
    on_gpu = settings_of(tmp_path)
    on_gpu = dataclasses.replace(on_gpu, tracker=dataclasses.replace(on_gpu.tracker, device="cuda"))
    for settings in (plain, on_gpu):
        with fork_server(settings, tmp_path) as address:
            assert address is None


def test_forked_and_started_workers_of_the_network_write_the_same_bytes(
    tmp_path: Path, make_task: Callable[[str], VideoTask]
) -> None:
    options = {"crop_size": [96, 160], "init_iterations": 8}
    settings = settings_of(tmp_path, RunSettings.tracker, weights="rts-mini", tracker_options=options)
    task, written = make_task("a"), []
    with fork_server(settings, tmp_path, spares=1) as address:
        assert address is not None
        for name, server in (("forked", address), ("started", None)):
            of_run = dataclasses.replace(settings, out=str(tmp_path / name), fork_server=server)
            process = WorkerProcess(of_run, stall_seconds=60)
            assert isinstance(track(process, task), Finished)
            process.close()
            (masks,) = done(tmp_path / name)
            written.append(masks.read_bytes())
    assert written[0] == written[1]
