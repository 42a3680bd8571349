"""What Ray says about the end of an actor, in the pool's words; and what it does not say of its own end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from rts_batch.actors.members import Lost
from rts_batch.actors.ray_cluster import lost, lost_process
from rts_batch.errors import ClusterError
from tests.support.running import STUB, done, finish, start, wait_until, write_manifest
from tests.support.videos import make_video


def died(said: str = "it is gone", *, preempted: bool = False, in_init: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg, error._preempted, error._actor_init_failed = said, preempted, in_init
    error.args = (said,)
    return error


DEAD = "The actor is dead because its worker process has died."


@pytest.mark.parametrize(
    ("error", "kind", "name", "message"),
    [
        (died(f"id: 12\n{DEAD} Some common causes include: …"), "killed", "ActorDiedError", DEAD),
        (died(preempted=True), "preempted", "ActorDiedError", "it is gone"),
        (died("its node has died"), "preempted", "ActorDiedError", "its node has died"),
        (ActorUnavailableError("no answer", None), "preempted", "ActorUnavailableError", "no answer"),
        (OutOfMemoryError("memory ran low\nand more"), "crash", "OutOfMemoryError", "memory ran low"),
        (RayTaskError("work", "the trace", OSError("no space")), "killed", "OSError", "no space"),
        (RayError("something else"), "killed", "RayError", "something else"),
    ],
)
def test_the_end_of_an_actor(error: RayError, kind: str, name: str, message: str) -> None:
    found = lost(error)
    assert (found.kind, found.error) == (kind, name)
    assert message in found.message
    assert not found.cannot_start


def test_an_actor_that_raised_while_it_was_made_would_raise_again() -> None:
    assert lost(died(in_init=True)).cannot_start
    assert isinstance(lost(died(in_init=True)), Lost)


class Node:
    """What a local Ray knows of its processes: these have ended with exit code 3."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def dead_processes(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        ended.wait()
        return [(name, ended) for name in self.names]


def test_a_local_ray_without_its_raylet_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for names, said in ((("log_monitor", "raylet"), "raylet, with exit code 3"), (("log_monitor",), None)):
        monkeypatch.setattr(ray._private.worker, "_global_node", Node(*names))
        assert lost_process() == said
    monkeypatch.setattr(ray._private.worker, "_global_node", None)  # no Ray of our own
    assert lost_process() is None


@pytest.mark.ray
@pytest.mark.long
def test_a_run_whose_raylet_is_killed_ends_and_says_so(tmp_path: Path) -> None:
    make_video(tmp_path / "video.mp4", 100)
    rows = [{"video": "video.mp4", "box": [10, 10, 20, 20], "video_id": str(name), "sleep": 0.05} for name in range(4)]
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows)
    process = start("submit", manifest, "--out", tmp_path / "run", *STUB, "--workers", 1)
    wait_until(lambda: done(tmp_path / "run"), process=process)
    (raylet,) = (child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "raylet")
    raylet.kill()
    killed = time.monotonic()
    outcome = finish(process, timeout=120)
    assert outcome.code == ClusterError.exit_code, outcome.err
    assert "a process of Ray's has ended: raylet, by signal 9" in outcome.err
    assert time.monotonic() - killed < 60
