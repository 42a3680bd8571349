"""The pool: Ray actors that the coordinator's videos are handed to, one each, and what becomes of them.

Ray restarts and retries nothing by itself (`max_restarts=0`, `max_task_retries=0`): an attempt runs at most once, and
the coordinator decides about the next. A video is handed to an actor only when that actor has loaded its model and has
nothing else to do, so that none waits behind a long one or behind a node that is still starting.
"""

from __future__ import annotations

import contextlib
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from rts_batch.actors.coordinator import Coordinator, Failure, FailureKind
from rts_batch.actors.progress import Advanced, Display, Event, Failed, Finished, Opened, RunProgress, VideoProgress
from rts_batch.actors.video_worker import VideoWorker, WorkerSettings
from rts_batch.errors import ClusterError
from rts_batch.manifest import VideoTask

POLL_SECONDS = 0.2
START_ATTEMPTS = 5
"""Workers in a row that may be lost before they are ready."""

FINISHING = "interrupted: finishing the videos in hand; press Ctrl-C again to stop now"


@dataclass(kw_only=True)
class _Member:
    """One actor of the pool. It is starting (`ready` set), busy (`stream` set) or idle."""

    actor: Any
    fault_log: Path | None
    ready: Any = None
    stream: Any = None
    task: VideoTask | None = None
    name: str = ""
    frame: int | None = None


class Interruptions:
    """Ctrl-C once: finish what is in hand; twice, or SIGTERM: stop now."""

    def __init__(self) -> None:
        self.finish = False
        self.now = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Interruptions]:
        earlier = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Only flags: what a handler interrupts may hold any lock.
        self.now = self.finish or number == signal.SIGTERM
        self.finish = True


