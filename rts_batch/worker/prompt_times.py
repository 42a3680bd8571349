"""Which frame a prompt's `time` means: the one whose presentation time is nearest; of two, the one shown then."""

from __future__ import annotations

from typing import Final

from rts_batch.io.video.frames import Moment, VideoInfo
from rts_batch.manifest import VideoTask

FAR_SECONDS: Final = 0.1
"""A frame that is shown only so much later than the time that means it is worth a warning."""


class PromptTimes:
    """The times of one video's prompts, held against its frames.

    Args:
        task: the video with its targets.
        info: the opened video.
        warnings: takes what a labeller should know.
    """

    def __init__(self, task: VideoTask, info: VideoInfo, warnings: list[str]) -> None:
        self._info = info
        self._warnings = warnings
        self._last: Moment | None = None
        self._near = 0.05 if not info.fps else min(0.05, 0.5 / info.fps)
        """Seconds by which times that are written with few digits may miss the first frame."""
        first = info.first_time
        timed = any(prompt.time is not None for target in task.targets for prompt in target.prompts)
        if timed and first is not None and abs(first) > self._near:
            warnings.append(
                f"the times of this file begin with {first:g} s on frame 0, and `time` counts as they do; add "
                f"{first:g} to times that were counted from the first frame"
            )

    def objection(self, time: float) -> str | None:
        """What is wrong with a time, as far as that can be known before its frame comes."""
        first = self._info.first_time
        if first is None:
            return "gives a time, but the frames of this video have none; give `frame`"
        if time < first - self._near:
            return (
                f"lies before the video's first frame, which this file shows at {first:g} s; add {first:g} to times "
                "that were counted from the first frame, or give `frame`"
            )
        return None

    def side(self, time: float, moment: Moment) -> int:
        """Where the frame that a time means lies, seen from this one, as `Moment.side` says it."""
        if self._last is None or moment.index > self._last.index:
            self._last = moment
        if moment.time is None:
            return 1
        side = moment.side(time)
        if side == 0 and moment.after is None and time > moment.time + self._length(moment):
            return 1
        if side == 0 and moment.before is not None and moment.time - time > FAR_SECONDS:
            self._warnings.append(
                f"time {time:g} s: the nearest frame is {moment.index} ({moment.time:g} s), but frame "
                f"{moment.index - 1} ({moment.before:g} s) is the one shown then; give `frame` where that is meant"
            )
        return side

    def last_time(self) -> str:
        """The time of the highest frame that has been seen, in words to go on with."""
        time = self._last.time if self._last is not None else None
        return "" if time is None else f", the last of them shown at {time:g} s"

    def _length(self, last: Moment) -> float:
        """How long the video's last frame is shown, in seconds."""
        if self._info.fps:
            return 1 / self._info.fps
        return 0.0 if last.before is None or last.time is None else last.time - last.before
