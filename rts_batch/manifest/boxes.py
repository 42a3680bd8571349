"""Boxes that cannot be, or that were probably meant otherwise: fractions, percentages, corners, another picture's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.manifest.task import VideoTask
from rts_batch.masks import Box
from rts_batch.words import counted

Size = tuple[int, int]
"""Width and height of a frame in pixels."""

LEAST_VISIBLE: Final = 0.1
"""Of a box: what must lie in the frame."""

OUTSIDE: Final = 0.05
"""Of a box: more than rounding, and worth a word, outside the frame."""

WHOLE: Final = 0.95
"""Of a frame: what a box covers that may not mean anything in it."""

NESTED: Final = 0.9
"""Of a box: how much lies in a larger one where it marks a part of that target, or something on it."""

FEWEST: Final = 3
"""Different boxes from which on what they have in common is no accident."""

Sides = NDArray[np.float64]
"""`[N, 4]`: the four numbers of boxes."""


def _corners(boxes: Sides) -> Sides:
    x1, y1, x2, y2 = boxes.T
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def _centres(boxes: Sides) -> Sides:
    x, y, w, h = boxes.T
    return np.stack([x - w / 2, y - h / 2, w, h], axis=1)


READINGS: Final[dict[str, Callable[[Sides], Sides]]] = {
    "corners x1,y1,x2,y2": _corners,
    "centre and size": _centres,
}
"""What else four numbers may mean."""


def is_impossible(box: Box) -> bool:
    """Whether a box is smaller than a pixel, or all of it lies in the first one: in no frame is that a target."""
    x, y, w, h = box
    return w < 1 or h < 1 or (w == h == 1 and 0 <= x < 1 and 0 <= y < 1)


def fault(box: Box, size: Size) -> str | None:
    """Say why a box cannot mark a target in a frame; None where it can."""
    _, _, w, h = box
    visible = 1 - part_outside(box, size)
    if visible <= 0:
        return f"lies outside the frame{_otherwise(box, size)}"
    if w > 2 * size[0] or h > 2 * size[1]:
        return f"is more than twice as large as the frame{_otherwise(box, size)}"
    if visible < LEAST_VISIBLE:
        return f"lies outside the frame but for {visible:.0%} of it{_otherwise(box, size)}"
    return None


def doubt(box: Box, size: Size) -> str | None:
    """Say what is strange about a box that can be; None where nothing is."""
    x, y, w, h = box
    outside = part_outside(box, size)
    if w * h * (1 - outside) >= WHOLE * size[0] * size[1]:
        return "covers the whole frame"
    past = max(-x, -y, x + w - size[0], y + h - size[1])
    if outside > OUTSIDE and past > 2:
        return f"has {outside:.0%} of it outside the frame{_otherwise(box, size)}"
    return None


def part_outside(box: Box, size: Size) -> float:
    """Return the part of a box that lies outside a frame, from 0 to 1."""
    x, y, w, h = box
    inside = max(0.0, min(x + w, size[0]) - max(x, 0)) * max(0.0, min(y + h, size[1]) - max(y, 0))
    return 1 - inside / (w * h)


def _otherwise(box: Box, size: Size) -> str:
    name = _likely_reading(np.array([box]), np.array([size]))
    return f" (as {name} it would fit)" if name else " (is it of a picture of another size?)"


def _likely_reading(boxes: Sides, sizes: NDArray[np.int64]) -> str | None:
    """Return the name of the first reading in which all boxes fit their frames; None where none is such."""
    return next((name for name, read in READINGS.items() if _fit(read(boxes), sizes).all()), None)


def _fit(boxes: Sides, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each box whether it lies in its frame, but for what rounding makes of it."""
    x, y, w, h = boxes.T
    width, height = sizes.T
    slack_x, slack_y = 1 + width / 100, 1 + height / 100
    across = (x >= -slack_x) & (x + w <= width + slack_x) & (w >= 1)
    fit: NDArray[np.bool_] = across & (y >= -slack_y) & (y + h <= height + slack_y) & (h >= 1)
    return fit


def doubts(boxes: Sequence[Box]) -> Iterator[str]:
    """Yield what all boxes of a manifest together say against their being x,y,w,h in pixels."""
    sides = np.unique(np.array(boxes, np.float64).reshape(-1, 4), axis=0)
    if len(sides) < FEWEST:
        return
    x, y, w, h = sides.T
    if sides.min() >= 0 and sides.max() <= 100 and (sides % 1 != 0).any(axis=1).mean() >= 0.5:
        yield _percent(len(boxes))
    if ((w > x) & (h > y)).all():
        yield (
            f"in all {len(boxes)} boxes the third number is above the first and the fourth above the second: are they "
            "the corners x1,y1,x2,y2? A box is x,y,w,h"
        )


def _percent(count: int) -> str:
    return (
        f"no number of the {count} boxes is above 100: are they percentages of the frame's size? A box is x,y,w,h in "
        "pixels"
    )


def doubts_of_frames(boxes: Sequence[Box], sizes: Sequence[Size]) -> Iterator[str]:
    """Yield what all boxes together with the sizes of their frames say against their being x,y,w,h in pixels."""
    if not boxes:
        return
    sides, frames = np.array(boxes, np.float64), np.array(sizes)
    wrong = int((~_fit(sides, frames)).sum())
    name = _likely_reading(sides, frames)
    if wrong and name:
        yield f"{wrong} of {len(boxes)} boxes reach past their frames; read as {name} all of them would fit"
    few = len(np.unique(sides, axis=0)) < FEWEST
    if not few and sides.min() >= 0 and sides.max() <= 100 and (frames >= 200).all():
        yield _percent(len(boxes))


def nested_boxes(tasks: Iterable[VideoTask]) -> Iterator[str]:
    """Yield a warning where a tracked target's box lies within another one's on the same frame."""
    videos, first = set(), ""
    for task in tasks:
        if task.annotates or len(task.targets) < 2:
            continue
        by_frame: dict[tuple[int | None, float | None], list[tuple[int, Box]]] = {}
        for target in task.targets:
            for prompt in target.prompts:
                if prompt.box is not None:
                    by_frame.setdefault((prompt.frame, prompt.time), []).append((prompt.line, prompt.box))
        for marked in by_frame.values():
            if pair := _nested(np.array([box for _, box in marked])):
                inner, outer = (marked[place][0] for place in pair)
                videos.add(task.video_id)
                first = first or f"the one of row {inner} in that of row {outer}"
    if videos:
        yield (
            f"boxes lie within others on the same frame in {counted(len(videos), 'video')} ({first}, to begin with): "
            "where the masks overlap, the smaller target keeps the pixels; --overlap allow tracks each target by itself"
        )


def _nested(boxes: Sides) -> tuple[int, int] | None:
    """Return the places of a box and of one as large or larger in which it lies; None where there are no such two."""
    areas = boxes[:, 2] * boxes[:, 3]
    order = np.argsort(areas, kind="stable")
    for place, inner in enumerate(order[:-1]):
        (x, y, w, h), others = boxes[inner], boxes[order[place + 1 :]]
        across = np.minimum(x + w, others[:, 0] + others[:, 2]) - np.maximum(x, others[:, 0])
        down = np.minimum(y + h, others[:, 1] + others[:, 3]) - np.maximum(y, others[:, 1])
        outer = np.flatnonzero(across.clip(0) * down.clip(0) >= NESTED * areas[inner])
        if len(outer):
            return int(inner), int(order[place + 1 + outer[0]])
    return None
