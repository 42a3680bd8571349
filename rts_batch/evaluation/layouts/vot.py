"""Where VOT2020-ST keeps its sequences: frames, masks written as regions, and the frames where runs begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import UsageError
from rts_batch.evaluation.layouts.sequences import image_names, read_lines

_FORWARD, _BACKWARD = 1, -1


@dataclass(frozen=True)
class Anchor:
    """A frame where the tracker is started, to run to the sequence's end, or backward to its beginning."""

    frame: int
    forward: bool


@dataclass(frozen=True)
class VotSequence:
    """One target, annotated with a mask on every frame."""

    name: str
    folder: Path
    """Of the frames, as images."""
    regions: tuple[str, ...]
    """[N] the annotation, as it is written."""
    anchors: tuple[Anchor, ...]

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        with Image.open(self.folder / image_names(self.folder)[0]) as image:
            return image.height, image.width

    def truth(self, frame: int) -> NDArray[np.bool_]:
        """The annotation [H, W] of a frame; empty where the target is not to be seen."""
        try:
            return parse_region(self.regions[frame], *self.size)
        except ValueError as error:
            raise UsageError(f"{self.name}/groundtruth.txt, line {frame + 1}: {error}") from None

    def run_name(self, anchor: Anchor) -> str:
        """What a run is called in the manifest: like its file of VOT's own toolkit."""
        return f"{self.name}_{anchor.frame:08d}"

    def frames_of(self, anchor: Anchor) -> range:
        """The frames of a run in the order in which they are tracked; the first is the anchor."""
        return range(anchor.frame, len(self.regions)) if anchor.forward else range(anchor.frame, -1, -1)


def vot_sequences(root: Path) -> list[VotSequence]:
    """`[sequences/]{list.txt, <name>/{sequence, groundtruth.txt, anchor.value, color/*.jpg}}`."""
    base = root / "sequences" if (root / "sequences" / "list.txt").exists() else root
    names = read_lines(base / "list.txt")
    if not names:
        raise UsageError(f"{base / 'list.txt'} names no sequence")
    return [_sequence(base / name, name) for name in names]


def _sequence(folder: Path, name: str) -> VotSequence:
    regions = tuple(read_lines(folder / "groundtruth.txt"))
    frames = folder / Path(_properties(folder / "sequence").get("channels.color", "color/%08d.jpg")).parent
    count = len(image_names(frames))
    if count != len(regions):
        raise UsageError(f"{folder / 'groundtruth.txt'} has {len(regions)} lines, but {frames} holds {count} frames")
    return VotSequence(name, frames, regions, tuple(_anchors(folder / "anchor.value", len(regions))))


def _anchors(path: Path, frames: int) -> Iterator[Anchor]:
    values = read_lines(path)
    if len(values) != frames:
        raise UsageError(f"{path} holds {len(values)} numbers for {frames} frames")
    found = False
    for frame, value in enumerate(values):
        try:
            direction = float(value)
        except ValueError:
            raise UsageError(f"{path}, line {frame + 1}: {value!r} is not a number") from None
        if direction in (_FORWARD, _BACKWARD):
            found = True
            yield Anchor(frame, forward=direction == _FORWARD)
    if not found:
        raise UsageError(f"{path} marks no frame with 1 (forward) or -1 (backward)")


def parse_region(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Read a mask as VOT writes it, [height, width] bool.

    `m<x>,<y>,<w>,<h>,<runs>`: the mask's box, and in it the lengths of runs by rows, of 0 and 1 in turn; what lies
    outside the image is cut off. A single number is a special code, here: no target to be seen.

    Raises:
        ValueError: rectangles, polygons, rubbish.
    """
    if "," not in text and text.strip().lstrip("-").isdigit():
        return np.zeros((height, width), bool)
    if not text.startswith("m"):
        raise ValueError(f"{text[:30]!r} is no mask; this benchmark's annotations are masks (m…)")
    try:
        x, y, w, h, *runs = (int(word) for word in text[1:].split(","))
    except ValueError:
        raise ValueError(f"{text[:30]!r} is no mask: it needs whole numbers x, y, w, h and runs") from None
    if min(w, h, *runs, 0) < 0 or sum(runs) > w * h:
        raise ValueError(f"the runs of {text[:30]!r} do not fit its {w}×{h} pixels")
    part = np.zeros(w * h, bool)
    filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    part[: len(filled)] = filled
    mask = np.zeros((height, width), bool)
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + h, height), min(x + w, width)
    if bottom > top and right > left:
        mask[top:bottom, left:right] = part.reshape(h, w)[top - y : bottom - y, left - x : right - x]
    return mask


def _properties(path: Path) -> dict[str, str]:
    """The `key=value` lines of a sequence's description."""
    pairs = (line.partition("=") for line in read_lines(path))
    return {key.strip(): value.strip() for key, _, value in pairs}
