"""The sizes of the pictures that annotations were drawn on, which need not be those of the video's frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from rts_batch.manifest.importers.base import ImportOptions, Reading
from rts_batch.manifest.importers.imported import Imported

LISTED: Final = 3
"""Sizes that a warning names."""


class PictureReading(Reading):
    """Scales what was drawn to the frames' size where that is given, and else warns of boxes in pixels of pictures."""

    def __init__(self, source: str | Path, options: ImportOptions) -> None:
        super().__init__(source, options)
        self._sizes: dict[tuple[int, int], None] = {}

    def factors(self, width: Any, height: Any) -> tuple[float, float]:
        """Return by what x and y in a picture of this size, if it is known, are multiplied to be in frames' pixels."""
        frames, size = self.options.size, _size(width, height)
        return (1.0, 1.0) if frames is None or size is None else (frames[0] / size[0], frames[1] / size[1])

    def note_size(self, width: Any, height: Any) -> None:
        """Note that a box is in pixels of a picture of this size."""
        if (size := _size(width, height)) is not None:
            self._sizes[size] = None

    def imported(self) -> Imported:
        """Give the manifest's rows, as any reading does.

        Says of which sizes the pictures were, unless the frames' is given, or the source is an export of ours.
        """
        if self._sizes and self.options.size is None and not self.names:
            sizes = [f"{width}×{height}" for width, height in self._sizes]
            shown = ", ".join(sizes[:LISTED]) + (" …" if len(sizes) > LISTED else "")
            self.warn(
                f"boxes are in pixels of pictures of {shown}; if the video's frames have another size, these pictures "
                "were resized: give that of the frames, as --size 1920x1080"
            )
        return super().imported()


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height of a picture, where both are numbers above 0."""
    known = all(isinstance(side, int | float) and 1 <= side < math.inf for side in (width, height))
    return (int(width), int(height)) if known else None
