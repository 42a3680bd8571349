"""The sequences of a benchmark: frames, annotation, and what their layouts on disk have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import UsageError, VideoError
from rts_batch.io.video.picture_names import is_picture
from rts_batch.io.video.series import choose_frames


@dataclass(frozen=True, eq=False)
class BoxSequence:
    """One target, annotated with boxes."""

    name: str
    folder: Path
    """Of the frames, as images."""
    truth: NDArray[np.float64]
    """[N, 4] x, y, w, h in pixels, as the benchmark writes them; NaN where a frame has none."""
    absent: NDArray[np.bool_]
    """[N], where the target is not to be seen."""
    start: int = 0
    """Index in the folder of the sequence's first frame."""

    @property
    def end(self) -> int | None:
        """Index after the last frame; None where only the first frame's box is public."""
        return self.start + len(self.truth) if len(self.truth) > 1 else None


@dataclass(frozen=True)
class MaskObject:
    """One object of a sequence that is annotated with masks."""

    object_id: int
    start: int
    """Index of the frame where it is given."""
    category: str | None = None
    annotated: tuple[int, ...] | None = None
    """Frames where it is annotated; None for all."""


@dataclass(frozen=True)
class MaskSequence:
    """One or more objects, annotated with label images: 0 is the background, other values are object ids."""

    name: str
    folder: Path
    frames: tuple[str, ...]
    """The frames' file names."""
    labels: Mapping[int, Path]
    """The label images that there are, by the index of the frame."""
    objects: tuple[MaskObject, ...]
    single: bool = False
    """All that is not background is object 1, whatever its value (DAVIS 2016)."""

    def mask(self, labels: NDArray[np.uint8], object_id: int) -> NDArray[np.bool_]:
        """The mask [H, W] of an object, given the frame's label image."""
        mask: NDArray[np.bool_] = (labels != 0) if self.single else (labels == object_id)
        return mask


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Read boxes, one a line, [N, 4] x, y, w, h.

    Numbers are separated by commas, blanks or tabs. Lines of eight or more numbers are polygons, x and y in turn, and
    become the box around them; NaN stays NaN.

    Raises:
        UsageError: the file cannot be read, or a line is neither a box nor a polygon.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            values = [float(word) for word in line.replace(",", " ").split()]
        except ValueError:
            raise UsageError(f"{path}, line {number}: {line[:60]!r} is not a list of numbers") from None
        if len(values) >= 8 and len(values) % 2 == 0:
            x, y = values[::2], values[1::2]
            values = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
        if len(values) != 4:
            raise UsageError(f"{path}, line {number}: {len(values)} numbers are neither x, y, w, h nor a polygon")
        rows.append(values)
    if not rows or not np.isfinite(rows[0]).all():
        raise UsageError(f"{path}: the first line must be a box, as it is what the tracker is given")
    return np.array(rows, np.float64)


def read_flags(path: Path, frames: int) -> NDArray[np.float64]:
    """Read one number for each frame [frames], separated in any way.

    Raises:
        UsageError: there is no such file, another count than `frames`, or not numbers.
    """
    if not path.exists():
        # Taken for zeros, frames without the target would count as ones where it was to be found.
        raise UsageError(f"{path} is missing: it says in which frames the target is to be seen; unpack it, too")
    try:
        values = np.array([float(word) for word in " ".join(read_lines(path)).replace(",", " ").split()])
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if len(values) != frames:
        raise UsageError(f"{path} holds {len(values)} numbers for {frames} frames")
    return values


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read a label image [H, W] uint8: the indices of a palette image, the values of a grey one.

    Raises:
        UsageError: the image cannot be read, or has colours.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise UsageError(f"{path} is an image of mode {image.mode}; annotations are palette or grey images")
            return np.asarray(image).astype(np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def image_names(folder: Path) -> tuple[str, ...]:
    """The names of a folder's frames, chosen and in the order as when it is tracked.

    Raises:
        UsageError: there is no such folder, no image in it, or it is not clear which images are the frames.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise UsageError(f"the frames' folder {folder} cannot be listed: {error.strerror}") from error
    if not any(map(is_picture, names)):
        raise UsageError(f"{folder} holds no frames (pictures)")
    try:
        # No picture is opened to see whether it is a mask: benchmarks keep masks in folders of their own.
        return tuple(choose_frames(str(folder), names, lambda _: False).names)
    except VideoError as error:
        raise UsageError(str(error)) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything, without the blanks around them."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
