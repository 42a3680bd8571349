"""YOLO detect and segment text: `class x y w h` or `class x1 y1 x2 y2 …` in fractions of the image, one file an image.

Frames: the number in the file's name, of which `first_frame` is the video's first. A line names no target: boxes are
associated by their overlap. A further number behind a box, or behind a polygon, is a score (predictions have it), and
one more a target's number (those of a tracker have it; then every line of every file ends with a whole number). The
frames' size is `size`, or else that of the images beside the labels (`images/` for `labels/`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions
from rts_batch.manifest.importers.files import image_size, read_text
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.picture_sizes import PictureReading
from rts_batch.manifest.importers.shapes import filled_polygon

_IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_NAMES: Final = ("classes.txt", "obj.names", "predefined_classes.txt")
"""Files of one class a line: labelImg's, Label Studio's, CVAT's."""

_NO_LABELS: Final = (*_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt")
_SETS: Final = ("train", "val", "valid", "test")

FEW_LINES: Final = 2

EDGE: Final = 0.002
"""Of the picture: how far a tracker's boxes, which are cut to it, reach past it by rounding."""

FEWEST_KEY_POINTS: Final = 5

MOST_ROUNDABOUT: Final = 2.2
"""Of an outline of a target; what no outline is jumps hither and thither."""

KEY_POINT_EDGE: Final = 0.02
"""Of the picture: how far a pose's key points may lie outside its box."""

Lines = list[tuple[int, list[str]]]
"""Number and words of each line of a file."""


def from_yolo(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read the labels of a YOLO data set.

    Args:
        path: `data.yaml`, the folder that holds it (or any other YAML with names), or a folder of labels (whose classes
            are named by a `classes.txt` or `obj.names`, or else are numbers).

    Raises:
        ManifestError: no labels, or a data.yaml that is none.
        StorageError: a file cannot be read.
    """
    path = Path(path)
    reading = PictureReading(path, options or ImportOptions())
    config = path if path.suffix in (".yaml", ".yml") else _config_in(path)
    data = {} if config is None else _read_config(config)
    root = path if config is None else config.parent
    if config is None and "labels" in path.absolute().parts[-2:] and (above := _config_above(path)) is not None:
        data = _read_config(above)
        names = _names(data, above)
    else:
        names = _names(data, config) if config is not None else _listed_names(root)
    labels = _labels(root, told=config is not None)
    if not labels and config is not None and isinstance(data.get("path"), str):
        root = root / data["path"]
        labels = _labels(root, told=True)
    if not labels:
        raise ManifestError(f"{path} has no label files; give data.yaml, its folder, or a folder of labels")
    found = {file: _lines(file) for file in labels}
    pose = "kpt_shape" in data
    if not pose and (pose := _are_key_points([words for lines in found.values() for _, words in lines])):
        reading.warn("the lines are taken for boxes with key points in them, of which the boxes are read")
    form = _Form(names, boxes_only=pose, tracked=_are_tracked(found.values()))
    for file, lines in found.items():
        form.read(file, root, lines, reading)
    return reading.imported()


def _config_in(folder: Path) -> Path | None:
    """The YAML of a data set in its folder."""
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    known = {file: _loaded(file) for file in sorted(folder.glob("*.y*ml"))}
    found = [file for file, data in known.items() if isinstance(data, dict) and "names" in data]
    return found[0] if len(found) == 1 else None


def _config_above(labels: Path) -> Path | None:
    """The data.yaml of the data set of a folder `labels`, `train/labels` or `labels/train`."""
    places = (folder / "data.yaml" for folder in labels.absolute().parents[:2])
    return next((place for place in places if place.is_file()), None)


def _loaded(config: Path) -> Any:
    try:
        return yaml.safe_load(read_text(config))
    except yaml.YAMLError as error:
        raise ManifestError(f"{config} is no data.yaml with a list of names: {error}") from error


def _read_config(config: Path) -> dict[str, Any]:
    data = _loaded(config)
    if not isinstance(data, dict):
        raise ManifestError(f"{config} is no data.yaml with a list of names")
    return data


def _names(data: dict[str, Any], config: Path) -> dict[int, str]:
    try:
        names = data["names"]
        return {int(k): str(v) for k, v in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{config} is no data.yaml with a list of names: {error}") from error


def _listed_names(folder: Path) -> dict[int, str]:
    places = (place / name for name in _NAMES for place in (folder, folder.parent))
    listed = next((place for place in places if place.is_file()), None)
    lines = [] if listed is None else read_text(listed).splitlines()
    return {number: line.strip() for number, line in enumerate(lines) if line.strip()}


def _labels(root: Path, *, told: bool) -> list[Path]:
    """The files of labels below a folder; where a YAML tells of a data set, those in folders `labels`."""
    return sorted(
        file
        for file in root.rglob("*.txt")
        if file.name not in _NO_LABELS and (not told or "labels" in file.relative_to(root).parts[:-1])
    )


def _lines(file: Path) -> Lines:
    lines = enumerate(read_text(file).splitlines(), start=1)
    return [(number, words) for number, line in lines if (words := line.split())]


def _are_tracked(files: Collection[Lines]) -> bool:
    """Whether every line ends with the number of a target, behind a box, its score perhaps, or a polygon."""
    for lines in files:
        last = [words[-1] for _, words in lines if len(words) >= 6]
        if len(last) < len(lines) or not all(map(str.isdecimal, last)) or "0" in last or len(set(last)) < len(last):
            return False
    found = [words for lines in files for _, words in lines]
    ones = all(words[-1] == "1" for words in found)  # of which a polygon may have one at the picture's edge
    return bool(found) and not (ones and all(_ends_with_coordinate(words, len(found)) for words in found))


def _are_key_points(lines: Sequence[Sequence[str]]) -> bool:
    """Whether every line is a box with as many key points in it, x, y and how sure, as pose predictions have them.

    The points fill the box and lie about its middle, which of a polygon were its first point, at its side; and read as
    a polygon they would cross the picture again and again.
    """
    if len(lines) <= FEW_LINES or len({len(words) for words in lines}) > 1 or len(lines[0]) < 5 + 3 * FEWEST_KEY_POINTS:
        return False
    try:
        values = np.array(lines, np.float64)
    except ValueError:
        return False
    middle, half = values[:, 1:3], values[:, 3:5] / 2
    points = values[:, 5 : 5 + (values.shape[1] - 5) // 3 * 3].reshape(len(lines), -1, 3)[:, :, :2]
    seen = (points != 0).any(axis=2)[:, :, None]
    if not seen.any(axis=1).all():
        return False
    lowest, highest = (np.min(points, 1, where=seen, initial=np.inf), np.max(points, 1, where=seen, initial=-np.inf))
    inside = (lowest >= middle - half - KEY_POINT_EDGE) & (highest <= middle + half + KEY_POINT_EDGE)
    spread = (highest - lowest) / 2
    filled, off = spread / np.maximum(half, 1e-6), np.abs(highest + lowest - 2 * middle) / 2 / np.maximum(spread, 1e-6)
    alike = inside.all() and np.median(filled) > 0.4 and np.median(off.max(axis=1)) < 0.5
    return bool(alike and np.median([_roundabout(line) for line in values[:, 1:]]) > MOST_ROUNDABOUT)


def _roundabout(line: NDArray[np.float64]) -> float:
    """How much longer the outline of a polygon x, y, x, y … is than that of the upright box around it."""
    corners = line[: len(line) // 2 * 2].reshape(-1, 2)
    length = np.abs(np.diff(corners, axis=0, append=corners[:1])).sum()
    return float(length / max(2 * np.ptp(corners, axis=0).sum(), 1e-6))


def _ends_with_coordinate(words: list[str], lines: int) -> bool:
    """Whether a line that ends with 1 is rather a polygon, whose last point it belongs to, than target 1's.

    Args:
        words: of the line.
        lines: of the data set; in a few, polygons may happen to end alike.
    """
    if len(words) % 2 == 0:
        return False  # without that number it is a box or a polygon
    if len(words) > 7:
        return lines <= FEW_LINES
    try:
        x, y, w, h = map(float, words[1:5])
    except ValueError:
        return False
    return min(x - w / 2, y - h / 2) < -EDGE or max(x + w / 2, y + h / 2) > 1 + EDGE  # no box of a score and a target


def _size(file: Path) -> tuple[int, int] | None:
    """The size of a label file's image, in `images/` for `labels/`, or beside it."""
    file = file.absolute()
    places = [file]
    if "labels" in file.parts[:-1]:
        last = len(file.parts) - 1 - file.parts[::-1].index("labels", 1)
        places.insert(0, Path(*file.parts[:last], "images", *file.parts[last + 1 :]))
    sizes = (image_size(place.with_suffix(ending)) for place in places for ending in _IMAGES)
    return next((size for size in sizes if size), None)


class _Form:
    """What the lines of a data set hold.

    Args:
        names: of the classes.
        boxes_only: what follows a box are key points.
        tracked: the last number of each line is that of a target.
    """

    def __init__(self, names: dict[int, str], *, boxes_only: bool, tracked: bool) -> None:
        self._names, self._boxes_only, self._tracked = names, boxes_only, tracked

    def read(self, file: Path, root: Path, lines: Lines, reading: PictureReading) -> None:
        """Read one file of labels."""
        parts = list(file.relative_to(root).with_suffix("").parts)
        # labels/train/one/000001 and labels/train/one_000001 are frames of `one`: sets are no part of a video's name.
        below = parts[parts.index("labels") + 1 :] if "labels" in parts else parts
        below = below[1:] if len(below) > 1 and below[0] in (*_SETS, "obj_train_data") else below
        if not lines or (found := reading.frame_of("/".join(below))) is None:
            return
        size = reading.options.size or _size(file)
        for number, words in lines:
            place = f"{file.relative_to(root)}:{number}"
            if size is None:
                reading.leave_out("labels of images whose size is unknown (no image beside them; give --size)", place)
                continue
            try:
                annotation, score = self._annotation(words, size, found)
            except ValueError as error:
                reading.leave_out(f"lines that cannot be read: {error}", place)
                continue
            if annotation.mask is None:
                reading.note_size(*size)
            reading.add(annotation, place, score)

    def _annotation(
        self, words: list[str], size: tuple[int, int], found: tuple[str, int]
    ) -> tuple[Annotation, float | None]:
        kind = float(words[0])
        if not kind.is_integer():
            raise ValueError(f"a class {words[0]}")
        category = self._names.get(int(kind), str(int(kind)))
        track = int(words.pop()) if self._tracked else None
        values = np.array([float(word) for word in words[1:]])[: 4 if self._boxes_only else None]
        if len(values) not in (4, 5) and len(values) < 6:
            raise ValueError(f"{len(values)} numbers behind the class")
        if not np.isfinite(values).all() or values.max() > 1.001 or values.min() < -0.001:
            raise ValueError("numbers that are no fractions of the image")
        score = float(values[-1]) if len(values) % 2 else None
        values = values[: len(values) - len(values) % 2]
        if len(values) == 4:
            x, y, w, h = (values * np.tile(size, 2)).tolist()
            return Annotation(*found, track, category, box=(x - w / 2, y - h / 2, w, h)), score
        return Annotation(*found, track, category, mask=filled_polygon(values.reshape(-1, 2) * size, *size)), score
