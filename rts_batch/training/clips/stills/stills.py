"""Still pictures with instance masks, from an index in CSV: what the synthetic clips are made of.

The index has one row a picture with at least the columns `path` and `mask` (relative to the index) and, where present,
`tier`, `kind` (rows of another kind than `image` are no stills), `source`, `categories` (of the instances 1…n, with
semicolons between them) and `partial` (1: not every object has a mask). The mask is an 8-bit PNG: 0 background, 1…n one
value per instance. Reading the index opens no picture, so a hundred thousand rows start in seconds; a picture that
turns out to be bad is named, skipped and counted.

Pictures are drawn by the kind of their objects (`KIND_SHARES`), so that a pack with many of one kind does not drown the
others.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
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
"""Pixels; smaller instances are not used at all."""
MINIMUM_TARGET_SHARE = 0.015
"""Of the picture's area; smaller instances are targets only where the picture has no larger one."""
CACHED_PICTURES = 1024

Kind = Literal["person", "vehicle", "animal", "other"]
KIND_SHARES: dict[Kind, float] = {"person": 0.35, "vehicle": 0.2, "animal": 0.3, "other": 0.15}
"""How often an object of each kind is drawn, of the kinds that an index has."""
VEHICLES = frozenset(
    ["bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "skateboard", "surfboard"]
)
ANIMALS = frozenset(["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"])
ANIMAL_SOURCES = frozenset({"openimages"})
"""Sources without categories whose pictures show animals."""


@dataclass(frozen=True)
class Objects:
    """What an index says of a picture's objects."""

    kinds: tuple[Kind, ...] = ("other",)
    """Of the instances 1…n; a single one holds for all."""
    partial: bool = False
    """Not every object of the picture has a mask."""

    def kind(self, instance: int) -> Kind:
        return self.kinds[instance - 1] if instance <= len(self.kinds) else self.kinds[-1]


@dataclass(frozen=True)
class Still:
    """A decoded still: RGB `[H, W, 3] uint8`, instance ids `[H, W] uint8`, and the ids large enough to be used."""

    name: str
    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    ids: tuple[int, ...]
    objects: Objects = Objects()

    def targets(self, kind: Kind | None) -> tuple[int, ...]:
        """Return the ids to choose a target from: large ones of `kind` where there are any."""
        smallest = MINIMUM_TARGET_SHARE * self.instances.size
        large = tuple(i for i in self.ids if np.count_nonzero(self.instances == i) >= smallest) or self.ids
        return tuple(i for i in large if self.objects.kind(i) == kind) or large


@dataclass
class Stills:
    """The pictures of an index, decoded on demand and kept in memory up to `CACHED_PICTURES`."""

    folder: Path
    rows: tuple[tuple[str, str], ...]
    """(picture, mask) relative to `folder`."""
    objects: tuple[Objects, ...] = ()
    """What is known of each row's objects; empty where nothing is."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Bad rows met so far, by their place, with the reason. (A picture may have rows with other masks.)"""
    _cache: dict[int, Still] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator, kind: Kind | None = None) -> Still:
        """Return a random usable picture, with an object of `kind` where the index has any.

        Raises:
            TrainingError: when every picture of the index is bad.
        """
        places = self._of_kind.get(kind) if kind else None
        tries = 0
        while len(self.skipped) < len(self.rows):
            tries += 1
            if places and tries <= len(places):
                picture = self.load(places[int(rng.integers(len(places)))])
            else:
                picture = self.load(int(rng.integers(len(self.rows))))
            if picture is not None:
                return picture
        first = next(iter(self.skipped.values()), "the index is empty")
        raise TrainingError(f"{self.folder}: no usable picture among {len(self.rows)}; the first: {first}")

    def draw_kind(self, rng: np.random.Generator) -> Kind | None:
        """Return a kind that the index has, by `KIND_SHARES`; None where it names none."""
        present = [kind for kind in KIND_SHARES if kind in self._of_kind]
        if not present:
            return None
        shares = np.array([KIND_SHARES[kind] for kind in present])
        return present[int(rng.choice(len(present), p=shares / shares.sum()))]

    @cached_property
    def _of_kind(self) -> dict[Kind | None, list[int]]:
        places: dict[Kind | None, list[int]] = {}
        for place, objects in enumerate(self.objects):
            for kind in set(objects.kinds):
                places.setdefault(kind, []).append(place)
        return places

    def load(self, index: int) -> Still | None:
        """Return picture `index`, or None where it is bad (then it is named in the log and in `skipped`)."""
        if index in self._cache:
            return self._cache[index]
        name, mask_name = self.rows[index]
        if index in self.skipped:
            return None
        try:
            picture = read_picture(
                self.folder / name, self.folder / mask_name, self.objects[index] if self.objects else Objects()
            )
        except TrainingError as error:
            self.skipped[index] = str(error)
            log.warning("skipped (%d so far): %s", len(self.skipped), error)
            return None
        if len(self._cache) >= CACHED_PICTURES:
            self._cache.pop(next(iter(self._cache)))
        self._cache[index] = picture
        return picture


