"""The pool: Ray actors that the coordinator's videos are handed to, one for each lane, and what becomes of them.

Ray restarts and retries nothing by itself (`max_restarts=0`, `max_task_retries=0`): an attempt runs at most once, and
the coordinator decides about the next. A video is handed to an actor only when that actor has loaded its model and has
a free lane, so that none waits behind a long one or behind a node that is still starting.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import ray
from ray.exceptions import RayError

from rts_batch.actors.coordinator import Coordinator, Failure
from rts_batch.actors.display import Display
from rts_batch.actors.interruptions import Interruptions
from rts_batch.actors.members import InHand, Member, draining_nodes, failed_in_init, failure_of, reason
from rts_batch.actors.metrics import RunMetrics
from rts_batch.actors.progress import RunProgress, VideoProgress
from rts_batch.actors.worker import CONTROL, Welcome, WorkerActor
from rts_batch.errors import ClusterError
from rts_batch.io.storage import files as storage
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Advanced, Event, Failed, Finished, Job, Opened, WorkerSettings
from rts_batch.worker.process import TRANSFER_PATIENCE

POLL_SECONDS = 0.2
START_ATTEMPTS = 5
"""Workers in a row that may be lost before they are ready."""

DRAIN_SECONDS = 5.0
"""Time between two looks at which nodes are about to go."""

WAITING_SECONDS = 60.0
"""After so long without any worker the user is told what is missing."""

SHARE_SECONDS = 30.0
"""For so long videos are left for a worker that is starting, rather than given to the others' free lanes."""

FINISHING = "interrupted: finishing the videos in hand; press Ctrl-C again to stop now"


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """How many workers, and what each takes of the cluster."""

    most: int
    least: int = 1
    """Kept alive as long as any video waits, even if it waits for the end of a pause."""
    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)


