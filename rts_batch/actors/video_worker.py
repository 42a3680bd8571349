"""The worker: it holds one model and turns whole videos into masks, one after another.

`VideoWorker` is a plain class; `rts_batch.actors.pool` makes a Ray actor of it. Masks go straight from the worker to
the run's folder, and only small events travel back to the driver.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

from rts_batch.actors.passes import expected_frames, reading, track_video
from rts_batch.actors.progress import Advanced, Event, Failed, Finished, Opened
from rts_batch.actors.prompts import PromptBook
from rts_batch.actors.tracker import TrackedTarget, TrackerDescription, find_factory
from rts_batch.config import DecoderName
from rts_batch.errors import RtsBatchError, StorageError, VideoError
from rts_batch.io import storage
from rts_batch.io.decoding import DecodingProcess
from rts_batch.io.results import ResultsSummary, ResultsWriter
from rts_batch.io.video import Damage, Frame, FrameSource
from rts_batch.manifest import VideoTask
from rts_batch.masks import encode_rle
from rts_batch.runs import RunFolder

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What every worker of a run is told."""

    out: str
    factory: str
    """Import path of the tracker factory."""
    tracker: TrackerDescription
    decoder: DecoderName
    threads: int
    extras: Mapping[str, str]
    """The manifest's further columns with their types."""
    strict_video: bool = False
    """Damage in a video makes it fail."""
    scratch: str | None = None
    """Folder for files under way; None takes the system's."""


