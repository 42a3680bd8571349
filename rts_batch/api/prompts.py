"""What marks a target for `track`: boxes, masks, polygons and markings, brought to one kind and held against frames."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import PromptError, UsageError
from rts_batch.manifest.boxes import fault, is_impossible
from rts_batch.manifest.mask_looks import is_soft
from rts_batch.manifest.polygons import Ring, box_around, parse_rings
from rts_batch.masks import Box, Marking
from rts_batch.worker.prompt_masks import filled
from rts_batch.worker.prompts import EMPTY_MASK

BoxNumbers = Sequence[float] | NDArray[Any]
"""x, y, w, h in pixels."""

Polygon = Sequence[float] | Sequence[Sequence[float]]
"""x, y, x, y, … in pixels, three points or more; several such; or points [x, y], also as an array `[N, 2]`. Filled and
united as COCO's are."""

Prompt = Marking | Box | NDArray[Any] | Polygon
"""A box x, y, w, h in pixels, a mask `[H, W]`, a polygon, or a `Marking`: a box and a mask together, of which the box
says where and how large the target is, or neither, which says that the target is not in the picture until it is marked
again. A mask is bool, or 0 and one other value; of probabilities from 0 to 1 what is above 0.5 is the target, of greys
with soft edges what is lighter than half of the lightest. Several values, such as numbers of several targets, are
refused."""

Given = Marking | list[Ring]
"""A prompt; a polygon is filled when its frame is there."""

_EXPECTED: Final = "expected {frame: {object_id: box, mask, polygon or Marking}}, frames and ids as whole numbers"


def read_prompts(
    box: BoxNumbers | None,
    mask: NDArray[Any] | None,
    polygon: Polygon | None,
    prompts: Mapping[int, Mapping[int, Prompt]] | None,
    start: int,
) -> dict[int, dict[int, Given]]:
    """Return frame index → object id → prompt of what `track` is given; `start` is the frame of the only target's.

    Raises:
        UsageError: no prompt is given, more than may be, or one that is none or could be two things.
    """
    marks = [mark for mark in (box, mask, polygon) if mark is not None]
    if prompts is None:
        if not marks:
            raise UsageError(
                "no target is marked; give box=(x, y, w, h), mask=…, polygon=… or prompts={frame: {object_id: …}}"
            )
        if polygon is not None:
            if len(marks) > 1:
                raise UsageError("give either a polygon or a box or mask of the only target, not both")
            return {start: {1: _rings(polygon)}}
        return {start: {1: Marking(box=box_of(box)) if mask is None else Marking(mask=_mask_of(mask))}}
    if marks:
        raise UsageError("give either prompts or a box, mask or polygon of the only target, not both")
    if not isinstance(prompts, Mapping):
        raise UsageError(f"prompts is a {type(prompts).__name__}; {_EXPECTED}")
    read = {whole("frame", frame): _of_frame(frame, marked) for frame, marked in prompts.items()}
    if not any(read.values()):
        raise UsageError(f"prompts marks no target; {_EXPECTED}")
    return {frame: marked for frame, marked in read.items() if marked}


def _of_frame(frame: Any, marked: Mapping[int, Prompt]) -> dict[int, Given]:
    if not isinstance(marked, Mapping):
        raise UsageError(f"frame {frame}: its prompts are a {type(marked).__name__}; {_EXPECTED}")
    where = f"frame {frame}, object"
    return {whole(where, object_id): _named(f"{where} {object_id}", prompt) for object_id, prompt in marked.items()}


def whole(what: str, value: Any, expected: str = _EXPECTED) -> int:
    """Return a whole number of any kind as Python's; raises UsageError where it is none."""
    try:
        if isinstance(value, str) or int(value) == value:  # text, as the keys of JSON are
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"{what} {value!r} is not a whole number; {expected}")


def check_frames(prompts: Mapping[int, Mapping[int, Given]], start: int, end: int | None) -> None:
    """Raise UsageError where a prompt marks a frame that is not read, which is before `start` or from `end` on."""
    for frame in sorted(prompts):
        where = f"frame {frame}, object {min(prompts[frame])}: the prompt"
        if frame < start:
            raise UsageError(f"{where} lies before the first frame that is read, start {start}")
        if end is not None and frame >= end:
            raise UsageError(f"{where} is not reached, as end {end} is the frame before which to stop")


