"""Where the mask benchmarks keep their sequences: DAVIS 2016, DAVIS 2017 and YouTube-VOS 2019 as they are unpacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rts_batch.errors import UsageError
from rts_batch.evaluation.layouts.sequences import MaskObject, MaskSequence, image_names, read_labels
from rts_batch.masks import VOID


def davis_sequences(root: Path, *, year: int) -> list[MaskSequence]:
    """`JPEGImages/480p/<name>/`, `Annotations/480p/<name>/`, and the names in `ImageSets/{<year>,480p}/val.txt`.

    Without a list, every sequence that has annotations. Of 2016, all that is annotated is one object.
    """
    annotations = root / "Annotations" / "480p"
    lists = [root / "ImageSets" / folder / "val.txt" for folder in (str(year), "480p")]
    split = next((path for path in lists if path.exists()), None)
    if split is not None:
        # 2016 lists frames, "/JPEGImages/480p/<name>/00000.jpg …", 2017 lists names.
        words = [line.split()[0] for line in split.read_text().splitlines() if line.strip()]
        names = list(dict.fromkeys(Path(word).parent.name if "/" in word else word for word in words))
    else:
        names = sorted(path.name for path in annotations.glob("*") if path.is_dir())
    if not names:
        raise UsageError(f"{root} holds no sequence; expected Annotations/480p/<name>/ in it")
    return [_davis_sequence(root, name, single=year == 2016) for name in names]


def _davis_sequence(root: Path, name: str, *, single: bool) -> MaskSequence:
    folder = root / "JPEGImages" / "480p" / name
    frames = image_names(folder)
    paths = [root / "Annotations" / "480p" / name / f"{Path(frame).stem}.png" for frame in frames]
    labels = {index: path for index, path in enumerate(paths) if path.exists()}
    if 0 not in labels:
        raise UsageError(f"{paths[0]} does not exist: the first frame must be annotated")
    objects: tuple[MaskObject, ...]
    if single:
        objects = (MaskObject(1, 0),)
    else:
        ids = np.unique(read_labels(labels[0]))
        objects = tuple(MaskObject(int(one), 0) for one in ids if one not in (0, VOID))
        if not objects:
            raise UsageError(
                f"{labels[0]} has no object, which have the values 1 to 254 there; masks of 0 and 255 alone are those "
                "of davis2016"
            )
    return MaskSequence(name, folder, frames, labels, objects, single)


def youtubevos_sequences(root: Path) -> list[MaskSequence]:
    """`[valid/]{JPEGImages/<video>/, Annotations/<video>/, meta.json}`; objects begin on different frames."""
    base = _valid(root)
    sequences = []
    for name, video in sorted(_read_meta(base / "meta.json").items()):
        folder = base / "JPEGImages" / name
        frames = image_names(folder)
        index = {Path(frame).stem: number for number, frame in enumerate(frames)}
        labels = {
            index[path.stem]: path for path in sorted((base / "Annotations" / name).glob("*.png")) if path.stem in index
        }
        objects = []
        for object_id, about in sorted(video["objects"].items(), key=lambda item: int(item[0])):
            annotated = tuple(index[frame] for frame in about["frames"] if frame in index)
            if not annotated or annotated[0] not in labels:
                raise UsageError(f"{base}: the first mask of object {object_id} of video {name} is not there")
            objects.append(MaskObject(int(object_id), annotated[0], about.get("category"), annotated))
        sequences.append(MaskSequence(name, folder, frames, labels, tuple(objects)))
    if not sequences:
        raise UsageError(f"{base / 'meta.json'} names no video")
    return sequences


def seen_categories(root: Path) -> frozenset[str] | None:
    """The categories of the training set, from its `meta.json` beside the validation set's; None without that file."""
    meta = _valid(root).parent / "train" / "meta.json"
    if not meta.exists():
        return None
    videos = _read_meta(meta).values()
    return frozenset(about["category"] for video in videos for about in video["objects"].values())


def _valid(root: Path) -> Path:
    return root / "valid" if (root / "valid").is_dir() else root


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        videos: dict[str, Any] = json.loads(path.read_text())["videos"]
        for video in videos.values():
            for object_id, about in video["objects"].items():
                int(object_id), list(about["frames"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not the meta.json of YouTube-VOS: {error!r}") from error
    return videos
