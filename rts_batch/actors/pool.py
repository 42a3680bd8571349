"""The pool: workers that the coordinator's videos are handed to, one for each lane, and what becomes of them.

A video is handed to a worker only when that worker has loaded its model and has a free lane, so that none waits behind
a long one or behind a node that is still starting. All that the pool knows of Ray is a `Cluster`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from rts_batch.actors.coordinator import Coordinator, FailedAttempt
from rts_batch.actors.display import Display
from rts_batch.actors.interruptions import Interruptions
from rts_batch.actors.members import Cluster, InHand, Lost, Member, PoolSize, Welcome
from rts_batch.actors.progress import RunProgress, VideoProgress
from rts_batch.errors import ClusterError
from rts_batch.io.storage import uris
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Advanced, Event, Failed, Finished, Job, Opened
from rts_batch.worker.process import TRANSFER_PATIENCE

POLL_SECONDS = 0.2
LOST_STARTS = 5
"""Workers in a row that may be lost before they are ready, while no other is, but for those that were preempted."""

DRAIN_SECONDS = 5.0
"""Time between two looks at which nodes are about to go."""

WAITING_SECONDS = 60.0
"""After so long without any worker the user is told what is missing."""

SHARE_SECONDS = 30.0
"""For so long videos are left for a worker that is starting, rather than given to the others' free lanes."""

FINISHING = "interrupted: finishing the videos in hand; press Ctrl-C again to stop now"
LEAVING = "stopping: keeping what long videos have; press Ctrl-C again to lose that"
LEAVING_SECONDS = 10.0
"""What the workers have for that; where SIGTERM comes from a cluster, SIGKILL follows after 30 as a rule."""


class Outcome(Protocol):
    """Who is told how videos end."""

    def finished(self, task: VideoTask, event: Finished, earlier: tuple[FailedAttempt, ...]) -> None:
        """The masks are in place, after these failures."""

    def given_up(self, task: VideoTask, failures: tuple[FailedAttempt, ...]) -> None:
        """It will not be tried again."""


