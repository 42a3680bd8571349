"""A submission without Ray: the lane of a worker, in this process."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.limits import SpoolLimits
from rts_batch.manifest import Manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Job, WorkerSettings
from tests.support.stub_tracker import Stub

TRACKER = Stub.describe(RunSettings())


@functools.cache
def decoding() -> DecodingProcess:
    """For all lanes of a process of the tests that follow one another: starting one takes most of a short attempt."""
    return DecodingProcess()


class Workers:
    """One lane for all runs' folders: starting one costs a decoding process."""

    def __init__(self, spool: SpoolLimits = SpoolLimits(), scratch: Path | None = None) -> None:  # noqa: B008 - frozen
        self._settings = WorkerSettings(
            out="",
            factory="tests.support.stub_tracker:Stub",
            tracker=TRACKER,
            decoder="auto",
            threads=1,
            extras={},
            spool=spool,
            scratch=None if scratch is None else str(scratch),
        )
        self.lane: Lane | None = None

    def submit(self, out: str, manifest: Manifest) -> list[object]:
        """What a submission does to a folder, in this process. Returns the videos' ends."""
        self.lane = self.lane or Lane(self._settings)
        self.lane._settings = replace(self._settings, out=out)
        plan = RunFolder(out).prepare(manifest, RunRecord(results={"weights": TRACKER.fingerprint}, environment={}))
        return [list(self.lane.run(Job(task=task, attempt=1)))[-1] for task in plan.left]