def read_picture(path: Path, mask_path: Path, objects: Objects = Objects()) -> Still:
    """Decode a picture and its instance mask.

    Raises:
        TrainingError: where a file is missing or unreadable, the sizes differ or no instance is large enough.
    """
    image, instances = read_image(path), read_mask(mask_path)
    if instances.shape != image.shape[:2]:
        raise TrainingError(
            f"{mask_path}: the mask is {instances.shape}, its picture {image.shape[:2]} (height, width)"
        )
    areas = np.bincount(instances.ravel(), minlength=256)
    ids = tuple(int(i) for i in range(1, 256) if areas[i] >= MINIMUM_INSTANCE_AREA)
    if not ids:
        raise TrainingError(f"{mask_path}: no instance has {MINIMUM_INSTANCE_AREA} pixels")
    return Still(path.name, image, instances, ids, objects)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a picture, `[H, W, 3] uint8` RGB; raise TrainingError."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise TrainingError(f"{path}: {'not a readable picture' if path.exists() else 'no such file'}")
    return np.ascontiguousarray(image[:, :, ::-1])


def read_mask(path: Path | None) -> NDArray[np.uint8]:
    """Decode a mask of instance ids, `[H, W] uint8`; raise TrainingError."""
    mask = None if path is None else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise TrainingError(f"{path}: expected an 8-bit mask of one channel")
    return np.asarray(mask, np.uint8)


def read_index(
    index: str | Path | Sequence[str | Path], *, tiers: tuple[str, ...] = ("clean",), split: Split = "train"
) -> Stills:
    """Read one index or several, keeping the stills of `tiers` that belong to `split`.

    The split hangs on the picture's path alone: about one picture in ten is held out, the same ones for ever.

    Raises:
        TrainingError: where a file or a needed column is missing, or nothing is left.
    """
    paths = [Path(index)] if isinstance(index, (str, Path)) else [Path(path) for path in index]
    rows: list[tuple[str, str]] = []
    objects: list[Objects] = []
    for path in paths:
        folder = str(path.parent) if len(paths) > 1 else ""
        for row in index_rows(path):
            if row.get("kind", "image") != "image" or row.get("tier", "clean") not in tiers:
                continue
            if is_held_out(row["path"]) == (split == "held-out"):
                rows.append((os.path.join(folder, row["path"]), os.path.join(folder, row["mask"])))
                found = objects_of(row.get("categories") or "", row.get("source") or "", row.get("partial") == "1")
                objects.append(found)
    if not rows:
        raise TrainingError(f"{paths[0]}: no picture of tiers {', '.join(tiers)} in the split {split!r}")
    return Stills(paths[0].parent if len(paths) == 1 else Path(), tuple(rows), tuple(objects))


def index_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of an index.

    Raises:
        TrainingError: where the file or a needed column is missing.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such index of stills")
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = {"path", "mask"} - set(reader.fieldnames or ())
        if missing:
            raise TrainingError(f"{path}: the index has no column {sorted(missing)[0]!r}")
        yield from reader


@cache
def objects_of(categories: str, source: str, partial: bool) -> Objects:
    """Return what an index's row says of its picture's objects."""
    fallback: Kind = "animal" if source in ANIMAL_SOURCES else "other"
    kinds = tuple(kind_of(name) for name in categories.split(";") if name) or (fallback,)
    return Objects(kinds, partial)


def kind_of(category: str) -> Kind:
    """Return the kind of a COCO category."""
    if category == "person":
        return "person"
    return "vehicle" if category in VEHICLES else "animal" if category in ANIMALS else "other"


def is_held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % HELD_OUT_ONE_IN == 0
