"""The masks table of one video under way: its writer, and its rows of what the tracker says."""

from __future__ import annotations

from pathlib import Path

from rts_batch.io.results.schema import Row
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.io.video.frames import Frame, VideoInfo
from rts_batch.manifest import Target, VideoTask
from rts_batch.masks import TrackedFrame, encode_rle
from rts_batch.worker.messages import WorkerSettings
from rts_batch.worker.report import describe


def open_writer(path: Path, task: VideoTask, settings: WorkerSettings) -> ResultsWriter:
    """Return a writer of the video's table, which will be at `path` once it is complete."""
    return ResultsWriter(
        path,
        targets={target.object_id: target.extras for target in task.targets},
        extras=settings.extras,
        task=describe(task),
        weights=settings.tracker.fingerprint,
        profile=settings.tracker.profile,
        covers="prompts" if task.annotates else task.direction,
        start=task.start,
    )


def row_of(task: VideoTask, info: VideoInfo, frame: Frame, target: Target, tracked: TrackedFrame) -> Row:
    """Return a target's row on a frame; encoding its mask is most of the work."""
    x, y, w, h = tracked.box or (None, None, None, None)
    return Row(
        video_id=task.video_id,
        object_id=target.object_id,
        frame=frame.index,
        time=frame.time,
        height=info.height,
        width=info.width,
        rle=encode_rle(tracked.mask, tracked.region),
        x=x,
        y=y,
        w=w,
        h=h,
        area=tracked.area,
        score=tracked.score,
        confidence=tracked.confidence,
        quality=tracked.quality,
        state=tracked.state,
        category=target.category,
    )
