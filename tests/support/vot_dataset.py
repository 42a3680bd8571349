"""A small data set in VOT2020's layout, and a scripted tracker of it whose every mask is a known function.

Each image says in its first pixel which sequence and frame it is, so that the script needs nothing but the image; what
it answers hangs on the frame where it was started, as a real tracker's answers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]

SIZE: Final = (48, 64)
SEQUENCES: Final = {"ant": 130, "bee": 420, "crab": 900}
"""Name: frames. The interval of the expected average overlap is 115 to 755."""
ANCHORS: Final = {
    "ant": {0: 1, 50: 1, 100: -1, 129: -1},
    "bee": {0: 1, 100: 1, 209: 1, 300: -1, 419: -1},
    "crab": {0: 1, 200: 1, 500: -1, 899: -1},
}
"""Frame: 1 for a run forward from it, -1 for a run backward."""
HIDDEN: Final = {("bee", frame) for frame in range(150, 154)}
"""Where the target is not to be seen."""


def truth(sequence: str, frame: int) -> Mask:
    """The annotation: a disc with a notch that wanders; hidden on a few frames."""
    return np.zeros(SIZE, bool) if (sequence, frame) in HIDDEN else _disc(sequence, frame)


def _disc(sequence: str, frame: int) -> Mask:
    number = list(SEQUENCES).index(sequence)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    centre = 32 + 14 * np.sin(frame / 37 + number), 24 + 8 * np.cos(frame / 53)
    mask: Mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= 64
    mask &= ~((abs(x - centre[0]) < 2) & (y > centre[1] + 3))
    return mask


def scripted_mask(sequence: str, anchor: int, frame: int) -> Mask:
    """The tracker's answer: near the annotation, at times lost for a while, at times for good."""
    steps = abs(frame - anchor)
    shift = int(3 + 2 * np.sin(steps / 9 + anchor))
    mask = np.roll(_disc(sequence, frame), shift, axis=1)
    if 30 <= steps < 35:
        mask = np.roll(mask, 30, axis=1)  # lost for 5 frames, which is no failure
    lost_from = {("bee", 100): 60, ("bee", 419): 300, ("crab", 500): 130, ("crab", 200): 691}.get((sequence, anchor))
    if lost_from is not None and steps >= lost_from:
        mask = np.roll(mask, 30, axis=1)
    if (sequence, anchor) == ("ant", 50) and 60 <= steps < 69:
        mask = np.zeros_like(mask)  # nine frames without a mask: one less than a failure
    if (sequence, anchor) == ("ant", 100) and 60 <= steps < 75:
        mask = np.zeros_like(mask)  # a failure, though found again
    if (sequence, anchor) == ("bee", 300) and steps >= 295:
        mask = np.zeros_like(mask)  # lost for fewer frames than a failure takes, until the end
    if anchor == 0 and (sequence, frame) in HIDDEN:
        mask = np.zeros_like(mask)  # right: there is nothing
    if (sequence, anchor) == ("bee", 209) and steps == 20:
        mask = np.ones_like(mask)
    return mask


def to_region(mask: Mask) -> str:
    """The mask as VOT writes it: m, x, y, w, h, and the lengths of runs by rows, zeros first; 0 where it is empty."""
    if not mask.any():
        return "0"
    rows, columns = np.nonzero(mask)
    x, y = columns.min(), rows.min()
    part = mask[y : rows.max() + 1, x : columns.max() + 1]
    borders = np.flatnonzero(np.diff(part.ravel(), prepend=False)).tolist()
    runs = np.diff([0, *borders, part.size])
    return "m" + ",".join(map(str, [x, y, part.shape[1], part.shape[0], *runs]))


def image(sequence: str, frame: int) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: the target bright, and the first pixel's values say where this is."""
    pixels = np.full((*SIZE, 3), 40, np.uint8)
    pixels[truth(sequence, frame)] = 200
    pixels[0, 0] = list(SEQUENCES).index(sequence), frame // 256, frame % 256
    return pixels


def place(pixels: NDArray[np.uint8]) -> tuple[str, int]:
    """The sequence and frame of an image [H, W, 3]."""
    number, high, low = (int(value) for value in pixels[0, 0])
    return list(SEQUENCES)[number], 256 * high + low


def make_dataset(root: Path, *, images: bool = True) -> None:
    """Writes `list.txt` and the sequences into `root`."""
    root.mkdir(parents=True)
    (root / "list.txt").write_text("\n".join(SEQUENCES) + "\n")
    for name, frames in SEQUENCES.items():
        folder = root / name
        (folder / "color").mkdir(parents=True)
        (folder / "sequence").write_text(f"channels.color=color/%08d.png\nformat=default\nfps=30\nname={name}\n")
        (folder / "groundtruth.txt").write_text("".join(f"{to_region(truth(name, i))}\n" for i in range(frames)))
        (folder / "anchor.value").write_text("".join(f"{ANCHORS[name].get(i, 0)}\n" for i in range(frames)))
        for frame in range(frames):
            path = folder / "color" / f"{frame + 1:08d}.png"
            if images or frame == 0:
                Image.fromarray(image(name, frame)).save(path, compress_level=1)
            else:
                path.touch()


def frames_of(sequence: str, anchor: int) -> range:
    forward = ANCHORS[sequence][anchor] == 1
    return range(anchor, SEQUENCES[sequence]) if forward else range(anchor, -1, -1)


def masks_of(sequence: str, anchor: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The scripted run, frame by frame in the order of tracking."""
    for frame in frames_of(sequence, anchor):
        yield frame, truth(sequence, frame) if frame == anchor else scripted_mask(sequence, anchor, frame)


def overlaps() -> dict[str, list[NDArray[np.float64]]]:
    """The scripted tracker's, by sequence and anchor."""
    from rts_batch.evaluation.measures.curves import region_similarity  # the script itself needs none of the package

    return {
        sequence: [
            np.array([region_similarity(mask, truth(sequence, frame)) for frame, mask in masks_of(sequence, anchor)])
            for anchor in anchors
        ]
        for sequence, anchors in ANCHORS.items()
    }
