"""In which order a video's frames are read, and what is tracked on each: one way, both ways, or prompts alone.

- `forward`: one pass from `start` on; a target joins on its first prompt's frame, a further prompt corrects it.
- `backward`: one pass from the last prompt down to `start`; a target joins on its last prompt's frame.
- `both`: forward, and then backward from each target's first prompt, for the frames before that.
- `bidirectional`: forward, and then backward from each target's last prompt; the table keeps the better half of both.
- prompts of the kind `annotate`: the frames that have one, each for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from rts_batch.io.video.frames import Frame, FrameRange, FrameSource, VideoInfo
from rts_batch.manifest import VideoTask
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.worker.prompts import PromptBook
from rts_batch.worker.timing import Timing
from rts_batch.worker.tracker import LoadedTracker, OpenScene

TrackedRows = tuple[Frame, Mapping[int, TrackedFrame]]
"""A frame and its rows by object id; a target's frames come in an unbroken row, upwards or downwards. The frame's image
is lent: gone when the next is taken."""


def reading(task: VideoTask) -> FrameRange:
    """What of the video is read first."""
    frame, time = task.last_prompt()
    if task.annotates:
        # Between times that say no frame, anything may be wanted.
        first = task.start if time is not None else min(p.frame or 0 for t in task.targets for p in t.prompts)
        return FrameRange(first, task.end if frame is None or time is not None else frame + 1)
    if task.direction == "backward":
        end = task.end if frame is None and time is None else None if frame is None else frame + 1
        return FrameRange(task.start, end, backward=True, last_time=time)
    return FrameRange(task.start, task.end)


def expected_frames(source: FrameSource, task: VideoTask, earlier: int = 0) -> int | None:
    """Frames that will probably have been read, for the progress; None where nothing says how many.

    So many of them were by earlier attempts, and the last of these is read once more.
    """
    length = source.info.frames if source.info.frames is not None else task.frames
    ends = [end for end in (length, source.wanted.end) if end is not None]
    if not ends:
        return None
    frames = max(0, min(ends) - source.wanted.start)
    frames += _frames_again(source.info, task)
    return frames + max(0, earlier - 1)


def _frames_again(info: VideoInfo, task: VideoTask) -> int:
    """Frames that a second pass probably reads, as if all were as far apart in time."""
    frame, time = task.second_pass_from()
    timed = 0 if time is None or not info.fps else round((time - (info.first_time or 0.0)) * info.fps)
    last = max(frame or 0, timed)
    return last + 1 - task.start if last > task.start else 0


@dataclass
class Forward:
    """The forward pass while it is under way; from outside it can be photographed, and gone on with elsewhere."""

    scene: OpenScene | None = None
    """Open from the first prompt's frame on."""
    after: int = -1
    """Frames up to this one have been tracked by an earlier attempt, and are passed over."""
    active: bool = False

    def close(self) -> None:
        """Leave it, whether it came to its end or not."""
        if self.scene is not None:
            self.scene.close()
        self.active, self.scene = False, None


def track_video(
    task: VideoTask,
    tracker: LoadedTracker,
    book: PromptBook,
    source: FrameSource,
    reopen: Callable[[FrameRange], FrameSource],
    timing: Timing,
    forward: Forward | None = None,
) -> Generator[TrackedRows]:
    """Yield every frame that is read, with the rows that it gives.

    Args:
        source: opened as `reading` says; it is closed where a second pass is needed.
        reopen: opens other frames of the same video.
        timing: counts what the frames and the tracker take.
        forward: the state of the forward pass, to begin with and to look at between frames.

    Raises:
        PromptError: a prompt that does not fit, or whose frame does not come.
    """
    if task.annotates:
        yield from _annotate(task, tracker, book, source, timing)
        return
    if task.direction == "backward":
        yield from _backward(task, tracker, book, source, timing)
        return
    forward = forward or Forward()
    end = max(task.start, forward.after + 1)
    rows: Mapping[int, TrackedFrame] = {}
    forward.active = True
    for frame, rows in _forward(task, tracker, book, source, timing, forward):
        end = frame.index + 1
        yield frame, rows
    forward.close()
    book.check_end(end)
    if task.direction == "both" and book.last_begin > task.start:
        wanted, second_pass = FrameRange(task.start, book.last_begin + 1, backward=True), _before_the_prompts
    elif task.direction == "bidirectional" and (task.marked_again or book.last_begin > task.start):
        book.check_masks(end - 1, dict(rows))  # the caller looks at a frame's one frame later
        wanted, second_pass, book = reading(replace(task, direction="backward")), _backward, book.anew()
    else:
        return
    source.close()
    with reopen(wanted) as before:
        yield from second_pass(task, tracker, book, before, timing)
        _tell_once(source, before)


