"""One submission from its manifest to its summary: what `rts-batch submit` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rts_batch.actors.cluster import ray_session, run_folder_on_this_host, usable_cores
from rts_batch.actors.coordinator import Coordinator, Failure
from rts_batch.actors.progress import Display, Finished, RunProgress
from rts_batch.actors.prompts import BOX_NEEDS_STA
from rts_batch.actors.tracker import TrackerDescription, find_factory
from rts_batch.actors.video_worker import WorkerSettings
from rts_batch.config import RunSettings
from rts_batch.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
    ManifestError,
    RunBusyError,
    StorageError,
)
from rts_batch.io import storage
from rts_batch.lease import Lease
from rts_batch.manifest import Manifest, VideoTask, read_manifest
from rts_batch.runs import Plan, RunFolder, RunRecord, expected_lengths, versions

CORES_PER_WORKER = 4
"""Beyond this many threads one frame gains little; several videos side by side gain nearly everything."""


@dataclass(frozen=True, kw_only=True)
class VideoFailure:
    video_id: str
    error: str
    message: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a submission ended."""

    out: str
    weights: str
    videos: int
    done: int
    """Videos whose masks are in place now, `already_done` included."""
    already_done: int
    failures: tuple[VideoFailure, ...]
    left_out: tuple[str, ...]
    """Manifest rows that `--skip-invalid` left out, with their problems."""
    frames: int
    seconds: float
    interrupted: bool
    warnings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.failures:
            return EXIT_SOME_FAILED if self.done else EXIT_FAILED
        return EXIT_OK

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": self.out,
            "masks": storage.join(self.out, "masks"),
            "weights": self.weights,
            "videos": self.videos,
            "done": self.done,
            "already_done": self.already_done,
            "failed": len(self.failures),
            "not_started": self.videos - self.done - len(self.failures),
            "frames": self.frames,
            "seconds": round(self.seconds, 2),
            "frames_per_second": round(self.frames / max(self.seconds, 1e-9), 2),
            "interrupted": self.interrupted,
            "exit_code": self.exit_code,
            "failures": [dataclasses.asdict(failure) for failure in self.failures],
            "rows_left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }


def submit(
    manifest_uri: str, out: str, settings: RunSettings, *, display: Display, skip_invalid: bool = False
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
    manifest = read_manifest(manifest_uri, skip_invalid=skip_invalid)
    tracker = find_factory(settings.tracker).describe(settings)
    _refuse_boxes_without_sta(manifest, tracker)
    folder = RunFolder(_absolute(out))
    recorded = folder.record()
    workers, threads = choose_size(settings, tracker, recorded)
    environment = {**tracker.environment, "threads_per_worker": threads, "versions": versions()}
    record = RunRecord(results={"weights": tracker.fingerprint, **tracker.settings}, environment=environment)
    with Lease(folder.lease_uri, note=display.note) as lease:
        plan = folder.prepare(manifest, record)
        warnings = [*([tracker.warning] if tracker.warning else []), *plan.warnings]
        for text in warnings:
            display.note(f"warning: {text}")
        job = _Job(
            folder=folder,
            manifest=manifest,
            plan=plan,
            settings=settings,
            tracker=tracker,
            results=record.results,
            workers=workers,
            threads=threads,
            display=display,
            lease=lease,
        )
        interrupted = job.run() if plan.left else False
        summary = Summary(
            out=folder.uri,
            weights=storage.safe_uri(tracker.weights),
            videos=len(manifest.tasks),
            done=plan.done + job.progress.done,
            already_done=plan.done,
            failures=tuple(job.failures),
            left_out=manifest.invalid,
            frames=job.progress.finished_frames,
            seconds=job.progress.seconds if plan.left else 0.0,
            interrupted=interrupted,
            warnings=(*warnings, *job.warnings),
        )
        folder.put_summary(summary.to_dict())
    return summary


@dataclass(kw_only=True)
class _Job:
    """The part of a submission that needs Ray."""

    folder: RunFolder
    manifest: Manifest
    plan: Plan
    settings: RunSettings
    tracker: TrackerDescription
    results: Mapping[str, Any]
    workers: int
    threads: int
    display: Display
    lease: Lease
    failures: list[VideoFailure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    progress: RunProgress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = RunProgress(videos=len(self.manifest.tasks), already_done=self.plan.done)

    def run(self) -> bool:
        """Runs what is left; returns whether it was interrupted."""
        coordinator = Coordinator(self.plan.left, lengths=expected_lengths(self.plan.left))
        local = self.settings.address == "local"
        with run_folder_on_this_host() as scratch:
            worker_settings = WorkerSettings(
                out=self.folder.uri,
                factory=self.settings.tracker,
                tracker=self.tracker,
                decoder=self.settings.decoder,
                threads=self.threads,
                extras=self.manifest.extras,
                results=self.results,
                scratch=str(scratch) if local else None,
            )
            workers = min(self.workers, len(self.plan.left))
            with ray_session(self.settings, workers=workers, folder=scratch):
                return self._run_pool(coordinator, worker_settings, workers)

    def _run_pool(self, coordinator: Coordinator, worker_settings: WorkerSettings, workers: int) -> bool:
        # Importing the pool imports Ray, whose settings must stand in the environment before.
        from rts_batch.actors.interruptions import Interruptions
        from rts_batch.actors.pool import Pool, PoolSize

        settings = self.settings
        pool = Pool(
            coordinator,
            worker_settings,
            size=PoolSize(
                most=workers,
                least=min(settings.min_workers, workers),
                cpus=settings.cpus_per_worker,
                gpus=settings.gpus_per_worker if self.tracker.device == "cuda" else 0,
                resources=settings.resources,
            ),
            stall_seconds=settings.stall_timeout,
            progress=self.progress,
            display=self.display,
            finished=self._finished,
            given_up=self._given_up,
        )
        self.progress.restart_clock()
        with self.display, Interruptions().watching() as interruptions:
            pool.run(interruptions, check=self._check_lease)
        return not coordinator.emptied

    def _check_lease(self) -> None:
        if self.lease.lost.is_set():
            raise RunBusyError(f"{self.folder.uri}: another process has taken the run over; this one stops")

    def _finished(self, task: VideoTask, event: Finished, earlier: tuple[Failure, ...]) -> None:
        for text in event.warnings:
            self._warn(f"{task.video_id}: {text}")
        self._try(lambda: self.folder.forget_failure(task))

    def _given_up(self, task: VideoTask, failures: tuple[Failure, ...]) -> None:
        last = failures[-1]
        self.failures.append(
            VideoFailure(video_id=task.video_id, error=last.error, message=last.message, attempts=len(failures))
        )
        self.display.note(f"failed: {task.video_id}: {last.message.splitlines()[-1] if last.message else last.error}")
        self._try(lambda: self.folder.fail(task, [dataclasses.asdict(failure) for failure in failures]))

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


def _absolute(uri: str) -> str:
    """Workers run in folders of their own, so a relative path must be made absolute here."""
    path = storage.local_path(uri)
    return uri if path is None else str(path.absolute())
