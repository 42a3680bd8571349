"""Carries out what a submission has to do: on Ray, with an eye on the run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from rts_batch.actors.cluster import ray_session
from rts_batch.actors.coordinator import Coordinator, FailedAttempt
from rts_batch.actors.display import Display
from rts_batch.actors.interruptions import Interruptions
from rts_batch.actors.members import PoolSize
from rts_batch.actors.pool import Pool
from rts_batch.actors.prepare import Prepared
from rts_batch.actors.progress import RunProgress
from rts_batch.actors.scratch import scratch_folder
from rts_batch.actors.summary import VideoFailure
from rts_batch.actors.upkeep import Upkeep
from rts_batch.errors import RunBusyError
from rts_batch.io.storage import files
from rts_batch.manifest import VideoTask
from rts_batch.manifest.lengths import expected_lengths
from rts_batch.runs.folder import Plan, RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.checkpoints import carry_over
from rts_batch.worker.forked import fork_server
from rts_batch.worker.messages import Finished, WorkerSettings

STATUS_SECONDS = 5.0
"""Time between two writings of the run's status and two looks for a wish to stop."""


@dataclass(kw_only=True)
class Driver:
    """The part of a submission that needs Ray: it runs what is left, and looks after the run's folder meanwhile."""

    prepared: Prepared
    plan: Plan
    settings: RunSettings
    max_failures: int | None
    display: Display
    lease: Lease
    stopped: bool = False
    failures: list[VideoFailure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    progress: RunProgress = field(init=False)
    folder: RunFolder = field(init=False)
    coordinator: Coordinator = field(init=False)
    upkeep: Upkeep = field(init=False)
    status_due: float = 0.0

    def __post_init__(self) -> None:
        lengths = expected_lengths(self.plan.left)
        self.progress = RunProgress(videos=self.plan.videos, already_done=self.plan.done, guesses=lengths)
        self.folder = self.prepared.folder
        self.coordinator = Coordinator(self.plan.left, lengths=lengths)
        self.upkeep = Upkeep(self.folder, lease=self.lease.token)

    def run(self) -> bool:
        """Run what is left; return whether it was interrupted."""
        local = self.settings.address == "local"
        if self.plan.replaces:
            self._carry_over_checkpoints()
        with scratch_folder() as scratch:
            worker_settings = WorkerSettings.of(
                self.settings,
                self.prepared.tracker,
                self.folder,
                threads=self.prepared.threads,
                lanes=self.prepared.lanes,
                results=self.prepared.record.results,
                extras=self.prepared.manifest.extras,
                scratch=str(scratch) if local else None,
            )
            workers = min(self.prepared.workers, len(self.plan.left))
            resources = {name: workers * amount for name, amount in self.settings.resources.items()}
            cpus = workers * self.prepared.cpus
            self.display.step("starting Ray" if local else f"connecting to the cluster at {self.settings.address}")
            forking = fork_server(worker_settings, scratch, spares=workers) if local else contextlib.nullcontext()
            with forking as address, ray_session(self.settings.address, folder=scratch, cpus=cpus, resources=resources):
                return self._run_pool(dataclasses.replace(worker_settings, fork_server=address), workers)

    def _carry_over_checkpoints(self) -> None:
        """Have videos whose rows have changed go on from what was kept; where nothing was, nothing is looked up."""
        kept = self.folder.checkpointed()
        for task in self.plan.left:
            for key in kept.intersection(self.plan.replaces.get(task.key, ())):
                carry_over(task, self.folder.paths.checkpoints(key), self.folder.checkpoints_of(task))

    def _run_pool(self, worker_settings: WorkerSettings, workers: int) -> bool:
        # Importing it imports Ray, whose settings must stand in the environment before.
        from rts_batch.actors.ray_cluster import RayCluster

        settings = self.settings
        size = PoolSize(
            most=workers,
            least=min(settings.min_workers, workers),
            lanes=self.prepared.lanes,
            cpus=self.prepared.cpus,
            gpus=settings.gpus_per_worker if self.prepared.tracker.device == "cuda" else 0,
            resources=settings.resources,
        )
        pool = Pool(
            self.coordinator,
            RayCluster(worker_settings, size=size, stall_seconds=settings.stall_timeout),
            size=size,
            stall_seconds=settings.stall_timeout,
            progress=self.progress,
            display=self.display,
            outcome=self,
        )
        self.progress.restart_clock()
        with self.display:
            with self.upkeep, Interruptions().watching() as interruptions:
                pool.run(interruptions, check=lambda: self._check(interruptions))
            self._warn_of_troubles()
        return not self.coordinator.emptied and not self.stopped

    def _check(self, interruptions: Interruptions) -> None:
        """Look after the folder while the pool works: the lease, the status, a wish to stop."""
        if self.lease.lost.is_set():
            raise RunBusyError(f"{self.folder.uri}: another process has taken the run over; this one stops")
        self._warn_of_troubles()
        interruptions.finish |= self.upkeep.wish != "no"
        interruptions.now |= self.upkeep.wish == "now"
        now = time.monotonic()
        if now >= self.status_due:
            self.status_due = now + STATUS_SECONDS
            self.upkeep.look({**self.status(), "state": "running"})

    def status(self) -> dict[str, Any]:
        """The content of `status.json`."""
        running = [
            {"video_id": video.video_id, "frames": video.frames, "expected": video.expected}
            for video in self.progress.running.values()
        ]
        written = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {**self.progress.to_dict(), "videos_running": running, "written": written}

    def finished(self, task: VideoTask, event: Finished, earlier: tuple[FailedAttempt, ...]) -> None:
        for text in event.warnings:
            self._warn(f"{task.video_id}: {text}")
        after = f", after {event.earlier} of earlier attempts" if event.earlier else ""
        frames = event.frames - event.earlier
        self.display.detail(f"done: {task.video_id}: {frames} frames in {event.seconds:.1f} s{after}")
        if task.key in self.plan.failed_before:
            self.upkeep.write(lambda: self.folder.forget_failure(task))
        if before := self.plan.replaces.get(task.key):
            self.upkeep.write(lambda: self.folder.drop(before))
        if event.has_checkpoints:
            self.upkeep.write(lambda: files.delete(self.folder.checkpoints_of(task)))

    def given_up(self, task: VideoTask, failures: tuple[FailedAttempt, ...]) -> None:
        last = failures[-1]
        self.failures.append(
            VideoFailure(video_id=task.video_id, error=last.error, message=last.message, attempts=len(failures))
        )
        self.display.note(f"failed: {task.video_id}: {last.message.splitlines()[-1] if last.message else last.error}")
        self.upkeep.write(lambda: self.folder.fail(task, [dataclasses.asdict(failure) for failure in failures]))
        if self.max_failures is not None and len(self.failures) >= self.max_failures and not self.stopped:
            self.stopped = True
            self.coordinator.stop()
            self.display.note(f"{len(self.failures)} videos have failed: handing out no more, finishing those in hand")

    def _warn_of_troubles(self) -> None:
        """Notes about a video are not worth the run: what cannot be written becomes a warning."""
        for text in self.upkeep.troubles():
            self._warn(text)

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.display.note(f"warning: {text}")
