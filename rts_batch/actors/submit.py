"""One submission from its manifest to its summary: what `rts-batch submit` does."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from rts_batch.actors.cluster import ray_session, run_folder_on_this_host, usable_cores
from rts_batch.actors.coordinator import Coordinator, Failure
from rts_batch.actors.display import Display
from rts_batch.actors.progress import RunProgress
from rts_batch.actors.summary import Summary, VideoFailure
from rts_batch.errors import ManifestError, RunBusyError, StorageError
from rts_batch.io.storage import files as storage
from rts_batch.manifest import Manifest, VideoTask, read_manifest
from rts_batch.manifest.lengths import expected_lengths
from rts_batch.runs.folder import Plan, RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.record import RunRecord, versions
from rts_batch.runs.settings import RunSettings, Scope
from rts_batch.worker.messages import Finished, WorkerSettings
from rts_batch.worker.prompts import BOX_NEEDS_STA
from rts_batch.worker.tracker import TrackerDescription, find_factory

CORES_PER_WORKER = 4
"""Beyond this many threads one frame gains little; several videos side by side gain nearly everything."""

STATUS_SECONDS = 5.0
"""Time between two writings of `status.json` and two looks for a wish to stop."""

DEFAULT_SCOPE = Scope()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known of a submission before anything is written or started."""

    manifest: Manifest
    tracker: TrackerDescription
    folder: RunFolder
    record: RunRecord
    workers: int
    threads: int
    lanes: int


def look(
    manifest_uri: str, out: str, settings: RunSettings, *, scope: Scope = DEFAULT_SCOPE, skip_invalid: bool = False
) -> tuple[Prepared, Plan]:
    """Checks everything that can be checked, and says what a submission would do. Raises as `submit` does."""
    prepared = _prepare(manifest_uri, out, settings, scope, skip_invalid)
    return prepared, prepared.folder.look(prepared.manifest, prepared.record, scope)


def _prepare(manifest_uri: str, out: str, settings: RunSettings, scope: Scope, skip_invalid: bool) -> Prepared:
    manifest = read_manifest(manifest_uri, skip_invalid=skip_invalid)
    tracker = find_factory(settings.tracker).describe(settings)
    _refuse_boxes_without_sta(manifest, tracker)
    folder = RunFolder(absolute(out), scope.shard)
    begun = folder.record()
    workers, threads = choose_size(settings, tracker, begun)
    lanes = settings.lanes or (begun.environment.get("lanes") if begun is not None else None) or 1
    environment = {**tracker.environment, "threads_per_worker": threads, "lanes": lanes, "versions": versions()}
    record = RunRecord(
        results={"weights": tracker.fingerprint, **tracker.settings, "profile": tracker.profile},
        environment=environment,
        settings={**settings.to_dict(), "weights": storage.safe_uri(tracker.weights)},
    )
    return Prepared(
        manifest=manifest,
        tracker=tracker,
        folder=folder,
        record=record,
        workers=workers,
        threads=threads,
        lanes=lanes,
    )


def submit(
    manifest_uri: str,
    out: str,
    settings: RunSettings,
    *,
    display: Display,
    scope: Scope = DEFAULT_SCOPE,
    skip_invalid: bool = False,
) -> Summary:
    """Does what is left of a manifest and returns how it went.

    Call it from the main thread (it handles Ctrl-C, and Ray ties itself to the thread that starts it).

    Raises:
        ManifestError: Rows that are wrong; nothing has started.
        SettingsError: Settings that cannot work together.
        RunFolderError: The folder is in use, or belongs to another run.
        WeightsError: The weights cannot be used.
        ClusterError: Ray or the device cannot be used.
    """
    prepared = _prepare(manifest_uri, out, settings, scope, skip_invalid)
    folder, tracker, manifest = prepared.folder, prepared.tracker, prepared.manifest
    with Lease(folder.paths.lease, note=display.note) as lease:
        refuse_other_divisions(folder, note=display.note)
        plan = folder.prepare(manifest, prepared.record, scope)
        warnings = [*([tracker.warning] if tracker.warning else []), *manifest.warnings, *plan.warnings]
        for text in warnings:
            display.note(f"warning: {text}")
        job = _Job(
            prepared=prepared,
            plan=plan,
            settings=settings,
            max_failures=scope.max_failures,
            display=display,
            lease=lease,
        )
        interrupted = job.run() if plan.left else False
        summary = Summary(
            out=folder.uri,
            weights=storage.safe_uri(tracker.weights),
            videos=plan.videos,
            done=plan.done + job.progress.done,
            already_done=plan.done,
            failures=tuple(job.failures),
            left_out=manifest.invalid,
            frames=job.progress.finished_frames,
            seconds=job.progress.seconds if plan.left else 0.0,
            interrupted=interrupted,
            step_seconds=job.progress.step_seconds,
            video_seconds=job.progress.video_seconds,
            stopped=job.stopped,
            warnings=(*warnings, *job.warnings),
        )
        folder.put_summary(summary.to_dict())
        folder.put_status({**job.status(), "state": "interrupted" if interrupted else "ended"})
        folder.forget_cancel()
    return summary


