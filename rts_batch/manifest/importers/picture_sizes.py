"""The sizes of the pictures that annotations were drawn on, which need not be those of the video's frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rts_batch.manifest.importers.base import Reading

LISTED: Final = 3
"""Sizes that a warning names."""


class PictureSizes:
    """Scales what was drawn to the frames' size where that is given, and else warns of boxes in pixels of pictures."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._sizes: dict[tuple[int, int], None] = {}

    def factors(self, picture: Mapping[str, Any]) -> tuple[float, float]:
        """Return by what x and y in a picture are multiplied to be in pixels of the frames.

        Args:
            picture: its `width` and `height` in pixels, where they are known.
        """
        frames, size = self._reading.options.size, _size(picture)
        return (1.0, 1.0) if frames is None or size is None else (frames[0] / size[0], frames[1] / size[1])

    def note(self, picture: Mapping[str, Any]) -> None:
        """Note that a box is in pixels of a picture."""
        if (size := _size(picture)) is not None:
            self._sizes[size] = None

    def warn(self) -> None:
        """Say of which sizes the pictures were, unless the frames' is given, or the source is an export of ours."""
        if self._sizes and self._reading.options.size is None and not self._reading.names:
            sizes = [f"{width}×{height}" for width, height in self._sizes]
            shown = ", ".join(sizes[:LISTED]) + (" …" if len(sizes) > LISTED else "")
            self._reading.warn(
                f"boxes are in pixels of pictures of {shown}; if the video's frames have another size, these pictures "
                "were resized: give that of the frames, as --size 1920x1080"
            )


def _size(picture: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of a picture, where both are numbers above 0."""
    sides = picture.get("width"), picture.get("height")
    if not all(isinstance(side, int | float) and side >= 1 for side in sides):
        return None
    width, height = map(int, sides)  # type: ignore[arg-type]
    return width, height
