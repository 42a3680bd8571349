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

from rts_batch.errors import CheckpointError, PromptError, VideoError
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.frames import Damage, Frame, FrameRange, FrameSource
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.spool import Brought, bring_version
from rts_batch.masks import TrackedFrame
from rts_batch.runs.folder import RunFolder
from rts_batch.worker.checkpoints import Checkpoint, Checkpoints, read_latest
from rts_batch.worker.messages import Advanced, Event, Finished, Job, Opened, Phase, WorkerSettings
from rts_batch.worker.passes import Forward, TrackedRows, expected_frames, reading, track_video
from rts_batch.worker.prompts import PromptBook
from rts_batch.worker.report import Leaving, Report
from rts_batch.worker.rows import open_writer, row_of
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
    _earlier: Checkpoint | None
    """Where an earlier attempt has left the video."""
    _before: int
    """Frames that it had tracked."""
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
        self._job, self._task = job, job.task
        self._settings = settings
        self._tracker = tracker
        self._decoding = decoding
        self._leaving = leaving
        self._folder = RunFolder(settings.out)
        self._targets = {target.object_id: target for target in job.task.targets}
        # Most videos never had a checkpoint, and for them nothing is looked up.
        self._may_have_some = job.attempt > 1 or job.task.key in settings.checkpointed
        self._timing = Timing()
        self._forward = Forward()
        self.frame: int | None = None
        """The last frame that was tracked."""
        self._count = 0
        """Frames tracked, those of earlier attempts included."""
        self._end = 0
        """One past the highest of them."""

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
            self._earlier = self._resume()
        masks = scratch / "masks.parquet"
        report = yield from self._run_through(masks)
        self._folder.commit(task, masks, report.to_dict(task, settings), results=settings.results)
        yield Finished(
            key=task.key,
            frames=self._count,
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
            earlier = self._earlier
            # Whatever is wrong with the video itself will be met again.
            if earlier is None or self._count > earlier.count or isinstance(error, PromptError):
                raise
        self._earlier = self._resume(below=earlier.frame)
        return (yield from self._run_through(masks))

    def _go_on(self, masks: Path) -> Generator[Event, None, Report]:
        key, self._checkpoints, self._before = self._task.key, self._open_checkpoints(), self._count
        with self._open(self._part()) as self._source, open_writer(masks, self._task, self._settings) as self._writer:
            self._check_size()
            frames, decoder = expected_frames(self._source, self._task, self._before), self._source.info.decoder
            yield Opened(key=key, frames=frames, decoder=decoder, earlier=self._before)
            self._open_book()
            yield Phase(key=key, phase="track")  # from here on silence speaks against the video, and not a store
            yield from self._track()
            yield Phase(key=key, phase="write")
            return self._close()

    def close(self) -> None:
        """Give back what the video has on the device, however the attempt ended."""
        self._forward.close()

    # Before the first frame

    def _bring(self, path: Path) -> Brought:
        fetched = self._job.fetched
        if fetched is not None and isinstance(fetched.video, Path) and fetched.video.exists():
            return fetched  # where it is gone, as from a folder that somebody has tidied up, it is fetched here
        return bring_version(self._task.uri, path, self._settings.spool, decoder=self._settings.decoder)

    def _resume(self, below: int | None = None) -> Checkpoint | None:
        """Put back the state in which an earlier attempt left the video, if it wrote a checkpoint that can be used.

        With `below`, one that was written before that frame.
        """
        self.close()
        self._forward, self.frame, self._count, self._end = Forward(), None, 0, 0
        if self._settings.checkpoint_every is None or not self._may_have_some:
            return None
        folder = self._folder.checkpoints_of(self._task)
        earlier = read_latest(folder, version=self._version, below=below)
        if earlier is None:
            return None
        try:
            scene = None if earlier.state is None else self._tracker.open_scene(self._task, earlier.state)
        except CheckpointError:
            return None  # another version's: begin again
        self._forward = Forward(scene, earlier.frame)
        self.frame, self._count, self._end = earlier.frame, earlier.count, earlier.frame + 1
        return earlier

    def _open_checkpoints(self) -> Checkpoints:
        return Checkpoints(
            folder=self._folder.checkpoints_of(self._task),
            task=self._task,
            attempt=f"{self._job.attempt}-{uuid.uuid4().hex[:8]}",
            interval=self._settings.checkpoint_every,
            version=self._version,
            keep=self._settings.keep_checkpoints,
            segments=self._earlier.segments if self._earlier else {},
            count=self._count,
        )

    def _part(self) -> FrameRange:
        """What of the video is read first."""
        part = reading(self._task)
        # From the checkpoint's own frame on, so that there is one even where it was the video's last.
        return replace(part, start=self._earlier.frame) if self._earlier else part

    def _open(self, wanted: FrameRange) -> FrameSource:
        return self._decoding.open(self._video, wanted, uri=self._task.uri, decoder=self._settings.decoder)

    def _check_size(self) -> None:
        if self._earlier is not None and self._earlier.size not in (None, self._size):
            raise VideoError(f"video {self._task.video_id}: its frames have another size than at its checkpoint")

    def _open_book(self) -> None:
        """Read the prompts, and take up the rows of an earlier attempt."""
        tracker = self._settings.tracker
        self._book = PromptBook(self._task, self._source.info, boxes=tracker.boxes, overlap=tracker.overlap)
        if self._earlier is not None:
            self._book.resume(self._earlier.prompts, self._earlier.frame)
            for row in self._earlier.rows(self._task, *self._size):
                self._writer.add(row)

    # Frame by frame

    def _track(self) -> Iterator[Event]:
        """Track every frame; its rows are read and written one frame later, while the device works on the next."""
        tracking = track_video(
            self._task, self._tracker, self._book, self._source, self._open, self._timing, self._forward
        )
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
            if self._forward.active and self._checkpoints.due(leaving=leaving):
                self._write(*late)
                late = None
                yield from self._write_checkpoint(frame)
            self.frame, self._count, self._end = frame, self._count + 1, max(self._end, frame + 1)
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                yield Advanced(key=self._task.key, frames=self._count)
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
        self._checkpoints.note(rows if self._forward.active else ())  # no other pass writes any

    def _write_checkpoint(self, frame: int) -> Iterator[Phase]:
        yield Phase(key=self._task.key, phase="write")
        self._checkpoints.write(
            frame=frame,
            size=self._size,
            prompts=self._book.taken(),
            damage=self._damage(),
            warnings=self._warnings(of_frames=True),  # rows may be put right before it is gone on with
            snapshot=None if (scene := self._forward.scene) is None else scene.snapshot,
        )
        yield Phase(key=self._task.key, phase="track")

    @property
    def _size(self) -> tuple[int, int]:
        return self._source.info.height, self._source.info.width

    def _damage(self) -> Damage:
        """What is wrong with the video, as far as it has been read by any attempt."""
        damage = self._source.damage
        return damage.merged(self._earlier.damage) if self._earlier else damage

    def _warnings(self, *, of_frames: bool = False) -> tuple[str, ...]:
        earlier = self._earlier.warnings if self._earlier else ()
        of_book = self._book.warnings_of_frames if of_frames else self._book.warnings
        return tuple(dict.fromkeys((*earlier, *self._source.warnings, *of_book)))

    # After the last frame

    def _close(self) -> Report:
        """Finish the masks file, unless the video is one that must fail."""
        task, info, damage = self._task, self._source.info, self._damage()
        if self.frame is None:
            end = "(none)" if task.end is None else task.end
            part = "" if task.start == 0 and task.end is None else f" between `start` {task.start} and `end` {end}"
            raise VideoError(f"video {task.video_id}: it has no frames{part}")
        self._book.check_annotated()
        if self._settings.strict_video and damage:
            raise VideoError(f"video {task.video_id} is damaged: {'; '.join(damage.warnings())}")
        with self._timing("write"):
            results = self._writer.close(
                frames=self._end, fps=info.fps, duration=info.duration, quality=self._settings.tracker.quality_about
            )
        return Report(
            attempt=self._job.attempt,
            frames=self._count,
            earlier=self._before,
            results=results,
            decoder=info.decoder,
            streamed=isinstance(self._video, RangedObject),
            damage=damage,
            warnings=self._warnings(),
            timing=self._timing,
            resumed_after=self._earlier.frame if self._earlier else None,
            checkpoints_written=self._checkpoints.written,
        )
