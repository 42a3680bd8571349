"""One attempt at one video: fetch, decode, track and encode frame by frame, and put the masks in place.

Masks go straight from the worker to the run's folder, and only small events travel back to the driver.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rts_batch.errors import PromptError, VideoError
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.frames import Frame, FrameRange, FrameSource
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.spool import Brought, bring_version
from rts_batch.masks import TrackedFrame
from rts_batch.runs.folder import RunFolder
from rts_batch.worker.checkpoints import Checkpoints
from rts_batch.worker.messages import Advanced, Event, Finished, Job, Opened, Phase, WorkerSettings
from rts_batch.worker.passes import TrackedRows, expected_frames, reading, track_video
from rts_batch.worker.prompts import PromptBook
from rts_batch.worker.report import Leaving, Report
from rts_batch.worker.rows import open_writer, row_of
from rts_batch.worker.standing import Standing, left_by_earlier
from rts_batch.worker.timing import Timing
from rts_batch.worker.tracker import LoadedTracker

PROGRESS_SECONDS = 0.5


class Attempt:
    """What lives for one attempt at one video.

    Args:
        job: the video, and which attempt it is.
        settings: what the worker is told.
        tracker: the model.
        decoding: reads the video; no other one is open in it.
        leaving: says whether to stop after the frame in hand.
    """

    _video: Path | RangedObject
    _version: str
    """Of the video's content: a checkpoint of another one is passed over."""
    _before: int
    """Frames that an earlier attempt had tracked."""
    _checkpoints: Checkpoints
    _source: FrameSource
    _writer: ResultsWriter
    _book: PromptBook

    def __init__(
        self,
        job: Job,
        settings: WorkerSettings,
        *,
        tracker: LoadedTracker,
        decoding: DecodingProcess,
        leaving: Callable[[], bool],
    ) -> None:
        self._job = job
        self._task = job.task
        self._settings = settings
        self._tracker = tracker
        self._decoding = decoding
        self._leaving = leaving
        self._folder = RunFolder(settings.out)
        self._targets = {target.object_id: target for target in job.task.targets}
        # Most videos never had a checkpoint, and for them nothing is looked up.
        self._may_have_some = job.attempt > 1 or job.task.key in settings.checkpointed
        self._timing = Timing()
        self._standing = Standing()

    @property
    def frame(self) -> int | None:
        """The last frame that was tracked."""
        return self._standing.frame

    def run(self, scratch: Path) -> Iterator[Event]:
        """Track the video and put its masks in place; `scratch` is an empty folder. The last event is `Finished`.

        Raises:
            Leaving: the worker must go; a checkpoint has been written if that was worth it.
            RtsBatchError: the video cannot be tracked, or a file not be read or written.
        """
        task, settings = self._task, self._settings
        yield Phase(key=task.key, phase="fetch")
        with self._timing("fetch"):
            self._video, self._version = self._bring(scratch / "video")
            self._resume()
        masks = scratch / "masks.parquet"
        report = yield from self._run_through(masks)
        self._folder.commit(task, masks, report.to_dict(task, settings), results=settings.results)
        yield Finished(
            key=task.key,
            frames=self._standing.count,
            seconds=self._timing.total,  # the masks are in place now
            earlier=self._before,
            warnings=report.warnings,
            steps=self._timing.seconds,
            states=report.results.states,
            has_checkpoints=not settings.keep_checkpoints and (self._may_have_some or self._checkpoints.written > 0),
        )

    def _run_through(self, masks: Path) -> Generator[Event, None, Report]:
        """Go on from the checkpoint, or from the one before where that does not fit the video."""
        try:
            return (yield from self._go_on(masks))
        except VideoError as error:
            earlier = self._standing.earlier
            # Whatever is wrong with the video itself will be met again.
            if earlier is None or self._standing.count > earlier.count or isinstance(error, PromptError):
                raise
        self._resume(below=earlier.frame)
        return (yield from self._run_through(masks))

    def _go_on(self, masks: Path) -> Generator[Event, None, Report]:
        key, self._checkpoints, self._before = self._task.key, self._open_checkpoints(), self._standing.count
        with self._open(self._part()) as self._source, open_writer(masks, self._task, self._settings) as self._writer:
            self._standing.check_size(self._task.video_id, self._size)
            frames, decoder = expected_frames(self._source, self._task, self._before), self._source.info.decoder
            yield Opened(key=key, frames=frames, decoder=decoder, earlier=self._before)
            self._open_book()
            yield Phase(key=key, phase="track")  # from here on silence speaks against the video, and not a store
            yield from self._track()
            yield Phase(key=key, phase="write")
            return self._close()

    def close(self) -> None:
        """Give back what the video has on the device, however the attempt ended."""
        self._standing.forward.close()

    # Before the first frame

    def _bring(self, path: Path) -> Brought:
        fetched = self._job.fetched
        if fetched is not None and isinstance(fetched.video, Path) and fetched.video.exists():
            return fetched  # where it is gone, as from a folder that somebody has tidied up, it is fetched here
        return bring_version(self._task.uri, path, self._settings.spool, decoder=self._settings.decoder)

    def _resume(self, below: int | None = None) -> None:
        """Go back to where an earlier attempt left the video; with `below`, to what it left before that frame."""
        self.close()
        self._standing = Standing()
        if self._settings.checkpoint_every is not None and self._may_have_some:
            folder = self._folder.checkpoints_of(self._task)
            self._standing = left_by_earlier(self._task, self._tracker, folder, version=self._version, below=below)

    def _open_checkpoints(self) -> Checkpoints:
        return Checkpoints(
            folder=self._folder.checkpoints_of(self._task),
            task=self._task,
            attempt=f"{self._job.attempt}-{uuid.uuid4().hex[:8]}",
            interval=self._settings.checkpoint_every,
            version=self._version,
            keep=self._settings.keep_checkpoints,
            segments=self._standing.earlier.segments if self._standing.earlier else {},
            count=self._standing.count,
        )

    def _part(self) -> FrameRange:
        """What of the video is read first."""
        part, earlier = reading(self._task), self._standing.earlier
        # From the checkpoint's own frame on, so that there is one even where it was the video's last.
        return replace(part, start=earlier.frame) if earlier else part

    def _open(self, wanted: FrameRange) -> FrameSource:
        return self._decoding.open(self._video, wanted, uri=self._task.uri, decoder=self._settings.decoder)

    def _open_book(self) -> None:
        """Read the prompts, and take up the rows of an earlier attempt."""
        tracker, earlier = self._settings.tracker, self._standing.earlier
        self._book = PromptBook(self._task, self._source.info, boxes=tracker.boxes, overlap=tracker.overlap)
        if earlier is not None:
            self._book.resume(earlier.prompts, earlier.frame)
            for row in earlier.rows(self._task, *self._size):
                self._writer.add(row)
                if row.state == "prompt" and not row.area:
                    self._book.empty.add((row.object_id, row.frame))

    # Frame by frame

    def _track(self) -> Iterator[Event]:
        """Track every frame; its rows are read and written one frame later, while the device works on the next."""
        forward = self._standing.forward
        tracking = track_video(self._task, self._tracker, self._book, self._source, self._open, self._timing, forward)
        with closing(tracking):
            yield from self._take(tracking)

    def _take(self, tracking: Iterator[TrackedRows]) -> Iterator[Event]:
        late: TrackedRows | None = None
        told = time.monotonic()
        for tracked in tracking:
            if late is not None:
                self._write(*late)
            late, frame = tracked, tracked[0].index
            leaving = self._leaving()
            # The other passes are short, or have no state that could be gone on with.
            if self._standing.forward.active and self._checkpoints.due(leaving=leaving):
                self._write(*late)
                late = None
                yield from self._write_checkpoint(frame)
            self._standing.advance(frame)
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                yield Advanced(key=self._task.key, frames=self._standing.count)
            if leaving:
                raise Leaving(f"the worker was told to leave after frame {frame}")
        if late is not None:
            self._write(*late)

    def _write(self, frame: Frame, late: Mapping[int, TrackedFrame]) -> None:
        with self._timing("track"):
            targets = dict(late)  # they may still be on their way from the device
        self._book.check_masks(frame.index, targets)
        with self._timing("encode"):
            info, of = self._source.info, self._targets
            rows = [row_of(self._task, info, frame, of[object_id], target) for object_id, target in targets.items()]
        with self._timing("write"):
            for row in rows:
                self._writer.add(row)
        self._checkpoints.note(rows if self._standing.forward.active else ())  # no other pass writes any

    def _write_checkpoint(self, frame: int) -> Iterator[Phase]:
        scene = self._standing.forward.scene
        yield Phase(key=self._task.key, phase="write")
        self._checkpoints.write(
            frame=frame,
            size=self._size,
            prompts=self._book.taken(),
            damage=self._standing.damage(self._source.damage),
            warnings=self._warnings(of_frames=True),  # rows may be put right before it is gone on with
            snapshot=None if scene is None else scene.snapshot,
        )
        yield Phase(key=self._task.key, phase="track")

    @property
    def _size(self) -> tuple[int, int]:
        return self._source.info.height, self._source.info.width

    def _warnings(self, *, of_frames: bool = False) -> tuple[str, ...]:
        of_book = self._book.warnings_of_frames if of_frames else self._book.warnings
        return tuple(dict.fromkeys((*self._standing.warnings, *self._source.warnings, *of_book)))

    # After the last frame

    def _close(self) -> Report:
        """Finish the masks file, unless the video is one that must fail."""
        task, info, earlier = self._task, self._source.info, self._standing.earlier
        damage = self._standing.damage(self._source.damage)
        if self.frame is None:
            end = "(none)" if task.end is None else task.end
            part = "" if task.start == 0 and task.end is None else f" between `start` {task.start} and `end` {end}"
            raise VideoError(f"video {task.video_id}: it has no frames{part}")
        self._book.check_annotated()
        if self._settings.strict_video and damage:
            raise VideoError(f"video {task.video_id} is damaged: {'; '.join(damage.warnings())}")
        with self._timing("write"):
            quality = self._settings.tracker.quality_about
            results = self._writer.close(
                frames=self._standing.end, fps=info.fps, duration=info.duration, quality=quality
            )
        return Report(
            attempt=self._job.attempt,
            frames=self._standing.count,
            earlier=self._before,
            results=results,
            decoder=info.decoder,
            streamed=isinstance(self._video, RangedObject),
            damage=damage,
            warnings=self._warnings(),
            timing=self._timing,
            resumed_after=earlier.frame if earlier else None,
            checkpoints_written=self._checkpoints.written,
        )
