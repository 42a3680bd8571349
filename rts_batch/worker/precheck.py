"""`rts-batch validate --deep`: opens every video of a manifest and holds its prompts against it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from rts_batch.config import Overlap
from rts_batch.errors import RtsBatchError
from rts_batch.io.video.frames import FrameRange
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.spool import bring
from rts_batch.manifest import VideoTask
from rts_batch.manifest.boxes import Size, doubts_of_frames
from rts_batch.worker.overlaps import shared_pixels
from rts_batch.worker.passes import reading
from rts_batch.worker.prompts import PromptBook


@dataclass(frozen=True)
class DeepCheck:
    """What was found of one video."""

    video_id: str
    problem: str | None
    """Why the video would fail, as a run would say it; None where nothing is known against it."""
    warnings: tuple[str, ...] = ()
    decoder: str | None = None
    size: Size | None = None
    """Of its frames."""


def check_videos(
    tasks: tuple[VideoTask, ...],
    *,
    overlap: Overlap = "merge",
    processes: int = 2,
) -> Iterator[DeepCheck]:
    """Check videos in parallel and yield what is found in the order of `tasks`.

    Each video is fetched, opened, and decoded up to its last prompt; what lies behind that is not looked at.
    """
    idle: SimpleQueue[DecodingProcess] = SimpleQueue()
    everyone = [DecodingProcess() for _ in range(processes)]
    for process in everyone:
        idle.put(process)

    def check(task: VideoTask) -> DeepCheck:
        process = idle.get()
        try:
            return _check_video(task, process, overlap)
        finally:
            idle.put(process)

    try:
        with ThreadPoolExecutor(processes) as pool:
            yield from pool.map(check, tasks)
    finally:
        for process in everyone:
            process.close()


def _check_video(task: VideoTask, process: DecodingProcess, overlap: Overlap) -> DeepCheck:
    warnings: list[str] = []
    used: str | None = None
    size: Size | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="rts-batch-") as folder:
            video = bring(task.uri, folder)
            with process.open(video, _part(task), uri=task.uri) as source:
                used, size = source.info.decoder, (source.info.width, source.info.height)
                book = PromptBook(task, source.info, boxes=True, overlap=overlap)
                end = min(source.wanted.start, source.info.frames or source.wanted.start)
                for frame in source.frames():
                    book.note_divided(frame.index, shared_pixels(book.due(frame)))
                    end = frame.index + 1
                    if not book.waiting:
                        break
                book.check_end(end)
                warnings = [*source.warnings, *book.warnings]
    except RtsBatchError as error:
        return DeepCheck(task.video_id, str(error), tuple(warnings), used, size)
    return DeepCheck(task.video_id, None, tuple(warnings), used, size)


def check_boxes(tasks: Iterable[VideoTask], found: Iterable[DeepCheck]) -> list[str]:
    """Return what the boxes of all videos together say against their being x,y,w,h in pixels."""
    boxes, sizes = [], []
    for task, check in zip(tasks, found, strict=True):
        for prompt in (prompt for target in task.targets for prompt in target.prompts):
            if prompt.box is not None and check.size is not None:
                boxes.append(prompt.box)
                sizes.append(check.size)
    return list(doubts_of_frames(boxes, sizes))


def _part(task: VideoTask) -> FrameRange:
    """What must be read to see every prompt's frame; forward, since only that is needed once."""
    by_frame = [prompt.frame for target in task.targets for prompt in target.prompts]
    first = min((frame for frame in by_frame if frame is not None), default=task.start)
    return FrameRange(task.start if None in by_frame else first, reading(task).end)
