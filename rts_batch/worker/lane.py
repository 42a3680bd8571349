"""A lane of a worker: a model and a decoding process, which do one attempt at a video after another.

A process with several lanes has a thread for each, all with the same model (`rts_batch.worker.__main__`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.worker.attempt import Attempt
from rts_batch.worker.messages import Event, Job, WorkerSettings
from rts_batch.worker.report import failure
from rts_batch.worker.tracker import LoadedTracker, find_factory


class Lane:
    """What lives as long as its worker.

    Args:
        settings: what the worker is told.
        leaving: says whether it must stop after the frame in hand, because its machine is about to go.
        tracker: a model that is loaded already, and may have scenes of other lanes in other threads.
        decoding: a process that is started already, for this lane alone.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        leaving: Callable[[], bool] = lambda: False,
        tracker: LoadedTracker | None = None,
        decoding: DecodingProcess | None = None,
    ) -> None:
        cv2.setNumThreads(settings.threads)
        self._settings = settings
        self._leaving = leaving
        self._decoding = decoding or DecodingProcess()
        self._decoding.start()  # while the model loads
        self.tracker = tracker or find_factory(settings.factory).load(
            settings.tracker, threads=settings.threads, lanes=settings.lanes
        )

    def run(self, job: Job) -> Iterator[Event]:
        """Track one video and put its masks in place. The last event is `Finished` or `Failed`."""
        attempt = Attempt(job, self._settings, tracker=self.tracker, decoding=self._decoding, leaving=self._leaving)
        try:
            # In a folder of the actor's, if there is one: that goes even when this process is killed.
            with tempfile.TemporaryDirectory(prefix="rts-batch-", dir=job.folder or self._settings.scratch) as scratch:
                yield from attempt.run(Path(scratch))
        except Exception as error:
            yield failure(error, key=job.task.key, frame=attempt.frame)
        finally:
            attempt.close()
