"""How a worker's process ends, and whom that speaks against. Without Ray."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from rts_batch.actors import worker as worker_actor
from rts_batch.actors.worker import WorkerActor
from rts_batch.errors import ClusterError
from rts_batch.io.storage import files
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.forked import fork_server
from rts_batch.worker.messages import Advanced, Event, Failed, Finished, Job, WorkerSettings
from rts_batch.worker.process import StartLost, WorkerProcess, judge
from tests.support.places import REPOSITORY
from tests.support.running import done, wait_until, write_manifest
from tests.support.stub_tracker import Stub
from tests.support.videos import make_video

FRAMES = 12
STALL_SECONDS = 10
"""A busy machine may let a process stand still for less, through no fault of a video's."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    make_video(path, FRAMES)
    return path


@pytest.fixture
def make_task(video: Path, tmp_path: Path) -> Callable[..., VideoTask]:
    def make(**knobs: object) -> VideoTask:
        rows = [{"video": str(video), "box": [30, 30, 20, 20], **knobs}]
        (task,) = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows))).tasks
        return task

    return make


def worker_settings(out: Path, weights: str = "stub") -> WorkerSettings:
    return WorkerSettings(
        out=str(out),
        factory="tests.support.stub_tracker:Stub",
        tracker=Stub.describe(RunSettings(weights=weights)),
        decoder="auto",
        threads=1,
        extras={"sleep": "float64"},
    )


@pytest.fixture(scope="module", params=["started", "forked"])
def shared_process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """One process for all tests; whoever ends it has the next one start another."""
    out = tmp_path_factory.mktemp("run")
    settings = worker_settings(out)
    forkable = dataclasses.replace(settings, factory="tests.support.stub_tracker:ForkableStub")
    forking = fork_server(forkable, tmp_path_factory.mktemp("s")) if request.param == "forked" else nullcontext()
    with forking as address:
        settings = dataclasses.replace(settings, fork_server=address)
        held: dict[str, Any] = {"out": out, "settings": settings, "process": None}
        yield held
        if held["process"] is not None:
            held["process"].close()


@pytest.fixture
def process(shared_process: dict[str, Any]) -> WorkerProcess:
    if shared_process["process"] is None or not shared_process["process"].alive:
        shared_process["process"] = WorkerProcess(shared_process["settings"], stall_seconds=STALL_SECONDS)
    found: WorkerProcess = shared_process["process"]
    return found


def track(process: WorkerProcess, task: VideoTask) -> Iterator[Event]:
    """Everything that a process says about one video."""
    process.begin(Job(task=task, attempt=1))
    while process.busy:
        yield from process.events(0.1)


def last_of(events: Iterator[Event]) -> Event:
    *_, last = events
    return last


@pytest.mark.parametrize(
    ("knob", "error", "said"),
    [
        ("segfault_at", "SIGSEGV", "Segmentation fault"),
        ("exit_at", "ExitError", "exit code 7"),
        ("hang_at", "NoProgressError", f"no progress for {STALL_SECONDS} s in phase track"),
    ],
)
@pytest.mark.long
def test_evidence_against_the_video(
    process: WorkerProcess, make_task: Callable[..., VideoTask], knob: str, error: str, said: str
) -> None:
    last = last_of(track(process, make_task(**{knob: 3})))
    assert isinstance(last, Failed)
    assert (last.kind, last.error) == ("crash", error)
    assert said in last.message
    assert not process.alive


def test_want_of_memory_is_told_as_such(process: WorkerProcess, make_task: Callable[..., VideoTask]) -> None:
    last = last_of(track(process, make_task(allocate_at=3)))
    assert isinstance(last, Failed)
    assert (last.kind, last.error) == ("crash", "MemoryError")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
