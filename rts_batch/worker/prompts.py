"""A video's prompts as the tracker takes them: masks read, sizes checked, each due on its own frame.

Everything that can be known without the prompt's frame is checked as soon as the video is open, so that a wrong mask
does not show after an hour of tracking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from rts_batch.config import Overlap
from rts_batch.errors import PromptError, StorageError
from rts_batch.io.video.frames import Frame, Moment, VideoInfo
from rts_batch.manifest import Prompt, Target, VideoTask
from rts_batch.manifest.boxes import doubt, fault
from rts_batch.manifest.mask_looks import is_all_around
from rts_batch.masks import Box, Marking, TrackedFrame
from rts_batch.worker.overlaps import check_left, warnings_of
from rts_batch.worker.prompt_masks import PackedMarking, PromptMasks
from rts_batch.worker.prompt_times import PromptTimes

BOX_NEEDS_STA = (
    "a box needs an STA network to become a mask, and these weights have none; give a mask, or weights with an STA "
    "network (rts-batch weights import RTS --sta STA -o FILE)"
)

EMPTY_MASK = "a box is x,y,w,h in pixels of the video's frames; look at what it shows, or give a mask"


class PromptBook:
    """The prompts of one video, one or more for each target.

    Args:
        task: The video with its targets.
        info: The opened video.
        boxes: Whether the tracker can start from a box.
        overlap: What becomes of targets that share pixels.

    Raises:
        PromptError: A prompt that cannot fit this video. The message names video, target, frame and remedy.
        StorageError: A mask that cannot be read.
    """

    def __init__(self, task: VideoTask, info: VideoInfo, *, boxes: bool, overlap: Overlap = "merge") -> None:
        self._task = task
        self._divides = overlap == "merge" and not task.annotates
        self._info = info
        self._boxes = boxes
        self.warnings: list[str] = []
        self._with_mask: set[int] = set()
        """Targets with a prompt that has become a mask."""
        self._times = PromptTimes(task, info, self.warnings)
        masks = PromptMasks(task, (info.width, info.height))
        self._waiting = [
            (target.object_id, prompt, PackedMarking.of(self._ready(target, prompt, masks)))
            for target in task.targets
            for prompt in target.prompts
        ]
        self._begun_by: dict[int, PackedMarking] = {}
        self._absent_before: dict[int, int] = {}
        """Object id to the last frame before its first mark on which it was said not to be there."""
        self.begin: dict[int, int] = {}
        """Object id to the frame on which the target was first marked."""
        self._said_at_once = len(self.warnings)
        self.empty: set[tuple[int, int]] = set()
        """Object id and frame of the prompts whose masks are empty."""
        self._copy = partial(PromptBook, task, info, boxes=boxes, overlap=overlap)

    def anew(self) -> PromptBook:
        """Open it once more, for another pass, without the prompts of which nothing came: none begins with those."""
        book = self._copy()
        book.empty = self.empty
        return book

    @property
    def waiting(self) -> bool:
        """Whether a prompt's frame is yet to come."""
        return bool(self._waiting)

    @property
    def warnings_of_frames(self) -> list[str]:
        """The warnings without those that opening the book says again."""
        return self.warnings[self._said_at_once :]

    def taken(self) -> dict[str, dict[int, int]]:
        """How many prompts of each target have come, and on which frame it began: enough to go on from (`resume`)."""
        left = Counter(object_id for object_id, _, _ in self._waiting)
        came = {target.object_id: len(target.prompts) - left[target.object_id] for target in self._task.targets}
        return {
            "came": {key: count for key, count in came.items() if count},
            "begin": dict(self.begin),
            "absent": dict(self._absent_before),
        }

    def resume(self, taken: Mapping[str, Mapping[int, int]], after: int) -> None:
        """Take out the prompts that had come when `taken` was called on frame `after`, in frames read forward."""
        by_frame = Counter(key for key, prompt, _ in self._waiting if prompt.frame_or(after + 1) <= after)
        timed = {object_id: count - by_frame[object_id] for object_id, count in taken["came"].items()}
        self.begin, self._absent_before = dict(taken["begin"]), dict(taken.get("absent", {}))
        waiting = []
        for object_id, prompt, ready in self._waiting:
            if prompt.time is not None and timed.get(object_id, 0) > 0:
                timed[object_id] -= 1
                if not ready.absent:
                    self._begun_by.setdefault(object_id, ready)
            elif prompt.frame_or(after + 1) > after:
                waiting.append((object_id, prompt, ready))
            elif prompt.frame == self.begin.get(object_id):
                self._begun_by[object_id] = ready
        self._waiting = waiting

    @property
    def last_begin(self) -> int:
        """The latest frame on which a target began."""
        return max(self.begin.values(), default=0)

    def due(self, frame: Frame, *, backward: bool = False) -> dict[int, Marking]:
        """Take out the prompts of this frame.

        Args:
            frame: the frames come in order.
            backward: the last one comes first.

        Raises:
            PromptError: one cannot be on this frame, or nothing is left of its mask under those of others.
        """
        due: dict[int, Marking] = {}
        came: set[int] = set()
        waiting = []
        for object_id, prompt, ready in self._waiting:
            if backward and prompt.frame is not None and prompt.frame > frame.index:
                raise self._past_end(object_id, prompt, frame.index + 1)
            if not self._is_due(object_id, prompt, frame.moment, backward):
                waiting.append((object_id, prompt, ready))
                continue
            if object_id in came:
                raise self._error(
                    object_id, prompt, "is the second one of this target on this frame; remove one of them"
                )
            came.add(object_id)
            if (object_id, frame.index) in self.empty:
                continue
            if ready.absent and object_id not in self.begin and not self._task.annotates:
                self._note_absent(object_id, frame.index)
                continue
            due[object_id] = ready.unpacked()
            if object_id not in self.begin:
                self.begin[object_id], self._begun_by[object_id] = frame.index, ready
        self._waiting = waiting
        return self._apart(due, frame.index)

    def beginning(self, frame: int) -> dict[int, Marking]:
        """The prompts of this frame that a second pass takes, down from where targets began."""
        begun = {key: self._begun_by[key].unpacked() for key, begin in self.begin.items() if begin == frame}
        begun |= {object_id: Marking() for object_id, absent in self._absent_before.items() if absent == frame}
        return self._apart(dict(sorted(begun.items())), frame)

    @contextmanager
    def naming(self, frame: int) -> Iterator[None]:
        """Say of which video and frame it is what a scene, which knows neither, says against the prompts of a frame."""
        try:
            yield
        except PromptError as error:
            raise PromptError(f"video {self._task.video_id}, frame {frame}: {error}") from error

    def note_divided(self, frame: int, lost: Mapping[int, int]) -> None:
        """Warn of the pixels of a frame's prompts, by object id, that are left to smaller targets."""
        if self._divides:
            self.warnings += [text for text in warnings_of(lost, frame) if text not in self.warnings]

    def check_end(self, frames: int) -> None:
        """Raise PromptError where a prompt's frame never came; `frames` is one past the last frame's index."""
        for object_id, prompt, _ in self._waiting:
            raise self._past_end(object_id, prompt, frames)

    def check_masks(self, frame: int, found: Mapping[int, TrackedFrame]) -> None:
        """Look at what the prompts of a frame have become.

        Raises:
            PromptError: a target that would be tracked from an empty mask.
        """
        for object_id, target in found.items():
            if target.state != "prompt":
                continue
            if target.area:
                self._with_mask.add(object_id)
                continue
            self.empty.add((object_id, frame))
            what = f"object {object_id}, frame {frame}: the mask made of its box is empty"
            if self.begin.get(object_id) == frame and not self._task.annotates:
                raise PromptError(f"video {self._task.video_id}, {what}; {EMPTY_MASK}")
            self.warnings.append(what)

    def check_annotated(self) -> None:
        """Raise PromptError where none of a target's annotated frames has got a mask."""
        for target in self._task.targets if self._task.annotates else ():
            if target.object_id not in self._with_mask:
                raise PromptError(
                    f"video {self._task.video_id}, object {target.object_id}: the masks made of its boxes are empty on "
                    f"all its {sum(prompt.kind == 'annotate' for prompt in target.prompts)} frames; {EMPTY_MASK}"
                )

    def _ready(self, target: Target, prompt: Prompt, masks: PromptMasks) -> Marking:
        """Read and check one prompt."""
        task = self._task
        if prompt.frame is not None and prompt.frame < task.start:
            raise self._error(target.object_id, prompt, f"lies before the video's `start` {task.start}")
        if prompt.frame is not None and task.end is not None and prompt.frame >= task.end:
            raise self._error(target.object_id, prompt, f"lies at or past the video's `end` {task.end}")
        if prompt.time is not None and (wrong := self._times.objection(prompt.time)):
            raise self._error(target.object_id, prompt, wrong)
        if prompt.kind == "absent":
            return Marking()
        if prompt.box is not None:
            return Marking(box=self._checked_box(target.object_id, prompt, prompt.box))
        size, expected = (0, 0), (self._info.height, self._info.width)
        reading = None
        try:
            size = masks.size(prompt)
            if size == expected:
                reading = masks.read(prompt, target.object_id)
        except (PromptError, StorageError) as error:
            if isinstance(error, StorageError) and error.transient:
                raise
            raise self._error(target.object_id, prompt, f"cannot be read: {error}") from error
        if reading is None:
            raise self._error(
                target.object_id,
                prompt,
                f"has {size[1]}×{size[0]} pixels, but the video's frames have {expected[1]}×{expected[0]}"
                f"{self._turned()}; give the mask at the size of the frames as they are shown",
            )
        if not reading.usual:
            self.warnings.append(f"object {target.object_id}, {prompt.where}: the mask was read as {reading.rule}")
        if is_all_around(reading.mask):
            self.warnings.append(
                f"object {target.object_id}, {prompt.where}: the mask has {reading.mask.mean():.0%} of the frame and "
                "its whole border; was the target drawn dark on light?"
            )
        return Marking(mask=reading.mask)

    def _checked_box(self, object_id: int, prompt: Prompt, box: Box) -> Box:
        if not self._boxes:
            raise self._error(object_id, prompt, f"cannot be used: {BOX_NEEDS_STA}")
        size = (self._info.width, self._info.height)
        shown = ",".join(f"{side:g}" for side in box)
        where = f"x,y,w,h {shown} in a frame of {size[0]}×{size[1]} pixels{self._turned()}"
        if what := fault(box, size):
            raise self._error(
                object_id, prompt, f"{what}: {where}; a box is x, y of its upper left corner, w, h in pixels"
            )
        if what := doubt(box, size):
            self.warnings.append(f"object {object_id}, {prompt.where}: the box {what}: {where}")
        return box

    def _turned(self) -> str:
        """What is to be known of a video that is not shown as its pictures are stored."""
        turned = self._info.turned
        return f" (they are turned by {turned}° from how the file stores them)" if turned else ""

    def _is_due(self, object_id: int, prompt: Prompt, moment: Moment, backward: bool) -> bool:
        if prompt.time is None:
            return moment.index == (prompt.frame or 0)
        side = self._times.side(prompt.time, moment)
        if side < 0 and not backward and moment.index == self._task.start:
            raise self._error(object_id, prompt, f"belongs to a frame before the video's `start` {self._task.start}")
        if side > 0 and backward:
            raise self._past_end(object_id, prompt, moment.index + 1)
        return side == 0

    def _apart(self, due: dict[int, Marking], frame: int) -> dict[int, Marking]:
        """Return the prompts of a frame; raise PromptError where nothing is left of one."""
        if self._divides:
            check_left(due, self._task.video_id, frame)
        return due

    def _note_absent(self, object_id: int, frame: int) -> None:
        """Keep it for the pass before the first mark, which `both` alone has."""
        self._absent_before[object_id] = frame
        if self._task.direction not in ("both", "bidirectional"):
            self.warnings.append(
                f"object {object_id}, frame {frame}: it is said to be absent where it is not tracked yet "
                f"({self._task.direction}), which changes nothing"
            )

    def _past_end(self, object_id: int, prompt: Prompt, frames: int) -> PromptError:
        before = "" if self._task.end is None else f" before `end` {self._task.end}"
        last = self._times.last_time() if prompt.time is not None else ""
        length = f"{frames} frames (0 to {frames - 1}){before}{last}"
        return self._error(object_id, prompt, f"lies past the video's end: it has {length}")

    def _error(self, object_id: int, prompt: Prompt, what: str) -> PromptError:
        return PromptError(
            f"video {self._task.video_id}, object {object_id}, {prompt.where}: the {prompt.drawn} prompt {what}"
        )
