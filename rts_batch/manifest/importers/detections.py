"""A detector's output: a CSV or a JSON list, one detection a row, with the columns as they happen to be called.

Frames: the column `frame` (or `frame_id`, `frame_index`) counts from `first_frame`; without it the number in the
image's name does. Boxes: columns that say what they are (`x1 y1 x2 y2`, `xmin ymin xmax ymax`, `xyxy`, `x y w h`,
`xywh`, `cx cy w h`), or one `box` or `bbox` whose meaning `box_format` must say. `normalised` boxes are fractions of
`size`. A column `track_id` (`object_id`, `tracker_id`) names targets; without it they are associated by overlap.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, read_json, read_text
from rts_batch.manifest.importers.imported import Imported
from rts_batch.masks import Box

__all__ = ["BoxFormat", "from_detections"]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]

_VIDEO: Final = ("video", "video_id", "video_name", "sequence")
_IMAGE: Final = ("image", "image_name", "file_name", "filename", "file", "path", "image_path")
_FRAME: Final = ("frame", "frame_id", "frame_index", "frame_number", "frame_idx")
_TRACK: Final = ("track_id", "object_id", "tracker_id", "track")
_LABEL: Final = ("class_name", "label", "category", "category_name", "name", "class", "class_id", "category_id")
_SCORE: Final = ("score", "confidence", "conf", "probability")
_SIDES: Final[dict[BoxFormat, tuple[tuple[str, ...], ...]]] = {
    "xyxy": (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max")),
    "xywh": (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height")),
    "cxcywh": (("cx", "cy", "w", "h"), ("xc", "yc", "w", "h"), ("xcenter", "ycenter", "width", "height")),
}


def from_detections(
    path: str | Path,
    options: ImportOptions | None = None,
    *,
    box_format: BoxFormat | None = None,
    normalised: bool = False,
) -> Imported:
    """Read a detector's output.

    Args:
        path: a CSV with a header, a JSON list (or JSON lines) of objects, or an object of lists by image name.
        box_format: what the four numbers of a column `box` or `bbox` are; must be given where there is such a one.
        normalised: boxes are fractions of the frame; needs `options.size`.

    Raises:
        ManifestError: the file is none of these, or what it means is not said.
        StorageError: the file cannot be read.
    """
    options = options or ImportOptions()
    if normalised and options.size is None:
        raise ManifestError("--normalised boxes need the frames' --size, as 1920x1080")
    reading = Reading(path, options)
    scale = options.size if normalised and options.size else (1, 1)
    for place, raw in _rows(Path(path)):
        row = {str(key).strip().casefold(): value for key, value in raw.items()}
        try:
            _read_row(row, place, reading, box_format, scale)
        except (TypeError, ValueError) as error:
            reading.leave_out(f"rows that cannot be read: {error}", place)
    return reading.imported()


def _rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    if path.suffix.lower() == ".json":
        data = read_json(path)
        if isinstance(data, dict):
            lists = {key: found for key, found in data.items() if isinstance(found, list)}
            data = [{"image": key, **row} for key, found in lists.items() for row in found if isinstance(row, dict)]
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        try:
            data = [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
        except ValueError as error:
            raise ManifestError(f"{path} is no JSON lines: {error}") from error
    else:
        data = list(csv.DictReader(io.StringIO(read_text(path))))
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ManifestError(f"{path} is no list of detections; it holds one object or row for each")
    return [(f"row {number}", row) for number, row in enumerate(data, start=1)]


def _read_row(
    row: dict[str, Any], place: str, reading: Reading, box_format: BoxFormat | None, scale: tuple[int, int]
) -> None:
    box = _box(row, box_format, scale)
    frame, image = _value(row, _FRAME), _value(row, _IMAGE)
    if frame is not None:
        index = int(float(frame)) - reading.options.first_frame
        found: tuple[str, int] | None = str(_value(row, _VIDEO) or image or "video"), index
    elif image is not None:
        found = reading.frame_of(str(image))
        if found and (video := _value(row, _VIDEO)) is not None:
            found = str(video), found[1]
    else:
        raise ManifestError(f"{place}: no frame; a detection needs a column frame, or image with a number in the name")
    if found is None:
        return
    track = _value(row, _TRACK)
    track = int(track) if track is not None and str(track).isdigit() else track
    label, score = _value(row, _LABEL), _value(row, _SCORE)
    category = None if label is None else str(label)
    reading.add(Annotation(*found, track, category, box=box), place, None if score is None else float(score))


def _value(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _box(row: dict[str, Any], box_format: BoxFormat | None, scale: tuple[int, int]) -> Box:
    kind, values = _sides(row, box_format)
    a, b, c, d = (float(value) * side for value, side in zip(values, scale * 2, strict=True))
    if kind == "xyxy":
        return a, b, c - a, d - b
    return (a, b, c, d) if kind == "xywh" else (a - c / 2, b - d / 2, c, d)


def _sides(row: dict[str, Any], box_format: BoxFormat | None) -> tuple[BoxFormat, list[Any]]:
    for kind, layouts in _SIDES.items():
        for names in layouts:
            if all(row.get(name) not in (None, "") for name in names):
                return box_format or kind, [row[name] for name in names]
        if row.get(kind) not in (None, ""):
            return kind, _four(row[kind])
    for name in ("bbox", "box"):
        if row.get(name) not in (None, ""):
            if box_format is None:
                raise ManifestError(f"column {name} does not say what its numbers are: give --box-format, xyxy or xywh")
            return box_format, _four(row[name])
    raise ManifestError(f"no box: there are the columns {', '.join(row)}; name them x1, y1, x2, y2 or x, y, w, h")


def _four(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else value.strip("[]() ").replace(",", " ").split()
    if len(values) != 4:
        raise ValueError(f"a box of {len(values)} numbers")
    return list(values)
