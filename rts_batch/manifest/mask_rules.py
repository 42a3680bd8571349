"""Which pixels of a mask image are a target's, and by which rule.

A picture does not say what its values mean. They are object ids, or one target in white on black, hard or with soft
edges, or its opaque part, and tools write each of these in several ways. What is meant is decided by the whole picture
and by the other rows that use it; what could be two things is refused. docs/manifest.md tells the rules to the user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import PromptError
from rts_batch.manifest.mask_images import REMEDY, MaskImage
from rts_batch.manifest.mask_looks import (
    DARK,
    DARKEST_WHITE,
    LIGHT,
    has_several_colours,
    is_drawing,
    is_gradual,
    is_one_colour,
    is_plain,
    is_region,
    is_soft,
    present_values,
)

WHITE: Final = 200
"""Of 255: beside so light a drawing, dark pixels may be what compression left."""

LEFT: Final = 16
"""Of 255: how far two light values of one drawing may differ by what compression left."""

MOST_IDS: Final = 32
"""Where more values occur, it may be a photograph."""


@dataclass(frozen=True, kw_only=True)
class ImageUse:
    """Whose mask is wanted of an image, and what the other rows of the video say of it."""

    object_id: int
    users: frozenset[int] = field(default_factory=frozenset)
    """The other targets whose rows name the same image."""
    others: frozenset[int] = field(default_factory=frozenset)
    """All other targets of the video."""
    apart: bool = False
    """Whether other targets are marked on the same frame, and each mask image of it is used by one of them only."""

    @property
    def ids(self) -> frozenset[int]:
        """All targets that use the image."""
        return self.users | {self.object_id}


@dataclass(frozen=True)
class MaskReading:
    """A mask `[H, W] bool` with at least one pixel, and the rule by which an image was read."""

    mask: NDArray[np.bool_]
    rule: str
    usual: bool = False
    """Whether nothing else could have been meant."""


def read_mask_image(image: MaskImage, use: ImageUse) -> MaskReading:
    """Return a target's mask.

    Raises:
        PromptError: the target is not in the image, or what it shows could be two things; the message says its values.
    """
    if image.opacity is not None:
        return _by_opacity(image, image.opacity, use)
    if image.indices is not None and image.colours is not None:
        return _by_palette(image.indices, image.colours, use)
    if image.greys is not None:
        return _by_value(image.greys, use, exact=image.exact)
    assert image.colours is not None
    return _by_colour(image.colours, use)


def _by_opacity(image: MaskImage, opacity: NDArray[np.int32], use: ImageUse) -> MaskReading:
    """Read a picture with transparent parts: the opaque part is the target, or shows the targets by their numbers."""
    if opacity.min() > DARK * opacity.max() or not (len(present_values(opacity)) == 2 or is_soft(opacity)):
        raise _unclear(use, "it is half transparent", "opacities", opacity)
    opaque = opacity > opacity.max() / 2
    numbers = image.indices if image.indices is not None else image.greys
    inside = set() if numbers is None or not image.exact else set(present_values(numbers[opaque]))
    if numbers is not None and 1 < len(inside) < DARKEST_WHITE and use.ids <= inside:
        return MaskReading((numbers == use.object_id) & opaque, f"its opaque pixels of the value {use.object_id}")
    if use.users:
        raise _unclear(
            use,
            f"{_rows_of(use)} use it, and its opaque part does not number them",
            *(("opacities", opacity) if numbers is None else ("values there", numbers[opaque])),
        )
    brightness = image.greys if image.colours is None else image.colours.max(axis=2)
    if brightness is not None and is_plain(brightness, ~opaque):  # else it is cut out of a picture that goes on there
        if is_drawing(brightness, opaque):
            raise _unclear(use, "its opaque part is again light on dark", "opacities", opacity)
        if image.colours is not None and has_several_colours(image.colours, opaque):
            raise _colourful(use, "its opaque part has several", image.colours)
    return MaskReading(opaque, "its opaque part")


def _by_palette(indices: NDArray[np.int32], colours: NDArray[np.uint8], use: ImageUse) -> MaskReading:
    """Read a picture with a palette: by its greys where it is a grey picture, else its indices are object ids."""
    greys = _true_greys(indices, colours)
    present = present_values(indices)
    if greys is not None:
        if len(present) == 2 and present[0] == 0 and present[1] in use.others and not (use.users or use.apart):
            raise _unclear(use, f"its index {present[1]} is the id of another target", "indices", indices)
        reading = _by_value(greys, use, exact=True)
        in_order = np.array_equal(present, sorted(present, key=lambda index: int(greys[indices == index][0])))
        return reading if in_order else replace(reading, rule=f"{reading.rule} in its palette", usual=False)
    if len(present) > 2 and not use.users and is_one_colour(colours):
        brightness = colours.max(axis=2).astype(np.int32)
        if is_region((indices == use.object_id) & (brightness > 0) & (brightness <= brightness.max() / 2)):
            raise _unclear(use, f"{use.object_id} is the index of a region, and another is lighter", "indices", indices)
        return _by_colour(colours, use)
    black = [index for index in present if not colours[indices == index][0].any()]
    if black and 0 in present and 0 not in black:
        # A palette in the order in which the colours were found: its indices are nobody's ids.
        if len(present) == 2 and not use.users:
            return MaskReading(indices != black[0], f"what is not black, which is index {black[0]} of its palette")
        raise _unclear(use, f"black is not index 0 of its palette, but {black[0]}", "indices", indices)
    if _numbers_by_grey(indices, colours, use):
        raise _unclear(use, "its palette's greys and its indices number the targets differently", "indices", indices)
    by_number = indices == use.object_id
    if use.object_id in present and len(present) > 1 and _may_be_ids(indices, present, use.object_id):
        return MaskReading(by_number, f"index {use.object_id} of its palette", usual=len(present) <= MOST_IDS)
    if present == [0, 255] and not use.users:
        return MaskReading(indices != 0, "index 255 of its palette")
    if len(present) == 2 and 0 in present and use.apart:
        rule = f"index {present[1]} of its palette, as each target of the frame has an image of its own"
        return MaskReading(indices != 0, rule)
    raise _unclear(use, _why_not(use, present), "indices", indices)


def _true_greys(indices: NDArray[np.int32], colours: NDArray[np.uint8]) -> NDArray[np.int32] | None:
    """Return the greys of a palette that is only how a grey picture is stored: black and white, a ramp, soft edges."""
    if (colours != colours[:, :, :1]).any():
        return None
    greys = colours[:, :, 0].astype(np.int32)
    present = set(present_values(greys))
    if present <= {0, 255} or np.array_equal(greys, indices) or (len(present) > 2 and is_soft(greys)):
        return greys
    return None


def _numbers_by_grey(indices: NDArray[np.int32], colours: NDArray[np.uint8], use: ImageUse) -> bool:
    """Whether the greys of a palette are the targets' ids, in another order than its indices."""
    greys = colours[:, :, 0]
    return not (colours != colours[:, :, :1]).any() and all(
        (greys == object_id).any() and ((greys == object_id) != (indices == object_id)).any() for object_id in use.ids
    )