class Pool:
    """Runs a coordinator's videos on Ray actors. Needs an open Ray session.

    Args:
        coordinator: The queue; the pool alone talks to it while `run` is running.
        settings: What every worker is told.
        size: Actors at most.
        gpus_per_worker: GPU share of each; 0 for CPU workers.
        progress: Is kept up to date.
        display: Is shown `progress` several times a second.
        finished: Called with the task and its earlier failures when a video's masks are in place.
        given_up: Called with the task and all failures when a video will not be tried again.
        fault_logs: Local folder for the workers' last words, where the workers run on this host.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        settings: WorkerSettings,
        *,
        size: int,
        gpus_per_worker: float,
        progress: RunProgress,
        display: Display,
        finished: Callable[[VideoTask, Finished, tuple[Failure, ...]], None],
        given_up: Callable[[VideoTask, tuple[Failure, ...]], None],
        fault_logs: Path | None,
    ) -> None:
        self._coordinator = coordinator
        self._settings = settings
        self._size = size
        self._progress = progress
        self._display = display
        self._finished = finished
        self._given_up = given_up
        self._fault_logs = fault_logs
        self._actor_class = ray.remote(VideoWorker).options(
            num_cpus=1, num_gpus=gpus_per_worker, max_restarts=0, max_task_retries=0
        )
        self._members: list[_Member] = []
        self._lost_starting = 0

    def run(self, interruptions: Interruptions, *, check: Callable[[], None] = lambda: None) -> None:
        """Returns when nothing runs and nothing is left, or when it was interrupted.

        `check` is called on every turn and may raise to stop the run.

        Raises:
            ClusterError: The workers cannot start.
        """
        stopping = False
        try:
            while not self._coordinator.finished and not interruptions.now:
                check()
                if interruptions.finish and not stopping:
                    stopping = True
                    self._coordinator.stop()
                    self._display.note(FINISHING)
                self._adjust_size()
                self._hand_out()
                self._listen()
                self._display.update(self._progress)
        except RayError as error:
            raise ClusterError(f"Ray failed: {_reason(error)}") from error
        finally:
            for member in self._members:
                with contextlib.suppress(RayError):
                    ray.kill(member.actor)
            self._members.clear()

    def _adjust_size(self) -> None:
        """Starts an actor for every video that waits, up to the pool's size, and ends those that nothing waits for."""
        queued = 0 if self._coordinator.next_ready_in() is None else self._coordinator.queued
        wanted = min(self._size, queued + self._coordinator.running)
        while len(self._members) < wanted:
            self._members.append(self._start())
        for member in [member for member in self._members if member.task is None][: len(self._members) - wanted]:
            self._end(member)

    def _start(self) -> _Member:
        fault_log = self._fault_logs / f"{uuid.uuid4().hex}.log" if self._fault_logs else None
        actor = self._actor_class.remote(self._settings, str(fault_log) if fault_log else None)
        return _Member(actor=actor, fault_log=fault_log, ready=actor.ready.remote())

    def _end(self, member: _Member) -> None:
        ray.kill(member.actor)
        self._members.remove(member)

    def _hand_out(self) -> None:
        for member in self._members:
            if member.ready is not None or member.task is not None:
                continue
            task = self._coordinator.take()
            if task is None:
                return
            attempt = self._coordinator.attempt(task.key)
            member.task, member.frame = task, None
            member.stream = member.actor.run.options(num_returns="streaming").remote(task, attempt)
            self._progress.running[task.key] = VideoProgress(task.video_id, expected=task.frames)

    def _listen(self) -> None:
        """Waits a moment for the workers' next words and takes one from each that has any."""
        by_source = {member.ready or member.stream: member for member in self._members if member.ready or member.stream}
        if not by_source:
            time.sleep(POLL_SECONDS)  # every video that is left waits for the end of a pause
            return
        heard, _ = ray.wait(list(by_source), num_returns=1, timeout=POLL_SECONDS)
        heard += ray.wait(list(by_source), num_returns=len(by_source), timeout=0)[0]
        for source in dict.fromkeys(heard):
            member = by_source[source]
            if member.ready is not None:
                self._welcome(member)
            else:
                self._take_event(member)

    def _welcome(self, member: _Member) -> None:
        try:
            member.name = ray.get(member.ready)
        except RayError as error:
            self._lost_starting += 1
            if _failed_in_init(error) or self._lost_starting >= START_ATTEMPTS:
                raise ClusterError(f"a worker cannot start: {_last_words(member) or _reason(error)}") from error
            self._end(member)  # taken away while it was starting; `_adjust_size` replaces it
            return
        member.ready = None
        self._lost_starting = 0

    def _take_event(self, member: _Member) -> None:
        assert member.task is not None
        try:
            event: Event = ray.get(next(member.stream))
        except StopIteration:
            self._lose(member, "crash", "WorkerError", "the worker ended the video without a result")
        except RayTaskError as error:
            self._lose(member, "crash", type(error.cause).__name__, str(error.cause))
        except OutOfMemoryError as error:
            self._lose(member, "crash", "OutOfMemoryError", _first_line(error))
        except RayActorError as error:
            last_words = _last_words(member)
            kind: FailureKind = "crash" if last_words else "killed"
            self._lose(member, kind, type(error).__name__, last_words or _reason(error))
        else:
            self._handle(member, member.task, event)

    def _handle(self, member: _Member, task: VideoTask, event: Event) -> None:
        video = self._progress.running[task.key]
        match event:
            case Opened():
                video.expected = event.frames
            case Advanced():
                video.frames = member.frame = event.frames
            case Finished():
                self._free(member)
                self._progress.done += 1
                self._progress.finished_frames += event.frames
                self._finished(task, event, self._coordinator.succeeded(task.key))
            case Failed():
                failure = Failure(
                    kind=event.kind, error=event.error, message=event.message, worker=member.name, frame=event.frame
                )
                self._free(member)
                self._book(task, failure)
                if event.kind == "crash":
                    self._end(member)  # what broke once may have left the process in any state

    def _lose(self, member: _Member, kind: FailureKind, error: str, message: str) -> None:
        """Books the end of an actor as a failure of its video."""
        assert member.task is not None
        task = member.task
        self._free(member)
        self._end(member)
        self._book(task, Failure(kind=kind, error=error, message=message, worker=member.name, frame=member.frame))

    def _book(self, task: VideoTask, failure: Failure) -> None:
        failures = self._coordinator.failed(task.key, failure)
        if failures is None:
            self._progress.retries += 1
            return
        self._progress.failed += 1
        self._given_up(task, failures)

    def _free(self, member: _Member) -> None:
        assert member.task is not None
        del self._progress.running[member.task.key]
        member.task = member.stream = None


def _failed_in_init(error: RayError) -> bool:
    return isinstance(error, ActorDiedError) and bool(getattr(error, "actor_init_failed", False))


def _last_words(member: _Member) -> str:
    """What the worker's own fault handler wrote before it died, if anything."""
    if member.fault_log is None or not member.fault_log.exists():
        return ""
    return member.fault_log.read_text(errors="replace").strip()[:2000]


def _reason(error: BaseException) -> str:
    """The sentence of Ray's error that says what happened, without its identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if line.startswith("The actor is dead because"):
            return line.split(" Some common causes")[0]
    return lines[-1] if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
