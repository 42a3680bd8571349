"""What every data set offers the sampler, and the reading of pictures, masks and name lists.

Opening a data set lists names only; annotations are read when a sequence is drawn. What is wrong with one sequence is a
`TrainingError` that the sampler names, counts and steps over; what is wrong with the whole set is one when it is
opened.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import TrainingError
from rts_batch.masks import Box, mask_box

Value = TypeVar("Value")

MINIMUM_VISIBLE_PIXELS = 10
"""A target with no more pixels than this counts as not visible."""


@dataclass(frozen=True)
class AnnotatedFrame:
    image: NDArray[np.uint8]
    """`[H, W, 3]` RGB."""
    mask: NDArray[np.uint8]
    """`[H, W]`, 1 on the target."""
    box: Box


class SequenceData(Protocol):
    """A set of sequences: one target in one video each."""

    name: str

    def __len__(self) -> int:
        """How many sequences there are."""

    def label(self, index: int) -> str:
        """Name a sequence in messages."""

    def visible(self, index: int) -> NDArray[np.bool_]:
        """Return for each frame of a sequence whether its target can be used there; raise `TrainingError`."""

    def read(self, index: int, frames: Sequence[int]) -> list[AnnotatedFrame]:
        """Read frames of a sequence, by their place in `visible`; raise `TrainingError`."""


def read_image(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """Return a picture, `[H, W, 3] uint8` RGB, as stored or turned `upright` as its EXIF says."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))
    if image is None:
        raise TrainingError(f"{path} {'is no picture that can be read' if path.exists() else 'is missing'}")
    return np.ascontiguousarray(image[..., ::-1])


def read_object_ids(path: Path) -> NDArray[np.uint8]:
    """Return the objects' ids of a mask picture, `[H, W] uint8`: palette indices or grey values; refuse colours."""
    return read_mask_values(path, kinds=("P", "L", "1"))


def read_mask_values(path: Path, *, kinds: tuple[str, ...] = ()) -> NDArray[np.uint8]:
    """Return the values of a mask picture, `[H, W] uint8`: palette indices, or the first channel.

    Raises:
        TrainingError: it cannot be read, or is none of the `kinds` of pictures, by Pillow's names.
    """
    try:
        with Image.open(path) as picture:
            kind, values = picture.mode, np.asarray(picture)
    except FileNotFoundError:
        raise TrainingError(f"{path} is missing") from None
    except Exception as error:  # Pillow raises half a dozen kinds for damaged files
        raise TrainingError(f"{path} is no mask that can be read ({error})") from error
    if kinds and kind not in kinds:
        raise TrainingError(
            f"{path} is a picture of the kind {kind}, whose values are no objects' ids; save it as an 8-bit palette "
            "or grey picture"
        )
    if values.ndim == 3:
        values = values[..., 0]
    return np.ascontiguousarray(values, dtype=np.uint8)


def annotated(image: NDArray[np.uint8], mask: NDArray[Any], box: Box | None, where: object) -> AnnotatedFrame:
    """Check that a picture and its mask fit; raise `TrainingError`. Without `box` the mask's tight one is taken."""
    if image.shape[:2] != mask.shape:
        sizes = [f"{shape[0]}×{shape[1]}" for shape in (mask.shape, image.shape)]
        raise TrainingError(f"{where}: the mask has {sizes[0]} pixels, the picture {sizes[1]}")
    tight = mask_box(mask)
    if tight is None:
        raise TrainingError(f"{where}: the mask is empty")
    return AnnotatedFrame(image, mask.astype(np.uint8), box or tight)


def existing(folder: Path, what: str) -> Path:
    """Return `folder` or refuse a data set whose layout lacks it."""
    if not folder.is_dir():
        raise TrainingError(f"{folder} is missing: expected the {what}")
    return folder


def choose_names(
    found: Iterable[str], *, listed: str | Path | None, exclude: Iterable[str], where: object
) -> tuple[str, ...]:
    """Return the sequence names to use: those that a text file lists (all without one), less `exclude`, in order.

    Raises:
        TrainingError: the list or `exclude` names a sequence that is not there, or nothing is left.
    """
    present = list(found)
    if listed is None:
        chosen = sorted(present)
    else:
        try:
            chosen = [line.strip() for line in Path(listed).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"{listed}: the list of sequences cannot be read as UTF-8 text ({error})") from error
        missing = sorted(set(chosen) - set(present))
        if missing:
            raise TrainingError(f"{listed} lists {missing[0]!r} and {len(missing) - 1} more that {where} does not have")
    excluded = set(exclude)
    absent = sorted(excluded - set(present))
    if absent:
        raise TrainingError(f"exclude names {absent[0]!r} and {len(absent) - 1} more that {where} does not have")
    names = tuple(name for name in chosen if name not in excluded)
    if not names:
        raise TrainingError(f"{where} has no sequence to train on")
    return names


class Memory(Generic[Value]):
    """What one loader process has read of its sequences. It never changes a result and does not travel by pickle."""

    def __init__(self, limit: int = 20_000) -> None:
        self.limit = limit
        self.values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, read: Callable[[], Value]) -> Value:
        """Return what `read` returned for this key, or ask it now."""
        if key not in self.values:
            if len(self.values) >= self.limit:
                self.values.clear()
            self.values[key] = read()
        return self.values[key]

    def __reduce__(self) -> tuple[object, ...]:
        return Memory, (self.limit,)
