"""Draws the masks of a frame onto its picture: tinted pixels, outline, box and a label for each target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.io.results.schema import Row

Colour = tuple[int, int, int]

COLOURS: Final[tuple[Colour, ...]] = (
    (230, 60, 60),
    (60, 160, 240),
    (250, 190, 40),
    (80, 200, 120),
    (190, 90, 220),
    (240, 130, 40),
)
"""RGB by target, in the order of object ids; they repeat."""

TINT: Final = 0.35
"""Share of the colour within a mask: what is judged must be seen through it."""

LABELLED: Final = 20
"""Targets up to which each has its label; of more, on one picture, only the numbers can be read."""

LISTED: Final = 6
"""Targets without mask and box that are named in the corner."""

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX  # ASCII only, so labels hold nothing that a manifest says


def choose_colours(object_ids: Iterable[int]) -> dict[int, Colour]:
    """Each target's colour, in the order of the ids."""
    return {object_id: COLOURS[place % len(COLOURS)] for place, object_id in enumerate(sorted(object_ids))}


def describe(row: Row) -> str:
    """Number, quality (or score, where there is none) and state of a target, as `2 0.87 tracked`."""
    mark = row.score if row.quality is None else row.quality
    return f"{row.object_id} {'' if mark is None else f'{mark:.2f} '}{row.state}"


def paint(image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour) -> None:
    """Tint the mask's pixels of `image` [H, W, 3] RGB in place and draw its outline."""
    flat: Any = mask.view(np.uint8)
    x, y, w, h = cv2.boundingRect(flat)
    if w == 0:
        return
    part, inside = image[y : y + h, x : x + w], mask[y : y + h, x : x + w]
    part[inside] = np.round(part[inside] * np.float32(1 - TINT) + np.array(colour, np.float32) * np.float32(TINT))
    contours, _ = cv2.findContours(flat, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, colour, max(1, image.shape[1] // 400))


def paint_rows(image: NDArray[np.uint8], rows: Sequence[Row], colours: Mapping[int, Colour]) -> None:
    """Draw all targets of one frame onto its picture, in place.

    Args:
        image: [H, W, 3] RGB, contiguous; it may be smaller than the frame that the rows are of.

    Raises:
        ResultsError: a damaged mask.
    """
    absent = []
    for row in rows:
        if row.area:
            paint(image, _fitted(row.mask(), image), colours[row.object_id])
    for row in rows:
        if row.box is None or (row.area == 0 and row.state == "lost"):
            absent.append(row)
            continue
        corner = _paint_box(image, row, colours[row.object_id])
        text = describe(row) if len(rows) <= LABELLED else str(row.object_id)
        _paint_text(image, text, corner, colours[row.object_id])
    line = _line_height(image)
    for place, row in enumerate(absent[:LISTED]):
        _paint_text(image, describe(row), (0, (place + 1) * line), colours[row.object_id])
    if len(absent) > LISTED:
        text = f"{len(absent) - LISTED} more without mask"
        _paint_text(image, text, (0, (LISTED + 1) * line), (200, 200, 200))


def paint_caption(image: NDArray[np.uint8], text: str) -> None:
    """Write ASCII text into the lower left corner."""
    _paint_text(image, text, (0, image.shape[0]), (255, 255, 255))


def _fitted(mask: NDArray[np.bool_], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The mask at the size of the picture; what is small does not vanish."""
    height, width = image.shape[:2]
    if mask.shape == (height, width):
        return mask
    share = cv2.resize(mask.view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(share > 0)


def _paint_box(image: NDArray[np.uint8], row: Row, colour: Colour) -> tuple[int, int]:
    """Draw the box, thinly where the tracker was not sure, and return its upper left corner."""
    assert row.box is not None
    across, down = image.shape[1] / row.width, image.shape[0] / row.height
    x, y, w, h = row.box
    first = (round(x * across), round(y * down))
    last = (max(first[0], round((x + w) * across) - 1), max(first[1], round((y + h) * down) - 1))
    sure = row.state in ("prompt", "tracked")
    cv2.rectangle(image, first, last, colour, max(1, image.shape[1] // 400) if sure else 1)
    return first


def _scale(image: NDArray[np.uint8]) -> float:
    height: int = image.shape[0]
    return min(1.2, max(0.5, height / 1000))


def _line_height(image: NDArray[np.uint8]) -> int:
    return round(30 * _scale(image)) + 4


def _paint_text(image: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: Colour) -> None:
    """Write black text on a patch of colour with this lower left corner, within the picture, if it has room."""
    height, width = image.shape[:2]
    scale = _scale(image)
    (w, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    if w + 4 > width:
        return
    line = _line_height(image)
    x = max(0, min(corner[0], width - w - 4))
    y = max(line, min(corner[1], height))
    cv2.rectangle(image, (x, y - line), (x + w + 3, y - 1), colour, cv2.FILLED)
    cv2.putText(image, text, (x + 2, y - line // 3), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
