"""LabelMe's JSON beside each picture, as X-AnyLabeling writes it, too: polygons, rectangles, circles and masks.

Frames: where numbers alone name the files of a folder, its pictures beside them are the video, and a frame is the place
of its picture there, unless `video` says where the video is. Otherwise the number in the file's name counts, of which
`first_frame` is the video's first. `group_id` says which shapes are one target, without it they are associated by
overlap; the polygons and masks of one group and label on one picture are one mask.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Rle
from rts_batch.manifest.importers.files import read_json
from rts_batch.manifest.importers.files_of_pictures import FilesOfPictures
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.picture_sizes import PictureReading
from rts_batch.manifest.importers.shapes import mask_rle, polygons_rle
from rts_batch.manifest.polygons import FARTHEST
from rts_batch.masks import MAX_PIXELS, Box

_BOXES: Final = ("rectangle", "rotation")
_MASKS: Final = ("polygon", "circle", "mask")
_CORNERS: Final = 90
"""Of the polygon that stands for a circle."""


def from_labelme(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read a JSON file of LabelMe, or all below a folder.

    Raises:
        ManifestError: no file of LabelMe, or no JSON.
        StorageError: a file cannot be read.
    """
    source = Path(path)
    reading = PictureReading(source, options or ImportOptions())
    found = {file: read_json(file) for file in (sorted(source.rglob("*.json")) if source.is_dir() else [source])}
    ours = {
        file: data for file, data in found.items() if isinstance(data, dict) and isinstance(data.get("shapes"), list)
    }
    if not ours:
        raise ManifestError(f"{path} has no JSON files of LabelMe, with lists of shapes")
    for file in sorted(set(found) - set(ours)):
        reading.leave_out("JSON files that are none of LabelMe", file.name)
    frames = FilesOfPictures(list(ours), source if source.is_dir() else source.parent, reading)
    for file, data in ours.items():
        if data["shapes"] and (place := frames.of(file)) is not None:
            _read(data, place, file, reading)
    return reading.imported()


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a shape marks: a box or, perhaps, a mask of some pixels."""

    label: Any
    group: Any
    place: str
    score: float | None
    box: Box | None = None
    mask: Rle | None = None


def _read(data: dict[str, Any], found: tuple[str, int], file: Path, reading: PictureReading) -> None:
    targets: dict[Any, list[_Mark]] = {}
    for number, shape in enumerate(data["shapes"]):
        place = f"{file.name}, shape {number}"
        try:
            mark = _mark(shape, place, (data.get("imageWidth"), data.get("imageHeight")), reading)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, cv2.error) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            reading.leave_out(f"shapes that cannot be read: {what}", place)
            continue
        if mark is not None:
            targets.setdefault(number if mark.group is None else (str(mark.label), str(mark.group)), []).append(mark)
    for marks in targets.values():
        masks = [mark.mask for mark in marks if mark.mask is not None]
        for mark in marks[:1] if masks else marks:  # a box around the parts of a mask says nothing more
            united = _united(masks) if masks else None
            box = None if masks else mark.box
            reading.add(Annotation(*found, mark.group, mark.label, box, united), mark.place, mark.score)


def _mark(shape: dict[str, Any], place: str, size: tuple[Any, Any], reading: PictureReading) -> _Mark | None:
    kind = shape.get("shape_type") or "polygon"
    if kind not in (*_BOXES, *_MASKS):
        reading.leave_out(f"shapes of the kind {kind}", place)
        return None
    score, group = shape.get("score"), shape.get("group_id")
    group = None if group in ("", -1) else group
    mark = _Mark(shape.get("label"), group, place, None if score is None else float(score))
    factors = reading.factors(*size)
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if not len(points) or not (np.abs(points) <= FARTHEST).all():
        raise ValueError("points that are no numbers, or far from the picture")
    if kind in _BOXES:
        reading.note_size(*size)
        (x, y), (right, bottom) = points.min(0) * factors, points.max(0) * factors
        return replace(mark, box=(float(x), float(y), float(right - x), float(bottom - y)))
    if not all(isinstance(side, int | float) and side >= 1 for side in size):
        raise ValueError("a mask of a picture whose imageWidth and imageHeight are not said")
    width, height = (round(side * factor) for side, factor in zip(size, factors, strict=True))
    if kind == "mask":
        if factors != (1, 1):
            raise ValueError("a mask is not scaled to --size; give a polygon or a box")
        return replace(mark, mask=_placed(shape["mask"], points[0], width, height))
    outline = points if kind == "polygon" else _around(points)
    return replace(mark, mask=polygons_rle([(outline * factors).ravel().tolist()], width, height))


def _around(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of a polygon `[_CORNERS, 2]` for a circle, of which its middle and a point on it are given."""
    middle, edge = points
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    radius = float(np.hypot(*(edge - middle)))
    return np.asarray(middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _placed(code: str, corner: NDArray[np.float64], width: int, height: int) -> Rle | None:
    """A mask of a PNG of its box, of which the first point is the upper left pixel."""
    part = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_GRAYSCALE)
    left, top = (round(value) for value in corner.tolist())
    if part is None or width * height > MAX_PIXELS:
        raise ValueError("a mask that is no picture, or one of a size that no picture has")
    if left < 0 or top < 0 or left + part.shape[1] > width or top + part.shape[0] > height:
        raise ValueError("a mask outside the picture")
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part > 0
    return mask_rle(mask)


def _united(masks: list[Rle]) -> Rle:
    merged = coco.merge(masks)
    return {"size": list(merged["size"]), "counts": merged["counts"].decode("ascii")}