class VideoWorker:
    """Loads the model once; `run` then processes a video and yields what happens.

    `fault_log` is a local file that takes the traceback of a fatal signal: evidence that the worker crashed by itself
    and was not killed from outside.
    """

    def __init__(self, settings: WorkerSettings, fault_log: str | None = None) -> None:
        if fault_log is not None:
            self._fault_log = open(fault_log, "w")  # noqa: SIM115 - faulthandler needs it for as long as the process lives
            faulthandler.enable(self._fault_log)
        cv2.setNumThreads(settings.threads)
        self._settings = settings
        self._folder = RunFolder(settings.out)
        self._decoding = DecodingProcess()
        self._decoding.start()  # while the model loads
        self._tracker = find_factory(settings.factory).load(settings.tracker, threads=settings.threads)

    def ready(self) -> str:
        """Answers once the model is loaded."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def run(self, task: VideoTask, attempt: int) -> Iterator[Event]:
        """Tracks one video and puts its masks in place. The last event is `Finished` or `Failed`."""
        position = _Position()
        try:
            with tempfile.TemporaryDirectory(prefix="rts-batch-", dir=self._settings.scratch) as scratch:
                yield from self._track(task, attempt, Path(scratch), position)
        except RtsBatchError as error:
            transient = isinstance(error, StorageError) and error.transient
            yield _failed(task, "transient" if transient else "permanent", error, str(error), position)
        except OSError as error:
            # Local trouble, a full disk say: another worker, or a later moment, may have none.
            yield _failed(task, "transient", error, str(error), position)
        except Exception as error:
            yield _failed(task, "crash", error, traceback.format_exc(limit=-8), position)

    def _track(self, task: VideoTask, attempt: int, scratch: Path, position: _Position) -> Iterator[Event]:
        started = time.time()
        path = storage.fetch(task.uri, scratch / "video")
        masks = scratch / "masks.parquet"
        with (
            self._decoding.open(path, decoder=self._settings.decoder, **reading(task)) as source,
            self._open_writer(task, source, masks) as writer,
        ):
            yield Opened(key=task.key, frames=expected_frames(source, task), decoder=source.info.decoder)
            book = PromptBook(task, source.info, boxes=self._settings.tracker.boxes)
            last_word = time.monotonic()
            for frame in self._track_frames(task, str(path), source, book, writer):
                position.frame, position.count = frame.index, position.count + 1
                position.end = max(position.end, frame.index + 1)
                if time.monotonic() - last_word >= PROGRESS_SECONDS:
                    last_word = time.monotonic()
                    yield Advanced(key=task.key, frames=position.count)
            if position.frame is None:
                raise VideoError(f"video {task.video_id}: {_no_frames(task)}")
            if self._settings.strict_video and source.damage:
                raise VideoError(f"video {task.video_id} is damaged: {'; '.join(source.damage.warnings())}")
            summary = writer.close(frames=position.end, fps=source.info.fps, duration=source.info.duration)
            warnings = (*source.warnings, *book.warnings)
            decoder, damage = source.info.decoder, source.damage
        seconds = time.time() - started
        report = self._report(task, attempt, position.count, summary, decoder, damage, warnings, started, seconds)
        self._folder.commit(task, masks, report)
        yield Finished(key=task.key, frames=position.count, seconds=seconds, warnings=warnings)

    def _track_frames(
        self, task: VideoTask, path: str, source: FrameSource, book: PromptBook, writer: ResultsWriter
    ) -> Iterator[Frame]:
        """Tracks and writes every frame, and yields it when its rows are written."""

        def reopen(**part: Any) -> FrameSource:
            return self._decoding.open(path, decoder=self._settings.decoder, **part)

        for frame, targets in track_video(task, self._tracker, book, source, reopen):
            for object_id, target in targets.items():
                _add_row(writer, object_id, frame, target)
            yield frame

    def _open_writer(self, task: VideoTask, source: FrameSource, path: Path) -> ResultsWriter:
        return ResultsWriter(
            path,
            video_id=task.video_id,
            height=source.info.height,
            width=source.info.width,
            targets={target.object_id: (target.category, target.extras) for target in task.targets},
            extras=self._settings.extras,
            task=_describe(task),
            weights=self._settings.tracker.fingerprint,
            profile="exact",
            covers="prompts" if task.annotates else task.direction,
            start=task.start,
        )

    def _report(
        self,
        task: VideoTask,
        attempt: int,
        frames: int,
        summary: ResultsSummary,
        decoder: str,
        damage: Damage,
        warnings: tuple[str, ...],
        started: float,
        seconds: float,
    ) -> dict[str, Any]:
        """The content of `videos/<key>.json`."""
        return {
            **_describe(task),
            "uri": storage.safe_uri(task.uri),
            "attempt": attempt,
            "frames": frames,
            "rows": summary.rows,
            "states": summary.states,
            "sha256": summary.sha256,
            "decoder": decoder,
            "damage": asdict(damage),
            "warnings": list(warnings),
            "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "frames_per_second": round(frames / max(seconds, 1e-9), 2),
            "worker": self.ready(),
            "threads": self._settings.threads,
            "environment": dict(self._settings.tracker.environment),
        }


@dataclass
class _Position:
    """How far an attempt has come, for the report of its failure."""

    frame: int | None = None
    count: int = 0
    end: int = 0
    """One past the highest frame."""


def _describe(task: VideoTask) -> dict[str, Any]:
    """The fields of a video that its files carry; not where it lies, which is no part of its masks."""
    return {
        "video_id": task.video_id,
        "key": task.key,
        "start": task.start,
        "end": task.end,
        "direction": task.direction,
        "objects": [target.object_id for target in task.targets],
    }


def _add_row(writer: ResultsWriter, object_id: int, frame: Frame, target: TrackedTarget) -> None:
    writer.add(
        object_id,
        frame=frame.index,
        time=frame.time,
        rle=encode_rle(target.mask, target.region),
        box=target.box,
        area=target.area,
        score=target.score,
        confidence=target.confidence,
        state=target.state,
    )


def _no_frames(task: VideoTask) -> str:
    if task.start == 0 and task.end is None:
        return "it has no frames"
    return f"it has no frames between `start` {task.start} and `end` {'(none)' if task.end is None else task.end}"


def _failed(task: VideoTask, kind: Any, error: BaseException, message: str, position: _Position) -> Failed:
    return Failed(key=task.key, kind=kind, error=type(error).__name__, message=message, frame=position.frame)
