"""Data sets with a box per frame: GOT-10k and LaSOT. Their masks come from elsewhere, see `mask_sources`."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import TrainingError
from rts_batch.masks import Box
from rts_batch.training.clips.datasets.base import AnnotatedFrame, Memory, annotated, choose_names, existing, read_image
from rts_batch.training.clips.datasets.mask_sources import MaskSource, open_masks_of
from rts_batch.training.clips.datasets.runs import MaskFilter

Track = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Boxes x, y, w, h `[frames, 4]` and whether the target is visible `[frames]`."""


@dataclass
class BoxedFolders(abc.ABC):
    """One target a sequence, frames numbered from 1 with eight digits."""

    name: str
    sequences: tuple[str, ...]
    folders: Mapping[str, Path]
    """Sequence → its folder."""
    masks: MaskSource | None
    """None: the annotation can be read, clips cannot."""
    step: int = 1
    """Every n-th frame is used …"""
    limit: int | None = None
    """… of so many first ones."""
    _tracks: Memory[Track] = field(default_factory=Memory, repr=False)

    def __len__(self) -> int:
        return len(self.sequences)

    def label(self, index: int) -> str:
        return f"{self.name}: {self.sequences[index]}"

    def visible(self, index: int) -> NDArray[np.bool_]:
        return self._track(index)[1]

    def read(self, index: int, frames: Sequence[int]) -> list[AnnotatedFrame]:
        sequence = self.sequences[index]
        boxes = self._track(index)[0]
        if self.masks is None:
            raise TrainingError(f"{self.label(index)} has no masks")
        places = [frame * self.step for frame in frames]
        found = []
        for frame, place, mask in zip(frames, places, self.masks.read(sequence, places), strict=True):
            path = self.images(sequence) / f"{place + 1:08d}.jpg"
            x, y, w, h = boxes[frame].tolist()
            found.append(annotated(read_image(path, upright=self.masks.upright), mask, (x, y, w, h), path))
        return found

    def boxes(self, index: int) -> dict[int, Box]:
        """Return the boxes of a sequence's usable frames by the frame's index in the video; raise `TrainingError`."""
        boxes, visible = self._track(index)
        return {int(place) * self.step: tuple(boxes[place].tolist()) for place in visible.nonzero()[0]}

    def _track(self, index: int) -> Track:
        sequence = self.sequences[index]

        def read() -> Track:
            boxes, visible = self.track(sequence)
            if self.masks is not None:
                visible = visible & self.masks.usable(sequence, len(visible))
            part = slice(None, self.limit, self.step)
            return boxes[part], visible[part]

        return self._tracks.get(sequence, read)

    @abc.abstractmethod
    def images(self, sequence: str) -> Path:
        """Return the folder of a sequence's frames."""

    @abc.abstractmethod
    def track(self, sequence: str) -> Track:
        """Read a sequence's annotation, every frame of it."""


class Got10k(BoxedFolders):
    def images(self, sequence: str) -> Path:
        return self.folders[sequence]

    def track(self, sequence: str) -> Track:
        folder = self.folders[sequence]
        boxes = read_numbers(folder / "groundtruth.txt", columns=4)
        absent = read_numbers(folder / "absence.label", columns=1, rows=len(boxes))
        cover = read_numbers(folder / "cover.label", columns=1, rows=len(boxes))
        return boxes, (absent[:, 0] == 0) & (cover[:, 0] > 0) & (boxes[:, 2:] > 0).all(1)


class Lasot(BoxedFolders):
    def images(self, sequence: str) -> Path:
        return self.folders[sequence] / "img"

    def track(self, sequence: str) -> Track:
        folder = self.folders[sequence]
        boxes = read_numbers(folder / "groundtruth.txt", columns=4)
        occluded = read_numbers(folder / "full_occlusion.txt", columns=1, rows=len(boxes))
        outside = read_numbers(folder / "out_of_view.txt", columns=1, rows=len(boxes))
        return boxes, (occluded[:, 0] == 0) & (outside[:, 0] == 0) & (boxes[:, 2:] > 0).all(1)


def got10k(
    root: str | Path,
    *,
    masks: str | Path | None,
    keep: MaskFilter = MaskFilter(),  # noqa: B008
    sequences: str | Path | None = None,
    exclude: Iterable[str] = (),
) -> Got10k:
    """Open GOT-10k's `train` folder: `<sequence>/{00000001.jpg…, groundtruth.txt, absence.label, cover.label}`.

    The paper leaves out GOT-10k_Train_004419 (no masks exist) and all but the 7086 sequences that the VOT challenge
    allows: list them in `sequences`.

    Args:
        root: the folder of the sequences.
        masks: where their masks are (see `mask_sources`).
        keep: which rows to use where the masks are a run's.
        sequences: text file with one sequence a line; default all.
        exclude: sequences to leave out.
    """
    root = existing(Path(root), "sequences of GOT-10k")
    folders = {entry.name: Path(entry.path) for entry in os.scandir(root) if entry.is_dir()}
    chosen = choose_names(folders, listed=sequences, exclude=exclude, where=root)
    return Got10k("got10k", chosen, folders, None if masks is None else open_masks_of(masks, keep))


def lasot(
    root: str | Path,
    *,
    masks: str | Path | None,
    keep: MaskFilter = MaskFilter(),  # noqa: B008
    sequences: str | Path | None = None,
    exclude: Iterable[str] = (),
    step: int = 5,
    limit: int = 1000,
) -> Lasot:
    """Open LaSOT: `<class>/<class>-<n>/{img/00000001.jpg…, groundtruth.txt, full_occlusion.txt, out_of_view.txt}`.

    The paper uses every 5th frame of the first 1000 of the 1120 training sequences.

    Args:
        root: the folder of the classes, or one that holds the sequences themselves.
        masks: where the masks are (see `mask_sources`).
        keep: which rows to use where the masks are a run's.
        sequences: text file with one sequence a line, as LaSOT's `training_set.txt`; default all.
        exclude: sequences to leave out.
        step: use every `step`-th frame.
        limit: … of so many first ones.
    """
    root = existing(Path(root), "classes of LaSOT")
    folders: dict[str, Path] = {}
    for entry in os.scandir(root):
        if entry.is_dir() and os.path.exists(os.path.join(entry.path, "groundtruth.txt")):
            folders[entry.name] = Path(entry.path)
        elif entry.is_dir():
            folders.update({inner.name: Path(inner.path) for inner in os.scandir(entry.path) if inner.is_dir()})
    chosen = choose_names(folders, listed=sequences, exclude=exclude, where=root)
    return Lasot(
        "lasot", chosen, folders, None if masks is None else open_masks_of(masks, keep), step=step, limit=limit
    )


def read_numbers(path: Path, *, columns: int, rows: int | None = None) -> NDArray[np.float64]:
    """Read numbers separated by commas, blanks or line ends into `[rows, columns]`; raise `TrainingError`."""
    try:
        values = np.array(path.read_text().replace(",", " ").split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as numbers ({error})") from error
    expected = rows if rows is not None else len(values) // columns
    if len(values) != expected * columns or not len(values) or not np.isfinite(values).all():
        raise TrainingError(f"{path} holds {len(values)} numbers, expected {max(expected, 1)} finite rows of {columns}")
    return values.reshape(-1, columns)