@pytest.mark.long
def test_a_kill_from_outside_does_not_speak_against_the_video(
    process: WorkerProcess, make_task: Callable[..., VideoTask], number: signal.Signals
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup, and workers inherit that")
    events = track(process, make_task(sleep=1))
    assert any(isinstance(event, Advanced) for event in events)
    os.kill(int(process.name.rpartition(":")[2]), number)
    last = last_of(events)
    assert isinstance(last, Failed)
    assert (last.kind, last.error) == ("killed", number.name)


@pytest.mark.long
def test_a_process_that_is_asked_to_leave_stops_after_the_frame_in_hand(
    process: WorkerProcess, make_task: Callable[..., VideoTask]
) -> None:
    events = track(process, make_task(sleep=1))
    assert any(isinstance(event, Advanced) for event in events)
    process.leave()
    last = last_of(events)
    assert isinstance(last, Failed)
    assert last.kind == "preempted"
    assert last.frame is not None
    assert last.frame < FRAMES - 1
    wait_until(lambda: not process.alive)


def test_a_video_that_comes_after_the_wish_to_leave_is_not_to_blame(
    process: WorkerProcess, make_task: Callable[..., VideoTask]
) -> None:
    process.leave()
    # On a busy machine the signal may come while the video is at work, but not after all of these frames.
    last = last_of(track(process, make_task(sleep=1)))
    assert isinstance(last, Failed)
    assert last.kind == "preempted"
    process._process.wait(60)  # it says what became of the video, and then goes
    assert not process.alive


@pytest.mark.long
def test_one_process_tracks_one_video_after_another(
    process: WorkerProcess, make_task: Callable[..., VideoTask], shared_process: dict[str, Any]
) -> None:
    for number in range(3):
        last = last_of(track(process, make_task(video_id=f"good-{number}")))
        assert isinstance(last, Finished)
        assert last.frames == FRAMES
    assert sum(path.name.startswith("good-") for path in done(shared_process["out"])) == 3


def test_a_process_that_cannot_load_its_model_says_why(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="the stub was told not to load"):
        WorkerProcess(worker_settings(tmp_path, "cannot-load"), stall_seconds=4)


@pytest.mark.long
def test_a_process_that_is_lost_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class KilledOnce(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            if len(started) == 1:
                self.kill()

    monkeypatch.setattr("rts_batch.worker.process.subprocess.Popen", KilledOnce)
    with pytest.raises(StartLost, match="killed from outside with SIGKILL"):
        WorkerProcess(worker_settings(tmp_path), stall_seconds=4)
    started.clear()
    actor = WorkerActor(worker_settings(tmp_path), 4)
    assert len(started) == 2
    actor._process.close()


@pytest.mark.long
def test_a_process_in_which_something_broke_is_not_used_again(
    tmp_path: Path, make_task: Callable[..., VideoTask]
) -> None:
    actor = WorkerActor(worker_settings(tmp_path), 30)
    names = []
    for task, kind in ((make_task(raise_at=3), Failed), (make_task(video_id="a"), Finished), (make_task(), Finished)):
        events = actor.work([Job(task=task, attempt=1)])
        names.append(actor._process.name)
        while not events or not isinstance(events[-1], Failed | Finished):
            events = actor.work([])
        assert isinstance(events[-1], kind)
    actor._process.close()
    assert names[0] != names[1] == names[2]


@pytest.mark.long
def test_lanes_go_on_while_the_next_video_is_on_its_way(
    video: Path, tmp_path: Path, make_task: Callable[..., VideoTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    settings = dataclasses.replace(worker_settings(tmp_path), lanes=2, scratch=str(tmp_path / "scratch"))
    far = f"memory://{uuid.uuid4().hex}/far.mp4"  # which the worker's process could not read itself
    files.put_file(video, far)
    here, bring = threading.Event(), worker_actor.bring_version

    def slow(*arguments: Any, **options: Any) -> Any:
        assert here.wait(60)
        return bring(*arguments, **options)

    monkeypatch.setattr(worker_actor, "bring_version", slow)
    actor = WorkerActor(settings, 30)
    near, coming = make_task(video_id="near", sleep=0.1), make_task(video=far, video_id="coming")
    actor.fetch(coming)
    events = actor.work([Job(task=near, attempt=1), Job(task=coming, attempt=1)])
    while not any(isinstance(event, Finished) for event in events):
        events += actor.work([])
    assert {event.key for event in events} == {near.key}
    here.set()
    while not isinstance(events[-1], Finished) or events[-1].key != coming.key:
        events += actor.work([])
        assert not isinstance(events[-1], Failed)
    wait_until(lambda: list((tmp_path / "scratch").iterdir()) == [])  # it says that it is finished, and then tidies up
    actor._process.close()


@pytest.mark.parametrize("knob", ["exit_at", "kill_at", "hang_at"])
@pytest.mark.long
def test_a_process_that_dies_leaves_no_copy_of_its_video(
    video: Path, tmp_path: Path, make_task: Callable[..., VideoTask], knob: str
) -> None:
    (tmp_path / "scratch").mkdir()
    actor = WorkerActor(dataclasses.replace(worker_settings(tmp_path), scratch=str(tmp_path / "scratch")), 5)
    folder, under_way = tmp_path / "scratch", []
    events = actor.work([Job(task=make_task(sleep=0.1, **{knob: 8}), attempt=1)])
    while not events or not isinstance(events[-1], Failed | Finished):
        under_way += list(folder.rglob("*"))
        events += actor.work([])
    assert isinstance(events[-1], Failed)
    assert under_way
    assert list(folder.iterdir()) == []
    actor._process.close()


KILLED = """
import os, sys
from pathlib import Path
from tests.worker.test_process import WorkerActor, worker_settings
WorkerActor._start = lambda self: None
actor = WorkerActor(worker_settings(Path(sys.argv[1])), 9)
(Path(actor._settings.scratch) / "video.mp4").write_text("fetched ahead")
print(actor._settings.scratch, flush=True)
os._exit(9)
"""


@pytest.mark.long
def test_what_a_killed_actor_leaves_on_another_machine_is_removed_by_the_next_one_there(tmp_path: Path) -> None:
    left = []
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        killed = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
        left.append(Path(killed.stdout.strip()))
        assert left[-1].parent == tmp_path
        assert left[-1].exists()
    assert not left[0].exists()


PARENT = """
import sys, time
from pathlib import Path
from tests.worker.test_process import worker_settings
from rts_batch.actors.worker import WorkerActor
from rts_batch.worker.process import WorkerProcess
print(WorkerProcess(worker_settings(Path(sys.argv[1])), stall_seconds=9).name.rpartition(":")[2], flush=True)
time.sleep(99)
"""


@pytest.mark.long
def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


SLOW_VIDEO = """
import sys
from pathlib import Path
from tests.worker.test_process import worker_settings
from rts_batch.manifest import read_manifest
from rts_batch.worker.messages import Advanced, Finished, Job
from rts_batch.worker.process import WorkerProcess
process = WorkerProcess(worker_settings(Path(sys.argv[1])), stall_seconds=3)
process.begin(Job(task=read_manifest(sys.argv[2]).tasks[0], attempt=1))
last = None
while process.busy:
    for last in process.events(0.2):
        if isinstance(last, Advanced):
            print(process.name.rpartition(":")[2], flush=True)
print(last if not isinstance(last, Finished) else "finished", flush=True)
"""


@pytest.mark.long
def test_a_machine_that_stood_still_makes_no_video_hang(tmp_path: Path) -> None:
    """Suspend parent and worker alike, as a frozen virtual machine does, for longer than a frame may take."""
    video = tmp_path / "short.mp4"
    make_video(video, 6)
    manifest = write_manifest(tmp_path / "m.jsonl", [{"video": str(video), "box": [20, 20, 20, 20], "sleep": 1.0}])
    command = [sys.executable, "-c", SLOW_VIDEO, str(tmp_path), str(manifest)]
    parent = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    both = [psutil.Process(parent.pid), psutil.Process(int(parent.stdout.readline()))]
    for process in both:
        process.suspend()
    time.sleep(6)
    for process in both:
        process.resume()
    output, _ = parent.communicate(timeout=60)
    assert output.splitlines()[-1] == "finished"


@pytest.mark.parametrize(
    ("code", "out_of_memory", "kind", "error"),
    [
        (-signal.SIGABRT, False, "crash", "SIGABRT"),
        (-signal.SIGBUS, False, "crash", "SIGBUS"),
        (0, False, "crash", "ExitError"),
        (-signal.SIGKILL, False, "killed", "SIGKILL"),
        (-signal.SIGKILL, True, "crash", "OutOfMemoryError"),
        (-signal.SIGTERM, False, "killed", "SIGTERM"),
        (-60, False, "crash", "signal 60"),
    ],
)
def test_the_verdict(code: int, out_of_memory: bool, kind: str, error: str) -> None:
    verdict = judge(code, "last words", out_of_memory=out_of_memory)
    assert (verdict.kind, verdict.error) == (kind, error)
