"""What a mask image looks like: light on dark, with soft edges, in one colour, in regions."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

DARKEST_WHITE: Final = 32
"""Of 255: a lighter value is a brightness; a darker one may be an object id."""

DARK, LIGHT = 0.2, 0.8
"""Of the largest value: what is sure to be outside, and inside, of a drawing with soft edges."""

EDGE: Final = 8
"""Pixels: how far from the outline the values between dark and light may lie; further, where they change gradually."""

WIDE_EDGE: Final = 32
"""Pixels: the same where values change gradually, as a network's probabilities do."""

FEWEST_SHADES: Final = 12
"""Values from which on a picture may be one of shades."""

SMALL_STEP, MOST_STEPS = 0.04, 0.9
"""Of the largest value: how much shades differ from pixel to pixel; and of these steps, how many are so small."""

MOST_BETWEEN: Final = 0.25
"""Of a picture: how much of it those values may be."""

PLAIN: Final = 0.9
"""Of what is transparent: how much has one brightness where nothing is shown."""

MOST_PARTS: Final = 100
"""Of one target, in a drawing in colour."""

SAME_COLOUR: Final = 48
"""Of 255: how far two colours may differ in a channel where edges are soft."""


def present_values(values: NDArray[np.int32]) -> list[int]:
    """Return the values that occur, ascending."""
    largest = int(values.max(initial=0))
    few = largest < 1 << 16
    found: list[int] = (np.flatnonzero(np.bincount(values.ravel())) if few else np.unique(values)).tolist()
    return found


def is_soft(values: NDArray[np.int32]) -> bool:
    """Whether values [H, W] are light on dark, and what lies between is no more than the edge of something.

    Of object ids each is as good as another, so pixels between the darkest and the lightest fill regions of their own.
    """
    level = (values / max(int(values.max()), 1)).astype(np.float32)
    dark, light = level <= DARK, level >= LIGHT
    between = ~(dark | light)
    if values.max() < DARKEST_WHITE or not dark.any() or not light.any() or between.mean() > MOST_BETWEEN:
        return False
    if not between.any():
        return True
    inside = (level > 0.5).astype(np.uint8)
    side = 2 * (WIDE_EDGE if is_gradual(values) else EDGE) + 1
    around = np.ones((side, side), np.uint8)
    edge = cv2.dilate(inside, around) != cv2.erode(inside, around)
    flat = cv2.dilate(level, np.ones((3, 3))) == cv2.erode(level, np.ones((3, 3)))
    return bool((between & ~edge).sum() <= between.sum() / 50 and (between & flat).sum() <= light.sum() / 100)


def numbers_regions(values: NDArray[np.int32]) -> bool:
    """Whether values [H, W] may be numbers of targets: no shades, and no drawing with soft edges."""
    if is_gradual(values):
        return False
    level = values / max(int(values.max()), 1)
    return not (is_soft(values) and ((level > DARK) & (level < LIGHT)).any())


def is_gradual(values: NDArray[np.int32]) -> bool:
    """Whether values [H, W] are many and change from pixel to pixel by small steps, or lie in lines: no object ids."""
    present = present_values(values)
    if len(present) < FEWEST_SHADES:
        return False
    if present[-1] < DARKEST_WHITE and np.mean([is_region(values == value) for value in present]) < 0.5:
        return True
    steps = np.concatenate([np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)])
    steps = steps[steps > 0]
    return bool((steps <= max(1, SMALL_STEP * present[-1])).mean() >= MOST_STEPS)


def is_one_colour(colours: NDArray[np.uint8]) -> bool:
    """Whether a picture `[H, W, 3]` is one colour on black: in each of its parts, and inside them in every pixel."""
    brightness = colours.max(axis=2).astype(np.int32)
    if not is_soft(brightness):
        return False
    light = brightness > LIGHT * brightness.max()
    hues = colours * (255 / np.maximum(brightness, 1))[:, :, None]
    count, parts = cv2.connectedComponents(light.astype(np.uint8))
    inside = cv2.erode(light.astype(np.uint8), np.ones((7, 7))).astype(bool)  # a JPEG's colours run over the edges
    shown = [np.median(hues[parts == part], axis=0) for part in range(1, min(count, MOST_PARTS))]
    found = np.concatenate([np.array(shown), hues[inside]])
    return bool((np.abs(found - np.median(hues[light], axis=0)) <= SAME_COLOUR).all()) and count <= MOST_PARTS


def has_several_colours(colours: NDArray[np.uint8], part: NDArray[np.bool_]) -> bool:
    """Whether a part of a picture `[H, W, 3]` is painted in flat colours that are not one, as no photograph is."""
    packed = (colours.astype(np.int32) * (1 << 16, 1 << 8, 1)).sum(axis=2)
    found, counts = np.unique(packed[part], return_counts=True)
    often = found[counts >= len(packed[part]) / 100]
    flat = [colour for colour in often if is_region((packed == colour) & part)]
    if len(flat) < 2 or np.isin(packed[part], flat).mean() < 0.5:
        return False
    shades = np.array([(colour >> 16, colour >> 8 & 255, colour & 255) for colour in flat])
    return bool((shades.max(axis=0) - shades.min(axis=0)).max() > SAME_COLOUR)


def is_plain(brightness: NDArray[np.integer[Any]], part: NDArray[np.bool_]) -> bool:
    """Whether most of a part of a picture [H, W] has one brightness."""
    return bool(np.unique(brightness[part], return_counts=True)[1].max() >= PLAIN * part.sum())


def is_drawing(brightness: NDArray[np.integer[Any]], opaque: NDArray[np.bool_]) -> bool:
    """Whether the opaque part of a picture is light on dark itself, with little between the two."""
    level = brightness / max(int(brightness[opaque].max()), 1)
    dark, light = opaque & (level <= DARK), opaque & (level >= LIGHT)
    return is_region(dark) and is_region(light) and (dark | light).sum() >= (1 - MOST_BETWEEN) * opaque.sum()


def is_region(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask is more than lines and specks: a fifth of its pixels are surrounded by others."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))
    return bool(inner.sum() > mask.sum() / 5)


def is_all_around(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask [H, W] has every pixel of the border."""
    return bool(mask[0].all() and mask[-1].all() and mask[:, 0].all() and mask[:, -1].all())
