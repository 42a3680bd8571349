"""A detector's output: a CSV or JSON, one detection a row, with the columns as they happen to be called; and MOT.

Frames: the column `frame` (or `frame_id`, `frame_index`) counts from `first_frame`; without it the number in the
image's name does. Boxes: columns that say what they are (`x1 y1 x2 y2`, `xmin ymin xmax ymax`, `xyxy`, `x y w h`,
`xywh`, `cx cy w h`), or one `box` or `bbox` whose meaning `box_format` must say; `x y` of Roboflow's predictions are
the middle. `normalised` boxes are fractions of `size`. A column `track_id` (`object_id`, `tracker_id`) names targets;
without it they are associated by overlap.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path
from typing import Any, Final, Literal

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading
from rts_batch.manifest.importers.files import read_text
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.tables import PREDICTIONS, Row, is_mot, read_table
from rts_batch.masks import Box

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


MOST_OF_A_FRAME: Final = 2.0
"""Of its side: what a number in fractions is below."""


def from_detections(
    path: str | Path,
    options: ImportOptions | None = None,
    *,
    box_format: BoxFormat | None = None,
    normalised: bool = False,
) -> Imported:
    """Read a detector's output.

    Args:
        path: a CSV with a header (between commas, semicolons or tabs), JSON (lines) of objects, in lists of whatever
            depth, or a file of MOTChallenge.
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
    mot = Path(path) if is_mot(Path(path)) else None
    step = _step_of_mot(mot) if mot else 1
    for place, raw in read_table(Path(path)):
        row = dict(raw)
        try:
            if mot:
                row |= _of_mot(row, mot, options, step)
            _read_row(row, place, reading, box_format, scale)
        except (TypeError, ValueError, OverflowError) as error:
            reading.leave_out(f"rows that cannot be read: {error}", place)
    return reading.imported()


def _step_of_mot(path: Path) -> int:
    """Every which frame of the video is numbered, as `seqinfo.ini` in an export of every K-th frame says."""
    about = ConfigParser(strict=False, interpolation=None)
    with contextlib.suppress(ConfigParserError, ValueError, OSError):
        about.read(path.absolute().parent.parent / "seqinfo.ini", encoding="utf-8")
        return max(1, about.getint("Sequence", "frameStep", fallback=1))
    return 1


def _of_mot(row: Row, path: Path, options: ImportOptions, step: int) -> Row:
    """What a row of MOTChallenge says otherwise: it counts frames from 1."""
    if path.name == "gt.txt" and float(row["score"] if row.get("score") else 1) == 0:
        raise ValueError("ground truth that is not to be considered")
    folder = path.absolute().parent
    video = folder.parent.name if folder.name in ("gt", "det") else path.stem
    first = max(options.first_frame, 1)
    score = None if path.name == "gt.txt" else row.get("score")
    frame = (float(row["frame"]) - first) * step + options.first_frame
    return {"video": video, "frame": frame, "score": score, "class": _class_of_mot(row.get("class"), path)}


def _class_of_mot(number: str | None, path: Path) -> str | None:
    """The name of a class, of which a `labels.txt` beside the file has one a line."""
    if number is None or float(number) < 1:
        return None
    listed = path.with_name("labels.txt")
    names = read_text(listed).splitlines() if listed.is_file() else []
    place = int(float(number)) - 1
    return names[place].strip() if place < len(names) else str(place + 1)


def _read_row(
    row: dict[str, Any], place: str, reading: Reading, box_format: BoxFormat | None, scale: tuple[int, int]
) -> None:
    if box_format is None and _is_roboflows(row):
        box_format = "cxcywh"
        reading.warn(
            "x and y of Roboflow's predictions are the box's middle; if they are its corner: --box-format xywh"
        )
    box = _box(row, box_format, scale)
    frame, image = _value(row, _FRAME), _value(row, _IMAGE)
    if frame is not None:
        if not float(frame).is_integer():
            raise ValueError(f"frame {frame}")
        index = int(float(frame)) - reading.options.first_frame
        video = _value(row, _VIDEO) or ("video" if image is None else reading.video_of(str(image)))
        found: tuple[str, int] | None = str(video), index
    elif image is not None:
        found = reading.frame_of(str(image))
        if found and (video := _value(row, _VIDEO)) is not None:
            found = str(video), found[1]
    else:
        raise ManifestError(f"{place}: no frame; a detection needs a column frame, or image with a number in the name")
    if found is None:
        return
    track, label, score = _value(row, _TRACK), _value(row, _LABEL), _value(row, _SCORE)
    category = None if label is None else str(label)
    reading.add(Annotation(*found, track, category, box=box), place, None if score is None else float(score))


def _is_roboflows(row: Row) -> bool:
    """Whether a row is of the answer of Roboflow's inference, which says so nowhere."""
    return {"x", "y", "width", "height"} <= set(row) and not {"detection_id", PREDICTIONS}.isdisjoint(row)


def _value(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "") and type(row[name]) is not dict), None)


def _box(row: dict[str, Any], box_format: BoxFormat | None, scale: tuple[int, int]) -> Box:
    kind, values = _sides(row, box_format)
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a box of numbers that are not finite")
    if scale != (1, 1) and max(numbers) > MOST_OF_A_FRAME:
        raise ValueError("a box that is not in fractions of the frame, as --normalised says")
    a, b, c, d = (number * side for number, side in zip(numbers, scale * 2, strict=True))
    if kind == "xyxy":
        return a, b, c - a, d - b
    return (a, b, c, d) if kind == "xywh" else (a - c / 2, b - d / 2, c, d)


def _sides(row: dict[str, Any], box_format: BoxFormat | None) -> tuple[BoxFormat, list[Any]]:
    for kind, layouts in _SIDES.items():
        for names in layouts:
            if all(row.get(name) not in (None, "") for name in names):
                centred = kind == "xywh" and box_format == "cxcywh"  # x and y are the middle's, says who knows
                return "cxcywh" if centred else kind, [row[name] for name in names]
        if row.get(kind) not in (None, ""):
            return kind, _four(row[kind])
    for name in ("bbox", "box"):
        if row.get(name) not in (None, ""):
            if box_format is None:
                raise ManifestError(f"column {name} does not say what its numbers are: give --box-format, xyxy or xywh")
            return box_format, _four(row[name])
    if any(set(names) <= set(row) for layouts in _SIDES.values() for names in layouts) or {
        "box",
        "bbox",
        *_SIDES,
    } & set(row):
        raise ValueError("no box")
    raise ManifestError(f"no box: there are the columns {', '.join(row)}; name them x1, y1, x2, y2 or x, y, w, h")


def _four(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else str(value).strip("[]() ").replace(",", " ").split()
    if len(values) != 4:
        raise ValueError(f"a box of {len(values)} numbers")
    return list(values)
