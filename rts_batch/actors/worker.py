"""The Ray actor: it keeps a worker's process, and has the next video fetched while that process tracks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import ray

from rts_batch.actors.members import Welcome
from rts_batch.actors.notices import Notice, drain_node, watch
from rts_batch.actors.scratch import scratch_folder
from rts_batch.errors import RtsBatchError
from rts_batch.io.video.spool import Brought, bring_version
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Event, Failed, Finished, Job, WorkerSettings
from rts_batch.worker.process import StartLost, WorkerProcess

CONTROL = "control"
"""The concurrency group of the methods that answer while a video is being tracked."""


START_ATTEMPTS = 5
"""Processes in a row that may be lost before they are ready."""

LISTEN_SECONDS = 0.5
"""An answer to the pool waits no longer, unless a video ends: free lanes can then be given further videos."""


class WorkerActor:
    """One worker of the pool. Ray restarts and retries nothing of it.

    Args:
        settings: what the worker is told.
        stall_seconds: without progress for so long, a video counts as hung.

    Raises:
        ClusterError: the model cannot be loaded.
    """

    def __init__(self, settings: WorkerSettings, stall_seconds: float) -> None:
        self._own = contextlib.ExitStack()
        if settings.scratch is None:  # elsewhere than beside the driver, whose folder is removed after a kill
            scratch = self._own.enter_context(scratch_folder(Path(tempfile.gettempdir())))
            settings = replace(settings, scratch=str(scratch))
        self._settings = settings
        self._stall_seconds = stall_seconds
        self._process = self._start()
        self._ahead = FetchedAhead(settings)
        self._coming: list[Job] = []
        """Videos that are still being fetched."""
        self._held: dict[str, contextlib.ExitStack] = {}
        """What to let go when a video in hand ends, by its key."""
        if settings.watch_notices:
            threading.Thread(target=self._watch_notices, name="notices", daemon=True).start()
        with contextlib.suppress(ValueError):  # raised elsewhere than in the main thread
            signal.signal(signal.SIGTERM, lambda number, frame: self._terminate())

    def ready(self) -> Welcome:
        """Answer once the model is loaded."""
        return Welcome(self._process.name, ray.get_runtime_context().get_node_id())

    def work(self, jobs: Sequence[Job]) -> list[Event]:
        """Begin these videos in free lanes, go on with those in hand, and return what has happened to either.

        Comes back when a video has ended or a moment has passed; the pool then calls again. Calls that return are what
        Ray's client (`ray://`) can do as well, a stream is not.
        """
        for job in jobs:
            self._ahead.want(job.task)
        self._coming += jobs
        if self._coming and not self._process.busy and all(self._ahead.is_fetching(job.task) for job in self._coming):
            self._ahead.wait(self._coming[0].task, LISTEN_SECONDS)
        for job in [job for job in self._coming if not self._ahead.is_fetching(job.task)]:
            self._begin(job)
        events = self._process.events(LISTEN_SECONDS)
        for event in events:
            if isinstance(event, Finished | Failed):
                self._held.pop(event.key).close()
        if self._process.spoiled and not self._process.busy:
            self._process.close()
        return events

    def _begin(self, job: Job) -> None:
        process = self._process
        if not process.busy and (not process.alive or (job.suspect and process.used)):
            process.close()
            self._process = self._start()
        held = self._held[job.task.key] = contextlib.ExitStack()
        fetched = held.enter_context(self._ahead.taken(job.task))
        folder = None
        with contextlib.suppress(OSError):  # which the process will meet too, and tell
            # A process that is killed leaves behind what it has made, two gigabytes of video say.
            making = tempfile.TemporaryDirectory(
                prefix="rts-batch-", dir=self._settings.scratch, ignore_cleanup_errors=True
            )
            folder = held.enter_context(making)
        self._process.begin(replace(job, fetched=fetched, folder=folder))
        self._coming.remove(job)

    def fetch(self, task: VideoTask) -> None:
        """Begin to fetch the video that will probably be the next."""
        self._ahead.begin(task)

    def leave(self) -> None:
        """Have the process stop after the frames in hand: this machine is about to go."""
        self._process.leave()

    def _watch_notices(self) -> None:
        context = ray.get_runtime_context()

        def told(notice: Notice) -> None:
            self.leave()
            drain_node(context.get_node_id(), address=context.gcs_address, notice=notice)

        watch(told, stopped=threading.Event())

    def _terminate(self) -> None:
        """SIGTERM: leave after the frames in hand; without any, at once. The pool ends an actor that has left."""
        if not self._process.busy:
            os._exit(128 + signal.SIGTERM)
        self.leave()

    def _start(self) -> WorkerProcess:
        for _ in range(START_ATTEMPTS - 1):
            with contextlib.suppress(StartLost):
                return WorkerProcess(self._settings, stall_seconds=self._stall_seconds)
        return WorkerProcess(self._settings, stall_seconds=self._stall_seconds)


@dataclass(eq=False)
class Coming:
    """A video on its way into a folder of its own."""

    folder: Path
    thread: threading.Thread = field(init=False)
    brought: Brought | None = None
    """Once it is here; None where it could not be fetched, or is to be read where it lies."""

    def remove(self) -> None:
        """Wait for the rest of it, and remove it."""
        self.thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)


class FetchedAhead:
    """Videos that are fetched before their turn, each in a folder of its own until it ends.

    The pool has the next one fetched (in a thread of the actor's) while the one before may still be on its way to its
    lane. So a video that has been handed out is `wanted` and stays; of the others there is one, as the disk's quota has
    it: one for each lane, and one more.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._fetched: dict[str, Coming] = {}
        self._wanted: set[str] = set()
        """Keys of the videos that were handed out and have not ended."""
        self._last = ""
        """Key of the video that was asked for last."""

    def begin(self, task: VideoTask) -> None:
        """Begin to fetch a video, in the place of the one that was fetched for nothing, if there is one."""
        with self._lock:
            self._last = task.key
            left = [self._fetched.pop(key) for key in self._fetched.keys() - self._wanted - {task.key}]
        for coming in left:
            coming.remove()
        with self._lock:  # meanwhile the video may have been handed out, or another one asked for
            if self._last == task.key and task.key not in self._fetched.keys() | self._wanted:
                folder = tempfile.mkdtemp(prefix="rts-batch-next-", dir=self._settings.scratch)
                coming = self._fetched[task.key] = Coming(Path(folder))
                coming.thread = threading.Thread(target=self._fetch, args=(task.uri, coming), daemon=True)
                coming.thread.start()

    def want(self, task: VideoTask) -> None:
        """Keep a video that was handed out until it has been `taken` and given back."""
        with self._lock:
            self._wanted.add(task.key)

    def is_fetching(self, task: VideoTask) -> bool:
        """Whether this video is on its way."""
        with self._lock:
            coming = self._fetched.get(task.key)
        return coming is not None and coming.thread.is_alive()

    def wait(self, task: VideoTask, seconds: float) -> None:
        """Wait until this video is not on its way, but no longer than that."""
        with self._lock:
            coming = self._fetched.get(task.key)
        if coming is not None:
            coming.thread.join(seconds)

    @contextlib.contextmanager
    def taken(self, task: VideoTask) -> Iterator[Brought | None]:
        """Give the video if it is here, or None; what is here is removed afterwards."""
        with self._lock:
            coming = self._fetched.pop(task.key, None)
        try:
            if coming is not None:
                coming.thread.join()
            yield None if coming is None else coming.brought
        finally:
            if coming is not None:
                coming.remove()
            with self._lock:
                self._wanted.discard(task.key)

    def _fetch(self, uri: str, coming: Coming) -> None:
        # The worker will fetch it again and tell the trouble.
        with contextlib.suppress(RtsBatchError, OSError):
            found = bring_version(uri, coming.folder, self._settings.spool, decoder=self._settings.decoder)
            coming.brought = found if isinstance(found.video, Path) else None  # what is streamed needs no fetching