def _by_value(values: NDArray[np.int32], use: ImageUse, *, exact: bool) -> MaskReading:
    """Read a grey picture: object ids, or one target that is lighter than the rest."""
    note = ""
    present = present_values(values)
    if present[-1] > 255 and use.object_id not in present and all(value % 257 == 0 for value in present):
        values, note = values // 257, " (16 bits, read as 8)"
        present = present_values(values)
    if present == [0]:
        raise PromptError("it is empty: every pixel is 0; mark the target, or choose another frame")
    if len(present) == 1:
        raise _unclear(use, "all of it has one value", "values", values)
    if len(present) == 2 and present[0] == 0 and exact and not use.users:
        return _of_two_values(values, present[1], use, note)
    if is_soft(values):
        return _soft_edged(values, present, use, note, exact=exact)
    if is_gradual(values):
        raise _unclear(use, "they change gradually, as probabilities and brightness do", "values", values)
    if exact and use.object_id in present and _may_be_ids(values, present, use.object_id):
        return _by_number(values, present, use, note)
    raise _unnumbered(values, present, use, exact=exact)


def _soft_edged(values: NDArray[np.int32], present: list[int], use: ImageUse, note: str, *, exact: bool) -> MaskReading:
    """Read a picture that may be one light target with soft edges, or ids beside each other."""
    numbered = exact and use.object_id in present
    several = exact and _are_several(values, present)
    trace = f"{use.object_id} may be an object id or a trace of something light"
    if numbered and len(present) <= MOST_IDS and is_region(values == use.object_id):
        if not several and not use.users and _may_be_a_trace(values, present, use.object_id):
            raise _unclear(use, trace, "values", values)
        return _by_number(values, present, use, note)
    if not use.users and numbered and not any(DARK * present[-1] < value < present[-1] for value in present):
        raise _unclear(use, trace, "values", values)
    if use.users or several:
        raise _unnumbered(values, present, use, exact=exact)
    light = values > present[-1] / 2
    return MaskReading(light, f"what is lighter than half of {present[-1]}, its edges being soft{note}")


def _unnumbered(values: NDArray[np.int32], present: list[int], use: ImageUse, *, exact: bool) -> PromptError:
    shared = f"{_rows_of(use)} use it, but it does not number them" if use.users else ""
    return _unclear(use, shared or _why_not(use, present, exact=exact), "values", values)


