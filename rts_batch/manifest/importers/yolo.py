"""YOLO detect and segment text: `class x y w h` or `class x1 y1 x2 y2 …` in fractions of the image, one file an image.

Frames: the number in the file's name, of which `first_frame` is the video's first. A line names no target: boxes are
associated by their overlap. A further number behind a box, or behind a polygon, is a score (predictions have it). The
images' size comes from the images beside the labels (`images/` for `labels/`), or from `size`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, image_size, read_text
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.shapes import filled_polygon

__all__ = ["from_yolo"]

_IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def from_yolo(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read the labels of a YOLO data set.

    Args:
        path: `data.yaml`, the folder that holds it, or a folder of labels (whose classes then are numbers).

    Raises:
        ManifestError: no labels, or a data.yaml that is none.
        StorageError: a file cannot be read.
    """
    path = Path(path)
    reading = Reading(path, options or ImportOptions())
    config = path if path.suffix in (".yaml", ".yml") else path / "data.yaml"
    names = _names(config) if config.is_file() else {}
    root = config.parent
    labels = sorted(
        file
        for file in root.rglob("*.txt")
        if config.is_file() is False or "labels" in file.relative_to(root).parts[:-1]
    )
    if not labels:
        raise ManifestError(f"{path} has no label files; give data.yaml, its folder, or a folder of labels")
    for file in labels:
        _read_file(file, root, names, reading)
    return reading.imported()


def _names(config: Path) -> dict[int, str]:
    try:
        data: Any = yaml.safe_load(read_text(config))
        names = data["names"]
        return {int(k): str(v) for k, v in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{config} is no data.yaml with a list of names: {error}") from error


def _read_file(file: Path, root: Path, names: dict[int, str], reading: Reading) -> None:
    parts = list(file.relative_to(root).with_suffix("").parts)
    # labels/train/one/000001 and labels/train/one_000001 are frames of `one`: sets are no part of a video's name.
    below = parts[parts.index("labels") + 1 :] if "labels" in parts else parts
    below = below[1:] if len(below) > 1 and below[0] in ("train", "val", "test") else below
    lines = [(number, line.split()) for number, line in enumerate(read_text(file).splitlines(), start=1)]
    lines = [(number, words) for number, words in lines if words]
    if not lines or (found := reading.frame_of("/".join(below))) is None:
        return
    size = _size(file, root) or reading.options.size
    for number, words in lines:
        place = f"{file.relative_to(root)}:{number}"
        if size is None:
            reading.leave_out("labels of images whose size is unknown (no image beside them; give --size)", place)
            continue
        try:
            annotation, score = _annotation(words, size, names, found)
        except ValueError as error:
            reading.leave_out(f"lines that cannot be read: {error}", place)
            continue
        reading.add(annotation, place, score)


def _size(file: Path, root: Path) -> tuple[int, int] | None:
    parts = list(file.relative_to(root).parts)
    if "labels" in parts:
        parts[parts.index("labels")] = "images"
    image = root.joinpath(*parts)
    return next((s for ending in _IMAGES if (s := image_size(image.with_suffix(ending)))), None)


def _annotation(
    words: list[str], size: tuple[int, int], names: dict[int, str], found: tuple[str, int]
) -> tuple[Annotation, float | None]:
    kind, values = int(words[0]), np.array([float(word) for word in words[1:]])
    category = names.get(kind, str(kind))
    if len(values) not in (4, 5) and len(values) < 6:
        raise ValueError(f"{len(values)} numbers behind the class")
    if not np.isfinite(values).all() or values.max() > 1.001 or values.min() < -0.001:
        raise ValueError("numbers that are no fractions of the image")
    score = float(values[-1]) if len(values) % 2 else None
    values = values[: len(values) - len(values) % 2]
    if len(values) == 4:
        x, y, w, h = (values * np.tile(size, 2)).tolist()
        return Annotation(*found, None, category, box=(x - w / 2, y - h / 2, w, h)), score
    return Annotation(*found, None, category, mask=filled_polygon(values.reshape(-1, 2) * size, *size)), score
