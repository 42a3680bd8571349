"""The pool's cluster in Ray's terms: a worker is an actor, and what it says is the answer to a call.

Ray restarts and retries nothing by itself (`max_restarts=0`, `max_task_retries=0`): an attempt runs at most once, and
the coordinator decides about the next. Importing this module imports Ray, whose settings (`rts_batch.actors.cluster`)
must stand in the environment before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from rts_batch.actors.members import Lost, PoolSize, Welcome
from rts_batch.actors.metrics import RunMetrics
from rts_batch.actors.progress import RunProgress
from rts_batch.actors.worker import CONTROL, WorkerActor
from rts_batch.errors import ClusterError
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Event, Job, WorkerSettings


@dataclass(eq=False)
class RayWorker:
    """An actor, and the reference to what it will say next."""

    actor: Any
    answer: Any


@contextlib.contextmanager
def _as_cluster_error() -> Iterator[None]:
    _check_node()
    try:
        yield
    except RayError as error:
        raise ClusterError(f"Ray failed: {_reason(error)}") from error


def lost_process() -> str | None:
    """Return what has ended of a Ray that this process has started, if that cannot do without it.

    Ray itself says nothing: it waits for ever for a worker to start.
    """
    try:
        ended = ray._private.worker._global_node.dead_processes()  # none where the cluster is somebody else's
        codes = {name: process.returncode for name, process in ended}
    except Exception:  # a private interface: without it, such a run stands still
        return None
    for name in codes.keys() & {"raylet", "gcs_server"}:
        return f"{name}, {f'with exit code {codes[name]}' if codes[name] >= 0 else f'by signal {-codes[name]}'}"
    return None


def _check_node() -> None:
    lost = lost_process()
    if lost is not None:
        raise ClusterError(
            f"a process of Ray's has ended: {lost}; submit again to go on. Where the kernel has ended it for want of "
            "memory, give fewer --workers, or more memory"
        )


class RayCluster:
    """See `rts_batch.actors.members.Cluster`. Needs an open Ray session.

    Args:
        settings: what every worker is told.
        stall_seconds: without progress for so long, a video counts as hung.
        size: what each worker takes of the cluster.
    """

    def __init__(self, settings: WorkerSettings, *, size: PoolSize, stall_seconds: float) -> None:
        self._settings = settings
        self._stall_seconds = stall_seconds
        self._metrics = RunMetrics(settings.out)
        self._actor_class = ray.remote(concurrency_groups={CONTROL: 2})(WorkerActor).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            resources=dict(size.resources),
            max_restarts=0,
            max_task_retries=0,
        )

    @_as_cluster_error()
    def start(self) -> RayWorker:
        actor = self._actor_class.remote(self._settings, self._stall_seconds)
        return RayWorker(actor, actor.ready.remote())

    @_as_cluster_error()
    def ask(self, worker: RayWorker, jobs: Sequence[Job]) -> None:
        worker.answer = worker.actor.work.remote(jobs)

    @_as_cluster_error()
    def fetch(self, worker: RayWorker, task: VideoTask) -> None:
        worker.actor.fetch.options(concurrency_group=CONTROL).remote(task)

    @_as_cluster_error()
    def leave(self, worker: RayWorker) -> None:
        worker.actor.leave.options(concurrency_group=CONTROL).remote()

    def kill(self, worker: RayWorker) -> None:
        with contextlib.suppress(RayError):
            if lost_process() is None:  # else all ends anyway, and Ray may wait for what is gone
                ray.kill(worker.actor)

    @_as_cluster_error()
    def wait(
        self, workers: Collection[RayWorker], seconds: float
    ) -> list[tuple[RayWorker, Welcome | list[Event] | Lost]]:
        by_answer = {worker.answer: worker for worker in workers}
        if not by_answer:
            time.sleep(seconds)
            return []
        there, _ = ray.wait(list(by_answer), num_returns=1, timeout=seconds)
        there += ray.wait(list(by_answer), num_returns=len(by_answer), timeout=0)[0]
        return [(by_answer[answer], _word(answer)) for answer in dict.fromkeys(there)]

    def draining(self) -> set[str]:
        try:
            return set(ray._private.state.state.get_draining_nodes())
        except Exception:  # a private interface: without it, videos of drained nodes begin again elsewhere
            return set()

    def show(self, progress: RunProgress, *, queued: int, workers: int) -> None:
        self._metrics.update(progress, queued=queued, workers=workers)


def _word(answer: Any) -> Welcome | list[Event] | Lost:
    try:
        word: Welcome | list[Event] = ray.get(answer)
    except RayError as error:
        return lost(error)
    return word


def lost(error: RayError) -> Lost:
    """What the end of an actor, or of its answer, means for the videos that it had."""
    if isinstance(error, RayTaskError):
        return Lost(kind="killed", error=type(error.cause).__name__, message=str(error.cause))
    if isinstance(error, OutOfMemoryError):
        # Ray's own watch over the node's memory chose this worker.
        return Lost(kind="crash", error="OutOfMemoryError", message=str(error).strip().splitlines()[0])
    gone = isinstance(error, RayActorError) and (error.preempted or _node_is_lost(error))
    return Lost(
        kind="preempted" if gone else "killed",
        error=type(error).__name__,
        message=_reason(error),
        cannot_start=isinstance(error, ActorDiedError) and error.actor_init_failed,
    )


def _node_is_lost(error: RayActorError) -> bool:
    # Ray has no field for it: an actor that cannot be reached any more has usually lost its node, of which Ray is sure
    # only half a minute later; one that died with its node says so.
    said = any(words in str(error) for words in ("node has died", "node was terminated"))
    return said or isinstance(error, ActorUnavailableError)


def _reason(error: BaseException) -> str:
    """The sentence of Ray's error that says what happened, without its identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if line.startswith("The actor is dead because"):
            return line.split(" Some common causes")[0]
    return lines[-1] if lines else type(error).__name__
