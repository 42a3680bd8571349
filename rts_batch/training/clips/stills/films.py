"""Real footage from an index: objects with a mask on every frame, and moving backgrounds.

Rows of the kind `video` name their `sequence` and `frame`; their masks are those of stills, with ids that stay with an
object while it is in view. The cameras stand still, so whoever shows a take adds the motion of one.

Of each sequence the last fifth is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rts_batch.training.clips.stills.stills import Split, index_rows, read_image, read_mask

HELD_OUT_SHARE = 0.2
SMALLEST_START = 0.004
"""Share of the picture that an object shows at least on a take's first frame."""


@dataclass(frozen=True)
class Take:
    """Frames in a row, each `[H, W, 3] uint8` RGB with the mask of one object, `[H, W] uint8` 0 or 255."""

    frames: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.uint8], ...]


@dataclass
class Films:
    """The sequences of an index: paths of pictures and masks in order; the mask's is None where there is none."""

    sequences: dict[str, tuple[tuple[Path, Path | None], ...]]

    @classmethod
    def read(cls, indexes: Sequence[str | Path], *, split: Split = "train") -> Films:
        """Read the rows of the kind `video` of one index or several; open no picture."""
        rows: dict[str, list[tuple[int, Path, Path | None]]] = {}
        for index in map(Path, indexes):
            for row in index_rows(index):
                if row.get("kind") == "video":
                    mask = index.parent / row["mask"] if row["mask"] else None
                    rows.setdefault(row["sequence"], []).append((int(row["frame"]), index.parent / row["path"], mask))
        sequences = {}
        for name, found in rows.items():
            ordered = [(path, mask) for _, path, mask in sorted(found)]
            first_held_out = round((1 - HELD_OUT_SHARE) * len(ordered))
            part = ordered[:first_held_out] if split == "train" else ordered[first_held_out:]
            sequences[name] = tuple(part)
        return cls({name: part for name, part in sequences.items() if part})

    def draw(self, rng: np.random.Generator, *, frames: int, step: int = 1, tries: int = 30) -> Take | None:
        """Return a random object's take of `frames`, every `step`-th one; None where none is found in `tries`."""
        names = sorted(name for name, part in self.sequences.items() if part[0][1] is not None)
        while names and (tries := tries - 1) >= 0:
            part = self.sequences[names[int(rng.integers(len(names)))]]
            start = int(rng.integers(max(1, len(part) - frames * step)))
            chosen = part[start : start + frames * step : step]
            instances = [read_mask(mask) for _, mask in chosen]
            areas = np.bincount(instances[0].ravel())
            ids = [i for i in range(1, len(areas)) if areas[i] >= SMALLEST_START * instances[0].size]
            if len(chosen) == frames and ids:
                target = ids[int(rng.integers(len(ids)))]
                masks = tuple((found == target).astype(np.uint8) * np.uint8(255) for found in instances)
                return Take(tuple(read_image(path) for path, _ in chosen), masks)
        return None

    def background(self, rng: np.random.Generator, *, frames: int) -> tuple[NDArray[np.uint8], ...]:
        """Return frames in a row of any sequence, for use as a background."""
        names = sorted(self.sequences)
        part = self.sequences[names[int(rng.integers(len(names)))]]
        start = int(rng.integers(max(1, len(part) - frames)))
        return tuple(read_image(path) for path, _ in part[start : start + frames])