def _by_number(values: NDArray[np.int32], present: list[int], use: ImageUse, note: str) -> MaskReading:
    rule = f"the value {use.object_id}{note}"
    return MaskReading(values == use.object_id, rule, usual=not note and len(present) <= MOST_IDS)


def _may_be_ids(values: NDArray[np.int32], present: list[int], value: int) -> bool:
    """Whether values are few enough to be ids, or in regions on a background of 0, as a photograph's are not."""
    if len(present) <= MOST_IDS:
        return True
    return int(np.bincount(values.ravel()).argmax()) == 0 and is_region(values == value)


def _are_several(values: NDArray[np.int32], present: list[int]) -> bool:
    """Whether several light values, and none between them and the dark, fill regions of their own, as numbers do."""
    light = [value for value in present if value > DARK * present[-1]]
    if len(present) > MOST_IDS or light[0] < LIGHT * present[-1]:
        return False
    regions = [value for value in light if is_region(values == value)]
    return regions[-1] - regions[0] >= (LEFT if present[-1] <= 255 else 1) if regions else False


def _may_be_a_trace(values: NDArray[np.int32], present: list[int], value: int) -> bool:
    """Whether a dark value may be what compression left beside a light drawing, although its pixels are a region."""
    light = values > present[-1] / 2
    if present[-1] < WHITE or not is_region(light) or np.array_equal(light, values == value):
        return False
    dark = [other for other in present if 0 < other <= DARK * present[-1] and other != value]
    # Compression does not leave several values in regions of their own, and none between.
    return not any(is_region(values == other) for other in dark)


def _of_two_values(values: NDArray[np.int32], value: int, use: ImageUse, note: str) -> MaskReading:
    """Read a picture of 0 and one other value."""
    mask = values == value
    if value in (use.object_id, 255):
        return MaskReading(mask, f"the value {value}{note}", usual=not note)
    if use.apart:
        return MaskReading(mask, f"the value {value}, as each target has an image of its own{note}", usual=value == 1)
    if value in use.others:
        raise _unclear(use, f"its value {value} is the id of another target", "values", values)
    if value == 1:
        return MaskReading(mask, f"what is not 0, its values being 0 and 1{note}")
    if DARKEST_WHITE <= value <= 255 or value >= 1 << 15:
        return MaskReading(
            mask, f"what is not 0, its only other value being {value}, which is no row's object_id{note}"
        )
    raise _unclear(use, f"none is {use.object_id}", "values", values)


def _why_not(use: ImageUse, present: list[int], *, exact: bool = True) -> str:
    if not exact:
        return "a JPEG or WebP does not keep numbers, and it is not white on black"
    if use.object_id in present:
        return f"its {len(present)} different values look like those of a photograph"
    return f"none is {use.object_id}"


def _by_colour(colours: NDArray[np.uint8], use: ImageUse) -> MaskReading:
    """Read a picture of colours: it must be one colour on black."""
    if use.users:
        raise _colourful(use, f"{_rows_of(use)} use it, and colours do not say which is whose", colours)
    if not is_one_colour(colours):
        raise _colourful(use, "it is neither one colour on black nor grey", colours)
    brightness = colours.max(axis=2).astype(np.int32)
    colour = np.median(colours[brightness > LIGHT * brightness.max()], axis=0).astype(int).tolist()
    return MaskReading(brightness > brightness.max() / 2, f"the one colour {tuple(colour)} on black")


def _rows_of(use: ImageUse) -> str:
    return f"the rows of objects {', '.join(map(str, sorted(use.ids)))}"


def _unclear(use: ImageUse, why: str, what: str, values: NDArray[np.int32]) -> PromptError:
    return PromptError(
        f"which pixels are object {use.object_id}'s is not clear: {why}. Its {what} are {_frequent(values)}; {REMEDY}"
    )


def _colourful(use: ImageUse, why: str, colours: NDArray[np.uint8]) -> PromptError:
    packed = (colours.astype(np.int32) * (1 << 16, 1 << 8, 1)).sum(axis=2)
    shown = _frequent(packed, lambda colour: str((colour >> 16, colour >> 8 & 255, colour & 255)))
    return PromptError(
        f"which pixels are object {use.object_id}'s is not clear: {why}. Its colours are {shown}; {REMEDY}"
    )


def _frequent(values: NDArray[np.int32], name: Callable[[int], str] = str) -> str:
    """The most frequent values with their pixels."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:6]
    shown = ", ".join(f"{name(int(found[place]))} ({counts[place]} pixels)" for place in order)
    return shown if len(found) <= 6 else f"{shown} and {len(found) - 6} more"