class Pool:
    """Runs a coordinator's videos on the workers of a cluster.

    Args:
        coordinator: the queue; the pool alone talks to it while `run` is running.
        cluster: where the workers are.
        size: how many of them.
        stall_seconds: without progress for so long, a video counts as hung.
        progress: is kept up to date.
        display: is shown `progress` several times a second.
        outcome: is told when a video's masks are in place, and when one will not be tried again.
        clock: gives seconds.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        cluster: Cluster,
        *,
        size: PoolSize,
        stall_seconds: float,
        progress: RunProgress,
        display: Display,
        outcome: Outcome,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coordinator = coordinator
        self._cluster = cluster
        self._size = size
        # A worker tells by itself that its process hangs; this is for one that cannot even do that.
        self._silence = stall_seconds * (TRANSFER_PATIENCE + 1) + 60
        self._progress = progress
        self._display = display
        self._outcome = outcome
        self._clock = clock
        self._members: list[Member] = []
        self._lost_starting = 0
        self._drains_due = clock() + DRAIN_SECONDS
        self._waiting_since: float | None = None

    def run(self, interruptions: Interruptions, *, check: Callable[[], None] = lambda: None) -> None:
        """Return when nothing runs and nothing is left, or when it was interrupted.

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
                self._cluster.show(self._progress, queued=self._coordinator.queued, workers=len(self._members))
            if interruptions.now:
                self._leave(interruptions)
        except ClusterError:
            if not interruptions.now:  # who stops a service or a job of a cluster ends Ray's processes as well
                raise
        finally:
            for member in list(self._members):
                self._end(member)

    def _leave(self, interruptions: Interruptions) -> None:
        """Have the workers stop after the frames in hand, with a checkpoint of each long video, and wait for them."""
        self._coordinator.stop()
        until = self._clock() + LEAVING_SECONDS
        for member in [member for member in self._members if member.videos]:
            if not member.leaving:
                member.leaving = True
                self._cluster.leave(member.worker)
        self._display.note(LEAVING)
        while any(member.videos for member in self._members) and self._clock() < until and not interruptions.at_once:
            self._hand_out()
            self._listen()

    def _adjust_size(self) -> None:
        """Ask for a worker for every video that waits, up to the pool's size, and end those that nothing waits for.

        They are asked for all at once, so that a cluster that grows sees the whole demand. Where busy workers have free
        lanes no further ones are asked for, but by suspects, which need one each.
        """
        for member in [member for member in self._members if member.leaving and not member.videos]:
            self._end(member)
        staying = [member for member in self._members if not member.leaving]
        waiting, busy = self._coordinator.to_hand_out, sum(bool(member.videos) for member in self._members)
        free = sum(self._size.lanes - len(member.videos) for member in staying if member.videos and not member.sealed)
        least = self._size.least if waiting else 0
        missing = max(waiting - free, self._coordinator.suspects, 0)
        for _ in range(max(least, min(self._size.most, busy + missing)) - len(staying)):
            self._members.append(Member(worker=self._cluster.start(), heard=self._clock()))
        idle = [member for member in staying if not member.videos]
        for member in idle[: max(0, len(staying) - max(least, min(self._size.most, busy + waiting)))]:
            self._end(member)

    def _end(self, member: Member) -> None:
        self._cluster.kill(member.worker)
        self._coordinator.release(member.id)
        self._members.remove(member)

    def _hand_out(self) -> None:
        """Have every worker whose word has been taken go on, with videos for its free lanes."""
        share = self._share()
        for member in self._members:
            if member.starting or member.asked:
                continue
            jobs = [] if member.leaving else self._fill(member, min(self._size.lanes, share))
            if member.videos:
                self._cluster.ask(member.worker, jobs)
                member.asked = True

    def _fill(self, member: Member, lanes: int) -> list[Job]:
        """Take videos for so many of a worker's lanes; if it has none free, have its next video fetched."""
        jobs: list[Job] = []
        if not member.videos:
            member.sealed, member.heard = False, self._clock()
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
                self._cluster.fetch(member.worker, ahead)
        return jobs

    def _share(self) -> int:
        """Videos that each worker gets at most where there are fewer than lanes: so many that all have as many."""
        now = self._clock()
        there = [member for member in self._members if not member.leaving]
        there = [member for member in there if not member.starting or now - member.heard < SHARE_SECONDS]
        return math.ceil((self._coordinator.to_hand_out + self._coordinator.running) / max(1, len(there)))

    def _listen(self) -> None:
        """Wait a moment for the workers' next words and take them from each that has any."""
        owing = {member.worker: member for member in self._members if member.starting or member.asked}
        for worker, word in self._cluster.wait(owing.keys(), POLL_SECONDS):
            member = owing[worker]
            member.heard = self._clock()
            member.asked = False
            match word:
                case Welcome():
                    member.name, member.node, member.starting = word.name, word.node, False
                    self._lost_starting = 0
                case Lost():
                    self._lose(member, word)
                case events:
                    for event in events:
                        self._handle(member, event)

    def _handle(self, member: Member, event: Event) -> None:
        video = self._progress.running[event.key]
        match event:
            case Opened():
                video.open(event.frames, event.earlier)
            case Advanced():
                video.frames = member.videos[event.key].frame = event.frames
            case Finished():
                task = self._free(member, event.key)
                self._progress.add(event)
                self._outcome.finished(task, event, self._coordinator.succeeded(task.key))
            case Failed():
                failure = FailedAttempt(
                    kind=event.kind, error=event.error, message=event.message, worker=member.name, frame=event.frame
                )
                self._book(self._free(member, event.key), failure)
                member.leaving |= event.kind == "preempted"
                member.sealed |= event.kind in ("crash", "suspected")

    def _look_after(self) -> None:
        """Find workers that cannot speak any more, or whose nodes are about to go, and tell who waits in vain."""
        now = self._clock()
        for member in [member for member in self._members if member.videos and now - member.heard > self._silence]:
            message = f"the worker has said nothing for {self._silence:.0f} s"
            self._lose(member, Lost(kind="killed", error="WorkerError", message=message))
        if now >= self._drains_due:
            self._drains_due = now + DRAIN_SECONDS
            self._leave_nodes(self._cluster.draining())
        if not self._members or any(not member.starting for member in self._members):
            self._waiting_since = now
        elif self._waiting_since is not None and now - self._waiting_since > WAITING_SECONDS:
            self._waiting_since = None
            self._display.note(f"no worker has started yet; {self._shown_size()}")

    def _leave_nodes(self, nodes: set[str]) -> None:
        for member in [member for member in self._members if member.node in nodes and not member.leaving]:
            member.leaving = True
            self._coordinator.release(member.id)
            if member.videos:
                self._cluster.leave(member.worker)
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
        return any(uris.local_path(video.task.uri) is None for video in member.videos.values())

    def _lose(self, member: Member, lost: Lost) -> None:
        """Book the end of a worker as a failure of each of its videos."""
        if member.starting:
            self._lost_starting += lost.kind != "preempted"  # a node that goes says nothing of the others
            none_is_ready = all(other.starting for other in self._members)
            if lost.cannot_start or (self._lost_starting >= LOST_STARTS and none_is_ready):
                raise ClusterError(f"a worker cannot start: {lost.message}")
        # Of several videos nobody knows which one is to blame.
        kind = "suspected" if lost.kind == "crash" and len(member.videos) > 1 else lost.kind
        for key, video in list(member.videos.items()):
            failure = FailedAttempt(
                kind=kind, error=lost.error, message=lost.message, worker=member.name, frame=video.frame
            )
            self._book(self._free(member, key), failure)
        self._end(member)  # `_adjust_size` replaces one that was taken away while it was starting

    def _book(self, task: VideoTask, failure: FailedAttempt) -> None:
        failures = self._coordinator.failed(task.key, failure)
        if failures is None:
            if failure.kind == "preempted" and self._coordinator.stopped:
                return
            self._progress.retries += 1
            self._display.detail(f"again: {task.video_id}: {failure.message or failure.error} (on {failure.worker})")
            return
        self._progress.give_up(task.key)
        self._outcome.given_up(task, failures)

    def _free(self, member: Member, key: str) -> VideoTask:
        """Make the lane of a video free."""
        del self._progress.running[key]
        return member.videos.pop(key).task