def _tell_once(source: FrameSource, again: FrameSource) -> None:
    """Add what reading once more is warned of, but not what it counts of the damage that is known already."""
    known = [*source.warnings, *(again.damage.warnings() if source.damage else ())]
    source.warnings += [text for text in again.warnings if text not in known]


def _forward(
    task: VideoTask, tracker: LoadedTracker, book: PromptBook, source: FrameSource, timing: Timing, forward: Forward
) -> Generator[TrackedRows]:
    for frame in timing.waiting("decode", source.lent()):
        if frame.index <= forward.after:
            continue
        prompts = book.due(frame)
        with timing("track"):
            if forward.scene is None and prompts:
                forward.scene = tracker.open_scene(task)
            rows = _step(forward.scene, frame, prompts, book) if forward.scene is not None else {}
        yield frame, rows


def _backward(
    task: VideoTask, tracker: LoadedTracker, book: PromptBook, source: FrameSource, timing: Timing
) -> Generator[TrackedRows]:
    scene: OpenScene | None = None
    highest = -1
    with ExitStack() as opened:
        for frame in timing.waiting("decode", source.lent()):
            highest = max(highest, frame.index)
            prompts = book.due(frame, backward=True)
            with timing("track"):
                if scene is None and prompts:
                    scene = opened.enter_context(closing(tracker.open_scene(task)))
                rows = _step(scene, frame, prompts, book) if scene is not None else {}
            yield frame, rows
    book.check_end(highest + 1)


def _before_the_prompts(
    task: VideoTask, tracker: LoadedTracker, book: PromptBook, source: FrameSource, timing: Timing
) -> Generator[TrackedRows]:
    """The backward half of `both`: only the rows that the forward half does not have."""
    with closing(tracker.open_scene(task)) as scene:
        for frame in timing.waiting("decode", source.lent()):
            prompts = book.beginning(frame.index)
            with timing("track"):
                rows = _step(scene, frame, prompts, book)
            early = [object_id for object_id in rows if frame.index < book.begin[object_id]]
            # Where all are, none has to be looked up yet.
            yield frame, rows if len(early) == len(rows) else {object_id: rows[object_id] for object_id in early}


def _step(
    scene: OpenScene, frame: Frame, prompts: Mapping[int, Marking], book: PromptBook
) -> Mapping[int, TrackedFrame]:
    with book.naming(frame.index):
        rows = scene.step(frame.image, prompts)
    book.note_divided(frame.index, scene.divided)
    return rows


def _annotate(
    task: VideoTask, tracker: LoadedTracker, book: PromptBook, source: FrameSource, timing: Timing
) -> Generator[TrackedRows]:
    end = source.wanted.start
    with closing(tracker.open_scene(task)) as scene:
        for frame in timing.waiting("decode", source.lent()):
            end = frame.index + 1
            prompts = book.due(frame)
            with timing("track"), book.naming(frame.index):
                rows = scene.annotate(frame.image, prompts) if prompts else {}
            yield frame, rows
    book.check_end(end)
