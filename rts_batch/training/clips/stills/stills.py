"""Still pictures with instance masks, from an index in CSV: what the synthetic clips are made of.

The index has one row a picture with at least the columns `path` and `mask` (relative to the index) and, where present,
`tier` and `instances`. The mask is an 8-bit PNG: 0 background, 1…n one value per instance. Reading the index opens no
picture, so a hundred thousand rows start in seconds; a picture that turns out to be bad is named, skipped and counted.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import TrainingError

log = logging.getLogger(__name__)

Split = Literal["train", "held-out"]
HELD_OUT_ONE_IN = 10
MINIMUM_INSTANCE_AREA = 150
"""Pixels; smaller instances are not used as targets."""
CACHED_PICTURES = 1024


@dataclass(frozen=True)
class Picture:
    """A decoded still: RGB `[H, W, 3] uint8`, instance ids `[H, W] uint8`, and the ids large enough to be used."""

    name: str
    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    ids: tuple[int, ...]


@dataclass
class Stills:
    """The pictures of an index, decoded on demand and kept in memory up to `CACHED_PICTURES`."""

    folder: Path
    rows: tuple[tuple[str, str], ...]
    """(picture, mask) relative to `folder`."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Bad pictures met so far, with the reason."""
    _cache: dict[int, Picture] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator) -> Picture:
        """Returns a random usable picture.

        Raises:
            TrainingError: when every picture of the index is bad.
        """
        while len(self.skipped) < len(self.rows):
            picture = self.load(int(rng.integers(len(self.rows))))
            if picture is not None:
                return picture
        first = next(iter(self.skipped.items()), ("", "the index is empty"))
        raise TrainingError(
            f"{self.folder}: no usable picture among {len(self.rows)}; the first: {first[0]}: {first[1]}"
        )

    def load(self, index: int) -> Picture | None:
        """Returns picture `index`, or None where it is bad (then it is named in the log and in `skipped`)."""
        if index in self._cache:
            return self._cache[index]
        name, mask_name = self.rows[index]
        if name in self.skipped:
            return None
        try:
            picture = read_picture(self.folder / name, self.folder / mask_name)
        except TrainingError as error:
            self.skipped[name] = str(error)
            log.warning("skipped (%d so far): %s", len(self.skipped), error)
            return None
        if len(self._cache) >= CACHED_PICTURES:
            self._cache.pop(next(iter(self._cache)))
        self._cache[index] = picture
        return picture


def read_picture(path: Path, mask_path: Path) -> Picture:
    """Decodes a picture and its instance mask.

    Raises:
        TrainingError: where a file is missing or unreadable, the sizes differ or no instance is large enough.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise TrainingError(f"{path}: {'not a readable picture' if path.exists() else 'no such file'}")
    instances = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
    if instances is None or instances.ndim != 2 or instances.dtype != np.uint8:
        raise TrainingError(f"{mask_path}: expected an 8-bit mask of one channel")
    if instances.shape != image.shape[:2]:
        raise TrainingError(
            f"{mask_path}: the mask is {instances.shape}, its picture {image.shape[:2]} (height, width)"
        )
    areas = np.bincount(instances.ravel(), minlength=256)
    ids = tuple(int(i) for i in range(1, 256) if areas[i] >= MINIMUM_INSTANCE_AREA)
    if not ids:
        raise TrainingError(f"{mask_path}: no instance has {MINIMUM_INSTANCE_AREA} pixels")
    return Picture(path.name, np.ascontiguousarray(image[:, :, ::-1]), instances, ids)


def read_index(index: str | Path, *, tiers: tuple[str, ...] = ("clean",), split: Split = "train") -> Stills:
    """Reads an index, keeping the rows of `tiers` that belong to `split`.

    The split hangs on the picture's path alone: about one picture in ten is held out, the same ones for ever.

    Raises:
        TrainingError: where the file or a needed column is missing, or nothing is left.
    """
    path = Path(index)
    if not path.is_file():
        raise TrainingError(f"{path}: no such index of stills")
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = {"path", "mask"} - set(reader.fieldnames or ())
        if missing:
            raise TrainingError(f"{path}: the index has no column {sorted(missing)[0]!r}")
        rows = tuple(
            (row["path"], row["mask"])
            for row in reader
            if row.get("tier", "clean") in tiers and _is_held_out(row["path"]) == (split == "held-out")
        )
    if not rows:
        raise TrainingError(f"{path}: no picture of tiers {', '.join(tiers)} in the split {split!r}")
    return Stills(path.parent, rows)


def _is_held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % HELD_OUT_ONE_IN == 0
