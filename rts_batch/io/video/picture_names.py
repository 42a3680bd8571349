"""What the names of pictures say: which kind each is of, its numbers, and the order in which they follow each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final

READ: Final = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".pnm", ".avif",
)  # fmt: skip
"""Endings of the pictures that can be frames."""

UNREAD: Final = (
    ".heic", ".heif", ".jxl", ".exr", ".hdr", ".tga", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf",
    ".rw2",
)  # fmt: skip
"""Endings of pictures that nothing here decodes."""

MASK_WORDS: Final = frozenset((
    "mask", "masks", "msk", "seg", "segm", "segmentation", "segmentations", "semantic", "silhouette", "matte", "mattes",
    "label", "labels", "labelid", "labelids", "labelmap", "gt", "groundtruth", "truth", "panoptic", "annotation",
    "annotations", "anno", "annot", "ann", "instance", "instances", "instanceid", "instanceids",
))  # fmt: skip
_SAME: Final = {".jpeg": ".jpg", ".tiff": ".tif"}
_INTEGER: Final = re.compile(r"(\d+)", re.ASCII)
_DECIMAL: Final = re.compile(r"((?<![\d.])\d+\.\d+(?!\.?\d)|\d+)", re.ASCII)
_FRACTION: Final = re.compile(r"(?<![\d.])\d+\.(\d+)(?!\.?\d)", re.ASCII)


def is_picture(name: str) -> bool:
    """Whether the name is a picture's, and not one that macOS adds to folders and archives."""
    place = PurePosixPath(name)
    hidden = place.name.startswith(".") or "__MACOSX" in place.parts
    return place.name.lower().endswith(READ + UNREAD) and not hidden


def natural_key(name: str, *, decimals: bool = False) -> list[tuple[int, Decimal, str]]:
    """Sort `frame2` before `frame10`, and by the plain name where that is equal.

    Args:
        name: may have folders.
        decimals: whether `1.5` is one number and comes after `1.25`, or is two and comes before it.
    """
    parts = (_DECIMAL if decimals else _INTEGER).split(name)
    return [(1, Decimal(part), part) if place % 2 else (0, Decimal(0), part) for place, part in enumerate(parts)]


@dataclass(frozen=True)
class Numbers:
    """How the digits in the names of one folder are read."""

    decimals: bool = False
    """A point between digits belongs to the number, as in time stamps."""
    doubt: str = ""
    """A name for which both would do, where nothing decides."""

    @classmethod
    def of(cls, stems: Iterable[str]) -> Numbers:
        """Decide by all names: `.05` beside `.1` is a decimal's, `.10` beside `.9` a counter's."""
        fractions = {match[1]: stem for stem in stems if (match := _FRACTION.search(stem))}
        shortest = min(map(len, fractions), default=0)
        longer = [digits for digits in fractions if len(digits) > shortest]
        if not longer:
            return cls()  # both give the same order
        if any(digits.startswith("0") for digits in longer):
            return cls(decimals=True)
        values = {int(digits) for digits in fractions}
        if any(digits.endswith("0") for digits in longer) or max(values) - min(values) == len(values) - 1:
            return cls()
        return cls(decimals=True, doubt=fractions[longer[0]])


@dataclass(frozen=True)
class PictureName:
    """A name taken apart."""

    name: str
    numbers: Numbers

    @cached_property
    def place(self) -> PurePosixPath:
        return PurePosixPath(self.name)

    @property
    def folder(self) -> str:
        return str(self.place.parent)

    @property
    def stem(self) -> str:
        return self.place.stem

    @property
    def ending(self) -> str:
        ending = self.place.suffix.lower()
        return _SAME.get(ending, ending)

    @cached_property
    def _parts(self) -> list[str]:
        return (_DECIMAL if self.numbers.decimals else _INTEGER).split(self.stem)

    @cached_property
    def text(self) -> str:
        """The stem with `#` for each number: the kind of name. Names without a number are of one kind but for masks."""
        return "#".join(self._parts[::2]) if len(self._parts) > 1 else " ".join(sorted(self.mask_words))

    @cached_property
    def key(self) -> tuple[Decimal | str, ...]:
        """The numbers in it; where there are none, its words but those that speak of masks."""
        if len(self._parts) > 1:
            return tuple(map(Decimal, self._parts[1::2]))
        return (" ".join(word for word in re.split(r"[\W_]+", self.stem.lower()) if word not in MASK_WORDS),)

    @cached_property
    def order(self) -> tuple[list[tuple[int, Decimal, str]], str]:
        return natural_key(str(self.place.with_suffix("")), decimals=self.numbers.decimals), self.ending

    @cached_property
    def mask_words(self) -> frozenset[str]:
        """Words in the folder's and the file's name that speak of masks."""
        text = re.sub(r"([a-z])([A-Z])", r"\1 \2", f"{self.folder}/{self.stem}")
        return MASK_WORDS & set(re.findall(r"[a-z]+", text.lower()))
