"""Masks for data sets that have only boxes: a folder of PNGs, or a run of this pipeline over the very same frames.

A run with one row `prompt_kind=annotate` per annotated box segments every box on its own frame (STA), which is how the
paper made its masks for LaSOT and GOT-10k. Its `video_id`s are the sequences' names, its videos their frame folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import TrainingError
from rts_batch.io.storage import files, uris
from rts_batch.runs.paths import RunPaths
from rts_batch.training.clips.datasets.base import read_mask_values
from rts_batch.training.clips.datasets.runs import MaskFilter, RunMasks


class MaskSource(Protocol):
    @property
    def upright(self) -> bool:
        """Whether the masks are those of pictures turned as their EXIF says, not of pictures as they are stored."""

    def usable(self, sequence: str, frames: int) -> NDArray[np.bool_]:
        """Return for each of a sequence's frames whether it may have a mask worth using; raise `TrainingError`."""

    def read(self, sequence: str, places: Sequence[int]) -> list[NDArray[Any]]:
        """Return the masks `[H, W]` (true on the target) of frames counted from 0; raise `TrainingError`."""


@dataclass(frozen=True)
class MaskPictures:
    """`<folder>/<sequence>/<number>.png`, numbered from 1 with eight digits; the target has the value 1."""

    folder: Path
    upright: bool = False

    def usable(self, sequence: str, frames: int) -> NDArray[np.bool_]:
        return np.ones(frames, dtype=bool)

    def read(self, sequence: str, places: Sequence[int]) -> list[NDArray[Any]]:
        return [read_mask_values(self.folder / sequence / f"{place + 1:08d}.png") == 1 for place in places]


@dataclass(frozen=True)
class MasksOfRun:
    """The masks that a run gave the same sequences."""

    run: RunMasks
    upright: bool = True  # as a run decodes its frames

    def usable(self, sequence: str, frames: int) -> NDArray[np.bool_]:
        visible = self.run.visible(self.run.find(sequence))[:frames]
        return np.pad(visible, (0, frames - len(visible)))

    def read(self, sequence: str, places: Sequence[int]) -> list[NDArray[Any]]:
        return list(self.run.masks(self.run.find(sequence), places))


def open_masks_of(place: str | Path, keep: MaskFilter = MaskFilter()) -> MaskSource:  # noqa: B008
    """Open a run's folder (it has a manifest), path or URI, whose rows `keep` filters, or a folder of mask pictures.

    Raises:
        TrainingError: there is neither.
    """
    uri = str(place)
    if files.exists(RunPaths(uri).manifest):
        return MasksOfRun(RunMasks(uri, keep=keep))
    folder = uris.local_path(uri)
    if folder is None or not folder.is_dir():
        raise TrainingError(f"{uris.safe_uri(uri)} is missing: expected a run's folder, or local masks as pictures")
    return MaskPictures(folder)