def _named(where: str, prompt: Prompt) -> Given:
    try:
        return _given(prompt)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _given(prompt: Prompt) -> Given:
    if isinstance(prompt, Marking):
        return Marking(
            mask=None if prompt.mask is None else _mask_of(prompt.mask),
            box=None if prompt.box is None else box_of(prompt.box),
        )
    if hasattr(prompt, "__array__") or hasattr(prompt, "__array_interface__"):  # PyTorch's, pandas', Pillow's
        prompt = np.asarray(prompt)
    if not isinstance(prompt, np.ndarray | Sequence) or isinstance(prompt, str):
        raise UsageError(
            f"{prompt!r} is no prompt; give a box, mask or polygon, or Marking() where the target is not in the picture"
        )
    if isinstance(prompt, np.ndarray) and prompt.ndim == 2 and not _is_points(prompt):
        return Marking(mask=_mask_of(prompt))
    if len(prompt) == 4 and not any(map(np.ndim, prompt)):
        return Marking(box=box_of(prompt))
    return _rings(prompt)


def _is_points(values: NDArray[Any]) -> bool:
    """Whether an array is a polygon's points, `[N, 2]`: no frame is two pixels wide."""
    return values.shape[1] == 2 and values.dtype != np.bool_


def box_of(values: Any) -> Box:
    """Return a box x, y, w, h; raises UsageError where it is not four numbers."""
    try:
        x, y, w, h = map(float, values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{values!r} is no box; a box is four numbers, x, y, w, h in pixels") from error
    return (x, y, w, h)


def _mask_of(mask: NDArray[Any]) -> NDArray[np.bool_]:
    values = np.asarray(mask)
    if values.size == 0 or values.dtype.kind not in "biuf":
        raise UsageError(f"a mask is an array [H, W] of bool or numbers; got {values.dtype} of shape {[*values.shape]}")
    present = np.unique(values)
    known = not np.isnan(present[-1])  # NaN comes last, and belongs to no side
    if values.dtype == np.bool_ or (len(present) <= 2 and present[0] == 0 and known):
        found: NDArray[np.bool_] = values != 0
        return found
    if present[0] >= 0 and present[-1] <= 1 and np.issubdtype(values.dtype, np.floating):
        likely: NDArray[np.bool_] = values > 0.5
        return likely
    if present[0] >= 0 and known and values.ndim == 2 and is_soft(values):
        light: NDArray[np.bool_] = values > present[-1] / 2
        return light
    shown = ", ".join(f"{value:g}" for value in present[:5])
    raise UsageError(
        f"a mask of the values {shown}{', …' if len(present) > 5 else ''} does not say which are the target: give it "
        "as bool, labels == 2 say"
    )


def _rings(polygon: Polygon | NDArray[Any]) -> list[Ring]:
    try:
        return parse_rings(polygon.tolist() if isinstance(polygon, np.ndarray) else list(polygon))
    except ValueError as error:
        raise UsageError(f"neither a box nor a polygon: {error}") from error


def marking_on(given: Given, image: NDArray[np.uint8], where: str, *, boxes: bool) -> Marking:
    """Return a prompt as it marks a frame `[H, W, 3]`; raises as `check` does, or where a polygon cannot be filled."""
    marking = _filled(given, image, where) if isinstance(given, list) else given
    check(marking, image, where, boxes=boxes)
    return marking


def _filled(rings: list[Ring], image: NDArray[np.uint8], where: str) -> Marking:
    if is_impossible(box_around(rings)):
        raise PromptError(f"{where}: the polygon is smaller than a pixel; x, y, x, y, … in pixels")
    try:
        return Marking(mask=filled(rings, (image.shape[1], image.shape[0])).mask)
    except PromptError as error:
        raise PromptError(f"{where}: the polygon cannot be used: {error}") from error


def check_found(area: int, where: str, *, first: bool) -> None:
    """Raise PromptError where nothing was found in a target's first box; warn where that happens to a further one."""
    what = f"{where}: the mask made of its box is empty"
    if area == 0 and first:
        raise PromptError(f"{what}; {EMPTY_MASK}")
    if area == 0:
        warnings.warn(what, stacklevel=3)  # of who takes the frames


def check(marking: Marking, image: NDArray[np.uint8], where: str, *, boxes: bool) -> None:
    """Raise PromptError where a marking does not fit an image `[H, W, 3]`; `boxes`: a box may become a mask."""
    height, width = image.shape[:2]
    if marking.mask is not None:
        if marking.mask.shape != (height, width):
            raise PromptError(f"{where}: the mask is {list(marking.mask.shape)}, the frame is {[height, width]}")
        if not marking.mask.any():
            raise PromptError(f"{where}: the mask is empty")
    if marking.box is not None:
        if not all(map(math.isfinite, marking.box)) or is_impossible(marking.box):
            raise PromptError(f"{where}: the box {marking.box} is smaller than a pixel; x, y, w, h in pixels")
        if wrong := fault(marking.box, (width, height)):
            raise PromptError(f"{where}: the box {marking.box} {wrong}; the frame has {width}×{height} pixels")
        if marking.mask is None and not boxes:
            raise PromptError(f"{where}: these weights have no network that makes a mask of a box; give a mask")
