"""Data sets with a mask picture per frame and several objects: YouTube-VOS and DAVIS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import TrainingError
from rts_batch.io.video.picture_names import is_picture, natural_key
from rts_batch.masks import VOID
from rts_batch.training.clips.datasets.base import (
    MINIMUM_VISIBLE_PIXELS,
    AnnotatedFrame,
    Memory,
    annotated,
    choose_names,
    existing,
    read_image,
    read_object_ids,
)

OBJECT_STEP = 10
"""Every n-th mask is read for a sequence's objects."""


@dataclass
class MaskedFolders:
    """`<images>/<video>/<frame>.jpg` beside `<masks>/<video>/<frame>.png` with one value per object.

    A sequence is one object of one video; its frames are the video's annotated ones.
    """

    name: str
    images: Path
    masks: Path
    objects: tuple[tuple[str, int], ...]
    """(video, value in the masks) of each sequence."""
    _counts: Memory[NDArray[np.int64]] = field(default_factory=Memory, repr=False)

    def __len__(self) -> int:
        return len(self.objects)

    def label(self, index: int) -> str:
        video, value = self.objects[index]
        return f"{self.name}: {video}, object {value}"

    def visible(self, index: int) -> NDArray[np.bool_]:
        video, value = self.objects[index]
        counts = self._counts.get(video, lambda: count_values(self.masks / video))
        visible: NDArray[np.bool_] = counts[:, value] > MINIMUM_VISIBLE_PIXELS
        return visible

    def read(self, index: int, frames: Sequence[int]) -> list[AnnotatedFrame]:
        video, value = self.objects[index]
        names = frame_names(self.masks / video)
        return [
            annotated(
                read_image(self.images / video / f"{names[frame]}.jpg"),
                read_object_ids(self.masks / video / f"{names[frame]}.png") == value,
                None,
                f"{self.label(index)}, frame {names[frame]}",
            )
            for frame in frames
        ]


def count_values(folder: Path) -> NDArray[np.int64]:
    """Return how many pixels of each mask of a folder have each value, `[frames, 256]`."""
    masks = (read_object_ids(folder / f"{name}.png") for name in frame_names(folder))
    return np.stack([np.bincount(mask.ravel(), minlength=256) for mask in masks])


def object_values(folder: Path) -> list[int]:
    """Return the values of a sequence's objects, ascending, from every tenth mask and the last one."""
    # Reading all masks would take minutes where the first ones take seconds.
    names = frame_names(folder)
    found: set[int] = set()
    for name in dict.fromkeys([*names[::OBJECT_STEP], names[-1]]):
        found.update(np.unique(read_object_ids(folder / f"{name}.png")).tolist())
    values = sorted(found - {0, VOID})
    return values or sorted(found & {VOID})


def frame_names(folder: Path) -> list[str]:
    """Return the stems of a folder's PNG files, by their numbers; raise `TrainingError` where there are none."""
    try:
        found = [entry[:-4] for entry in os.listdir(folder) if entry.endswith(".png") and is_picture(entry)]
    except OSError as error:
        raise TrainingError(f"{folder} cannot be listed ({error.strerror})") from error
    if not found:
        raise TrainingError(f"{folder} holds no mask")
    return sorted(found, key=natural_key)


def youtube_vos(root: str | Path, *, sequences: str | Path | None = None, exclude: Iterable[str] = ()) -> MaskedFolders:
    """Open YouTube-VOS's `train` folder: `JPEGImages`, `Annotations` and `meta.json`, which names the objects.

    Args:
        root: the folder with these three.
        sequences: text file with one video a line; all videos without it.
        exclude: videos to leave out.
    """
    root = Path(root)
    existing(root / "JPEGImages", "pictures of YouTube-VOS")
    existing(root / "Annotations", "masks of YouTube-VOS")
    meta = root / "meta.json"
    try:
        videos = json.loads(meta.read_text())["videos"]
        ids = {video: sorted(int(value) for value in entry["objects"]) for video, entry in videos.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{meta}: expected YouTube-VOS's list of videos and objects ({error!r})") from error
    chosen = choose_names(ids, listed=sequences, exclude=exclude, where=root)
    objects = tuple((video, value) for video in chosen for value in ids[video])
    return MaskedFolders("youtube-vos", root / "JPEGImages", root / "Annotations", objects)


def davis(
    root: str | Path,
    *,
    sequences: str | Path | None = None,
    exclude: Iterable[str] = (),
    resolution: str = "480p",
) -> MaskedFolders:
    """Open DAVIS: `JPEGImages/<resolution>`, `Annotations/<resolution>`, by default the list of 2017's training.

    The objects of a sequence are those of every tenth mask from the first on, and of the last: those that begin later
    are objects too, and whoever is seen in none of these is seen too shortly to be trained on. 255 is void, and an
    object only where a sequence has no other value, as DAVIS 2016's masks.

    Args:
        root: the folder with these.
        sequences: text file with one sequence a line; default `ImageSets/2017/train.txt` where there is one, else all.
        exclude: sequences to leave out.
        resolution: `480p` or `Full-Resolution`.
    """
    root = Path(root)
    images = existing(root / "JPEGImages" / resolution, "pictures of DAVIS")
    masks = existing(root / "Annotations" / resolution, "masks of DAVIS")
    usual = root / "ImageSets" / "2017" / "train.txt"
    listed = sequences or (usual if usual.exists() else None)
    chosen = choose_names(os.listdir(masks), listed=listed, exclude=exclude, where=root)
    objects: list[tuple[str, int]] = []
    for sequence in chosen:
        objects.extend((sequence, value) for value in object_values(masks / sequence))
    if not objects:
        raise TrainingError(f"{root}: the masks of all sequences are empty, of every tenth frame and the last")
    return MaskedFolders("davis", images, masks, tuple(objects))
