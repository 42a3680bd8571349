"""The worker: it holds one model and turns whole videos into masks, one after another.

`VideoWorker` is a plain class; `rts_batch.worker.process` runs it in a process of its own below a Ray actor. A
process with several lanes has one for each, all with the same model.
Masks go straight from the worker to the run's folder, and only small events travel back to the driver.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

from rts_batch.errors import CheckpointError, RtsBatchError, StorageError, VideoError
from rts_batch.io.results.writer import ResultsSummary, ResultsWriter
from rts_batch.io.storage import uris
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import Damage, Frame, FrameSource
from rts_batch.io.video.spool import bring
from rts_batch.manifest import VideoTask
from rts_batch.masks import TrackedFrame, encode_rle
from rts_batch.runs.folder import RunFolder
from rts_batch.worker.checkpoints import Checkpoints, Resumed, read_latest
from rts_batch.worker.messages import Advanced, Event, Failed, Finished, Opened, Phase, WorkerSettings
from rts_batch.worker.passes import Forward, TrackedRows, expected_frames, reading, track_video
from rts_batch.worker.prompts import PromptBook
from rts_batch.worker.timing import Timing
from rts_batch.worker.tracker import LoadedTracker, find_factory

PROGRESS_SECONDS = 0.5


class VideoWorker:
    """Loads the model once; `run` then processes a video and yields what happens.

    Args:
        settings: what the worker is told.
        leaving: says whether it must stop after the frame in hand, because its machine is about to go.
        tracker: a model that is loaded already, and may have scenes of other workers in other threads.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        leaving: Callable[[], bool] = lambda: False,
        tracker: LoadedTracker | None = None,
    ) -> None:
        self._leaving = leaving
        cv2.setNumThreads(settings.threads)
        self._settings = settings
        self._folder = RunFolder(settings.out)
        self._decoding = DecodingProcess()
        self._decoding.start()  # while the model loads
        self.tracker = tracker or find_factory(settings.factory).load(
            settings.tracker, threads=settings.threads, lanes=settings.lanes
        )

    def run(self, task: VideoTask, attempt: int, *, fetched: str | None = None) -> Iterator[Event]:
        """Tracks one video and puts its masks in place. The last event is `Finished` or `Failed`.

        `fetched` is where the video lies on this machine already, if it was fetched ahead.
        """
        position = _Position()
        try:
            with tempfile.TemporaryDirectory(prefix="rts-batch-", dir=self._settings.scratch) as scratch:
                yield from self._track(task, attempt, Path(scratch), position, fetched)
        except Leaving as error:
            yield _failed(task, "preempted", error, str(error), position)
        except RtsBatchError as error:
            transient = isinstance(error, StorageError) and error.transient
            yield _failed(task, "transient" if transient else "permanent", error, str(error), position)
        except OSError as error:
            # Local trouble, a full disk say: another worker, or a later moment, may have none.
            yield _failed(task, "transient", error, str(error), position)
        except Exception as error:
            yield _failed(task, "crash", error, traceback.format_exc(limit=-8), position)

    def _track(
        self, task: VideoTask, attempt: int, scratch: Path, position: _Position, fetched: str | None
    ) -> Iterator[Event]:
        started = time.time()
        yield Phase(key=task.key, phase="fetch")
        steps = Timing()
        with steps("fetch"):
            here: Path | RangedObject = (
                Path(fetched)
                if fetched is not None
                else bring(task.uri, scratch / "video", self._settings.spool, decoder=self._settings.decoder)
            )
            resumed = self._resume(task, attempt)
        checkpoints = self._checkpoints(task, attempt, resumed)
        yield Phase(key=task.key, phase="track")
        part = reading(task)
        if resumed is not None:
            # From the checkpoint's own frame on, so that there is one even where it was the video's last.
            part["start"] = resumed.checkpoint.frame
            position.pass_over(resumed)
        masks = scratch / "masks.parquet"
        with (
            self._decoding.open(here, decoder=self._settings.decoder, **part) as source,
            self._open_writer(task, source, masks) as writer,
        ):
            yield Opened(key=task.key, frames=expected_frames(source, task), decoder=source.info.decoder)
            book = PromptBook(task, source.info, boxes=self._settings.tracker.boxes)
            last_word = time.monotonic()
            for frame in self._track_frames(task, here, source, book, writer, checkpoints, resumed, steps):
                position.frame, position.count = frame.index, position.count + 1
                position.end = max(position.end, frame.index + 1)
                if time.monotonic() - last_word >= PROGRESS_SECONDS:
                    last_word = time.monotonic()
                    yield Advanced(key=task.key, frames=position.count)
            yield Phase(key=task.key, phase="write")
            if resumed is not None:
                resumed.add_damage(source.damage)
            if position.frame is None:
                raise VideoError(f"video {task.video_id}: {_no_frames(task)}")
            if self._settings.strict_video and source.damage:
                raise VideoError(f"video {task.video_id} is damaged: {'; '.join(source.damage.warnings())}")
            with steps("write"):
                summary = writer.close(frames=position.end, fps=source.info.fps, duration=source.info.duration)
            earlier = resumed.checkpoint.warnings if resumed else ()
            warnings = tuple(dict.fromkeys((*earlier, *source.warnings, *book.warnings)))
            decoder, damage = source.info.decoder, source.damage
        seconds = time.time() - started
        report = self._report(task, attempt, position.count, summary, decoder, damage, warnings, started, seconds)
        report["streamed"] = isinstance(here, RangedObject)
        report["step_seconds"] = steps.rounded()
        report["checkpoints"] = {
            "resumed_after": resumed.checkpoint.frame if resumed else None,
            "written": checkpoints.written,
        }
        self._folder.commit(task, masks, report, results=self._settings.results)
        yield Finished(
            key=task.key,
            frames=position.count,
            seconds=time.time() - started,  # the masks are in place now
            warnings=warnings,
            steps=steps.seconds,
            has_checkpoints=bool(checkpoints.segments),
        )

    def _resume(self, task: VideoTask, attempt: int) -> Resumed | None:
        """Where an earlier attempt left the video, if it wrote a checkpoint that can be gone on from."""
        settings = self._settings
        # Most videos never had one, and for them nothing is looked up.
        if settings.checkpoint_every is None or not (attempt > 1 or task.key in settings.checkpointed):
            return None
        found = read_latest(self._folder.checkpoints_of(task))
        if found is None:
            return None
        try:
            return Resumed(found, None if found.state is None else self.tracker.open_scene(task, found.state))
        except CheckpointError:
            return None  # another version's: begin again

    def _checkpoints(self, task: VideoTask, attempt: int, resumed: Resumed | None) -> Checkpoints:
        return Checkpoints(
            folder=self._folder.checkpoints_of(task),
            attempt=f"{attempt}-{uuid.uuid4().hex[:8]}",
            interval=self._settings.checkpoint_every,
            segments=resumed.checkpoint.segments if resumed else {},
            count=resumed.checkpoint.count if resumed else 0,
        )

    def _track_frames(
        self,
        task: VideoTask,
        here: Path | RangedObject,
        source: FrameSource,
        book: PromptBook,
        writer: ResultsWriter,
        checkpoints: Checkpoints,
        resumed: Resumed | None,
        steps: Timing,
    ) -> Iterator[Frame]:
        """Tracks and writes every frame, and yields it when it is tracked; its rows are written one frame later."""
        forward = Forward()
        if resumed is not None:
            forward = Forward(resumed.scene, resumed.checkpoint.frame)
            book.resume(resumed.checkpoint.prompts)
            for row in resumed.checkpoint.rows():
                writer.add(**row)

        def reopen(**part: Any) -> FrameSource:
            return self._decoding.open(here, decoder=self._settings.decoder, **part)

        def write(frame: Frame, targets: Mapping[int, TrackedFrame]) -> None:
            with steps("track"):
                for target in targets.values():
                    _ = target.mask  # may still be on its way from the device
            with steps("encode"):
                rows = [_row(object_id, frame, target) for object_id, target in targets.items()]
            with steps("write"):
                for row in rows:
                    writer.add(**row)
            checkpoints.note(rows)

        late: TrackedRows | None = None
        for rows in track_video(task, self.tracker, book, source, reopen, steps, forward):
            # A frame's rows are read while the device works on the next one.
            if late is not None:
                write(*late)
            late, frame = rows, rows[0]
            leaving = self._leaving()
            # The other passes are short, or have no state that could be gone on with.
            if forward.active and checkpoints.due(leaving=leaving):
                write(*late)
                late = None
                checkpoints.write(
                    frame=frame.index,
                    prompts=book.taken(),
                    damage=source.damage,
                    warnings=(*source.warnings, *book.warnings),
                    snapshot=forward.scene.snapshot if forward.scene is not None else None,
                )
            yield frame
            if leaving:
                raise Leaving(f"the worker was told to leave after frame {frame.index}")
        if late is not None:
            write(*late)

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
            profile=self._settings.tracker.profile,
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
            "uri": uris.safe_uri(task.uri),
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
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "threads": self._settings.threads,
            "lanes": self._settings.lanes,
            "environment": dict(self._settings.tracker.environment),
        }