class Pool:
    """Runs a coordinator's videos on Ray actors. Needs an open Ray session.

    Args:
        coordinator: The queue; the pool alone talks to it while `run` is running.
        settings: What every worker is told.
        size: How many actors, and what each takes.
        stall_seconds: Without progress for so long, a video counts as hung.
        progress: Is kept up to date.
        display: Is shown `progress` several times a second.
        finished: Called with the task and its earlier failures when a video's masks are in place.
        given_up: Called with the task and all failures when a video will not be tried again.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        settings: WorkerSettings,
        *,
        size: PoolSize,
        stall_seconds: float,
        progress: RunProgress,
        display: Display,
        finished: Callable[[VideoTask, Finished, tuple[Failure, ...]], None],
        given_up: Callable[[VideoTask, tuple[Failure, ...]], None],
    ) -> None:
        self._coordinator = coordinator
        self._settings = settings
        self._size = size
        self._stall_seconds = stall_seconds
        self._progress = progress
        self._display = display
        self._metrics = RunMetrics(settings.out)
        self._finished = finished
        self._given_up = given_up
        self._actor_class = ray.remote(concurrency_groups={CONTROL: 2})(WorkerActor).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            resources=dict(size.resources),
            max_restarts=0,
            max_task_retries=0,
        )
        self._members: list[Member] = []
        self._lost_starting = 0
        self._drains_due = time.monotonic() + DRAIN_SECONDS
        self._waiting_since: float | None = None

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
                self._look_after()
                self._display.update(self._progress)
                self._metrics.update(self._progress, queued=self._coordinator.queued, workers=len(self._members))
        except RayError as error:
            raise ClusterError(f"Ray failed: {reason(error)}") from error
        finally:
            for member in list(self._members):
                self._end(member)

    def _adjust_size(self) -> None:
        """Asks for an actor for every video that waits, up to the pool's size, and ends those that nothing waits for.

        They are asked for all at once, so that a cluster that grows sees the whole demand. Where busy workers have free
        lanes no further ones are asked for, but by suspects, which need one each.
        """
        for member in [member for member in self._members if member.leaving and not member.videos]:
            self._end(member)
        staying = [member for member in self._members if not member.leaving]
        waiting, busy = self._coordinator.to_hand_out, sum(bool(member.videos) for member in self._members)
        free = sum(
            self._settings.lanes - len(member.videos) for member in staying if member.videos and not member.sealed
        )
        least = self._size.least if waiting else 0
        missing = max(waiting - free, self._coordinator.suspects, 0)
        for _ in range(max(least, min(self._size.most, busy + missing)) - len(staying)):
            self._members.append(self._start())
        idle = [member for member in staying if not member.videos]
        for member in idle[: max(0, len(staying) - max(least, min(self._size.most, busy + waiting)))]:
            self._end(member)

    def _start(self) -> Member:
        actor = self._actor_class.remote(self._settings, self._stall_seconds)
        return Member(id=uuid.uuid4().hex, actor=actor, ready=actor.ready.remote())

    def _end(self, member: Member) -> None:
        with contextlib.suppress(RayError):
            ray.kill(member.actor)
        self._coordinator.release(member.id)
        self._members.remove(member)

    def _hand_out(self) -> None:
        """Has every worker whose word has been taken go on, with videos for its free lanes."""
        share = self._share()
        for member in self._members:
            if member.ready is not None or member.answer is not None:
                continue
            jobs = [] if member.leaving else self._fill(member, min(self._settings.lanes, share))
            if member.videos:
                member.answer = member.actor.work.remote(jobs)

    def _fill(self, member: Member, lanes: int) -> list[Job]:
        """Takes videos for so many of a worker's lanes; if it has none free, has its next video fetched."""
        jobs: list[Job] = []
        if not member.videos:
            member.sealed, member.heard = False, time.monotonic()
        while len(member.videos) < lanes and not member.sealed:
            task = self._coordinator.take(member.id, empty=not member.videos)
            if task is None:
                return jobs
            member.sealed = self._coordinator.is_suspect(task.key)
            member.videos[task.key] = InHand(task)
            self._progress.running[task.key] = VideoProgress(task.video_id, expected=task.frames)
            jobs.append(Job(task=task, attempt=self._coordinator.attempt(task.key), suspect=member.sealed))
        if not jobs and self._is_remote_next(member):
            ahead = self._coordinator.reserve(member.id)
            if ahead is not None:
                member.actor.fetch.options(concurrency_group=CONTROL).remote(ahead)
        return jobs

    def _share(self) -> int:
        """Videos that each worker gets at most where there are fewer than lanes: so many that all have as many."""
        now = time.monotonic()
        there = [member for member in self._members if not member.leaving]
        there = [member for member in there if member.ready is None or now - member.heard < SHARE_SECONDS]
        return math.ceil((self._coordinator.to_hand_out + self._coordinator.running) / max(1, len(there)))

    def _listen(self) -> None:
        """Waits a moment for the workers' next words and takes them from each that has any."""
        by_source = {member.ready or member.answer: member for member in self._members if member.ready or member.answer}
        if not by_source:
            time.sleep(POLL_SECONDS)  # every video that is left waits for the end of a pause
            return
        heard, _ = ray.wait(list(by_source), num_returns=1, timeout=POLL_SECONDS)
        heard += ray.wait(list(by_source), num_returns=len(by_source), timeout=0)[0]
        for source in dict.fromkeys(heard):
            member = by_source[source]
            member.heard = time.monotonic()
            if member.ready is not None:
                self._welcome(member)
            else:
                self._take_events(member)

    def _welcome(self, member: Member) -> None:
        try:
            welcome: Welcome = ray.get(member.ready)
        except RayError as error:
            self._lost_starting += 1
            if failed_in_init(error) or self._lost_starting >= START_ATTEMPTS:
                raise ClusterError(f"a worker cannot start: {reason(error)}") from error
            self._end(member)  # taken away while it was starting; `_adjust_size` replaces it
            return
        member.name, member.node, member.ready = welcome.name, welcome.node, None
        self._lost_starting = 0

    def _take_events(self, member: Member) -> None:
        try:
            events: list[Event] = ray.get(member.answer)
        except RayError as error:
            self._lose(member, failure_of(error, member))
            return
        member.answer = None
        for event in events:
            self._handle(member, event)

    def _handle(self, member: Member, event: Event) -> None:
        video = self._progress.running[event.key]
        match event:
            case Opened():
                video.expected = event.frames
            case Advanced():
                video.frames = member.videos[event.key].frame = event.frames
            case Finished():
                task = self._free(member, event.key)
                self._progress.add(event)
                self._finished(task, event, self._coordinator.succeeded(task.key))
            case Failed():
                failure = Failure(
                    kind=event.kind, error=event.error, message=event.message, worker=member.name, frame=event.frame
                )
                self._book(self._free(member, event.key), failure)
                member.leaving |= event.kind == "preempted"
                member.sealed |= event.kind in ("crash", "suspected")

    def _look_after(self) -> None:
        """Finds workers that cannot speak any more, or whose nodes are about to go, and tells who waits in vain."""
        now = time.monotonic()
        # A worker tells by itself that its process hangs; this is for one that cannot even do that.
        silence = self._stall_seconds * (TRANSFER_PATIENCE + 1) + 60
        for member in [member for member in self._members if member.videos and now - member.heard > silence]:
            message = f"the worker has said nothing for {silence:.0f} s"
            self._lose(member, Failure(kind="killed", error="WorkerError", message=message, worker=member.name))
        if now >= self._drains_due:
            self._drains_due = now + DRAIN_SECONDS
            self._leave_nodes(draining_nodes())
        if not self._members or any(member.ready is None for member in self._members):
            self._waiting_since = now
        elif self._waiting_since is not None and now - self._waiting_since > WAITING_SECONDS:
            self._waiting_since = None
            self._display.note(f"no worker has started yet; {self._shown_size()}")

    def _leave_nodes(self, nodes: set[str]) -> None:
        for member in [member for member in self._members if member.node in nodes and not member.leaving]:
            member.leaving = True
            self._coordinator.release(member.id)
            if member.videos:
                member.actor.leave.options(concurrency_group=CONTROL).remote()
            else:
                self._end(member)

    def _shown_size(self) -> str:
        size = self._size
        parts = {"CPU": size.cpus, "GPU": size.gpus, **size.resources}
        each = ", ".join(f"{share:g} {name}" for name, share in parts.items() if share)
        return f"{len(self._members)} are asked for, each with {each}, and the cluster has no such place free"

    @staticmethod
    def _is_remote_next(member: Member) -> bool:
        """Only what has to cross a network is worth fetching ahead; the videos of one run usually lie together."""
        return any(storage.local_path(video.task.uri) is None for video in member.videos.values())

    def _lose(self, member: Member, failure: Failure) -> None:
        """Books the end of an actor as a failure of each of its videos."""
        for key, video in list(member.videos.items()):
            self._book(self._free(member, key), dataclasses.replace(failure, frame=video.frame))
        self._end(member)

    def _book(self, task: VideoTask, failure: Failure) -> None:
        failures = self._coordinator.failed(task.key, failure)
        if failures is None:
            self._progress.retries += 1
            return
        self._progress.failed += 1
        self._given_up(task, failures)

    def _free(self, member: Member, key: str) -> VideoTask:
        """Makes the lane of a video free."""
        del self._progress.running[key]
        return member.videos.pop(key).task