@dataclass(kw_only=True)
class _Job:
    """The part of a submission that needs Ray."""

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
    interruptions: Any = None
    status_due: float = 0.0

    def __post_init__(self) -> None:
        self.progress = RunProgress(videos=self.plan.videos, already_done=self.plan.done)
        self.folder = self.prepared.folder
        self.coordinator = Coordinator(self.plan.left, lengths=expected_lengths(self.plan.left))

    def run(self) -> bool:
        """Runs what is left; returns whether it was interrupted."""
        local = self.settings.address == "local"
        with run_folder_on_this_host() as scratch:
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
            with ray_session(self.settings, workers=workers, folder=scratch):
                return self._run_pool(worker_settings, workers)

    def _run_pool(self, worker_settings: WorkerSettings, workers: int) -> bool:
        # Importing the pool imports Ray, whose settings must stand in the environment before.
        from rts_batch.actors.interruptions import Interruptions
        from rts_batch.actors.pool import Pool, PoolSize

        settings = self.settings
        pool = Pool(
            self.coordinator,
            worker_settings,
            size=PoolSize(
                most=workers,
                least=min(settings.min_workers, workers),
                cpus=settings.cpus_per_worker,
                gpus=settings.gpus_per_worker if self.prepared.tracker.device == "cuda" else 0,
                resources=settings.resources,
            ),
            stall_seconds=settings.stall_timeout,
            progress=self.progress,
            display=self.display,
            finished=self._finished,
            given_up=self._given_up,
        )
        self.progress.restart_clock()
        with self.display, Interruptions().watching() as self.interruptions:
            pool.run(self.interruptions, check=self._check)
        return not self.coordinator.emptied and not self.stopped

    def _check(self) -> None:
        """Looks after the folder while the pool works: the lease, the status, a wish to stop."""
        if self.lease.lost.is_set():
            raise RunBusyError(f"{self.folder.uri}: another process has taken the run over; this one stops")
        now = time.monotonic()
        if now < self.status_due:
            return
        self.status_due = now + STATUS_SECONDS
        self._try(lambda: self.folder.put_status({**self.status(), "state": "running"}))
        with contextlib.suppress(StorageError):
            wish = self.folder.asked_to_stop()
            self.interruptions.finish |= wish != "no"
            self.interruptions.now |= wish == "now"

    def status(self) -> dict[str, Any]:
        """The content of `status.json`."""
        running = [
            {"video_id": video.video_id, "frames": video.frames, "expected": video.expected}
            for video in self.progress.running.values()
        ]
        written = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {**self.progress.to_dict(), "videos_running": running, "written": written}

    def _finished(self, task: VideoTask, event: Finished, earlier: tuple[Failure, ...]) -> None:
        for text in event.warnings:
            self._warn(f"{task.video_id}: {text}")
        if task.key in self.plan.failed_before:
            self._try(lambda: self.folder.forget_failure(task))
        if event.has_checkpoints:
            self._try(lambda: storage.delete(self.folder.checkpoints_of(task)))

    def _given_up(self, task: VideoTask, failures: tuple[Failure, ...]) -> None:
        last = failures[-1]
        self.failures.append(
            VideoFailure(video_id=task.video_id, error=last.error, message=last.message, attempts=len(failures))
        )
        self.display.note(f"failed: {task.video_id}: {last.message.splitlines()[-1] if last.message else last.error}")
        self._try(lambda: self.folder.fail(task, [dataclasses.asdict(failure) for failure in failures]))
        if self.max_failures is not None and len(self.failures) >= self.max_failures and not self.stopped:
            self.stopped = True
            self.coordinator.stop()
            self.display.note(f"{len(self.failures)} videos have failed: handing out no more, finishing those in hand")

    def _try(self, write: Callable[[], None]) -> None:
        """Notes about a video are not worth the run: what cannot be written becomes a warning."""
        try:
            write()
        except StorageError as error:
            self._warn(str(error))

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.display.note(f"warning: {text}")


def choose_size(
    settings: RunSettings, tracker: TrackerDescription, recorded: RunRecord | None = None, *, cores: int | None = None
) -> tuple[int, int]:
    """Returns the number of workers and the CPU threads of each.

    A run that was begun keeps its number of threads unless told otherwise, whatever the number of workers: with another
    one, sums are rounded in another order.
    """
    cores = cores or usable_cores()
    threads = settings.threads_per_worker
    if threads is None and recorded is not None:
        threads = recorded.environment.get("threads_per_worker")
    workers = settings.workers
    if workers is None:
        workers = _gpus(settings) if tracker.device == "cuda" else cores // (threads or CORES_PER_WORKER)
    workers = max(1, workers)
    return workers, threads or max(1, cores // workers)


def _gpus(settings: RunSettings) -> int:
    """Workers that fit on this machine's GPUs; on a cluster, one (say how many with --workers)."""
    if settings.address != "local":
        return 1
    import torch

    return int(torch.cuda.device_count() / settings.gpus_per_worker)


def refuse_other_divisions(folder: RunFolder, *, note: Callable[[str], None] = lambda text: None) -> None:
    """Raises RunBusyError where the whole run, or another division of it into shards, is under way."""
    for other in folder.other_leases():
        with Lease(other, note=note):  # what a dead process left behind is removed thereby
            pass


def _refuse_boxes_without_sta(manifest: Manifest, tracker: TrackerDescription) -> None:
    if tracker.boxes:
        return
    lines = [
        prompt.line
        for task in manifest.tasks
        for target in task.targets
        for prompt in target.prompts
        if prompt.mask_uri is None and prompt.mask_rle is None
    ]
    if lines:
        raise ManifestError(
            f"{len(lines)} prompt(s) are boxes (the first in line {lines[0]}): {BOX_NEEDS_STA}. "
            f"The weights are {tracker.weights}."
        )


def absolute(uri: str) -> str:
    """Workers run in folders of their own, so a relative path must be made absolute here."""
    path = storage.local_path(uri)
    return uri if path is None else str(path.absolute())