class Leaving(Exception):
    """The worker's machine is about to go; the video goes on elsewhere."""


@dataclass
class _Position:
    """How far an attempt has come, for the report of its failure."""

    frame: int | None = None
    count: int = 0
    end: int = 0
    """One past the highest frame."""

    def pass_over(self, resumed: Resumed) -> None:
        """Counts what an earlier attempt has tracked."""
        self.frame, self.count = resumed.checkpoint.frame, resumed.checkpoint.count
        self.end = self.frame + 1


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


def _row(object_id: int, frame: Frame, target: TrackedFrame) -> dict[str, Any]:
    return {
        "object_id": object_id,
        "frame": frame.index,
        "time": frame.time,
        "rle": encode_rle(target.mask, target.region),
        "box": target.box,
        "area": target.area,
        "score": target.score,
        "confidence": target.confidence,
        "state": target.state,
    }


def _no_frames(task: VideoTask) -> str:
    if task.start == 0 and task.end is None:
        return "it has no frames"
    return f"it has no frames between `start` {task.start} and `end` {'(none)' if task.end is None else task.end}"


def _failed(task: VideoTask, kind: Any, error: BaseException, message: str, position: _Position) -> Failed:
    return Failed(key=task.key, kind=kind, error=_error_name(error), message=message, frame=position.frame)


def _error_name(error: BaseException) -> str:
    """The class's name; NumPy and PyTorch have names of their own for a lack of memory."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "MemoryError"
    return type(error).__name__
