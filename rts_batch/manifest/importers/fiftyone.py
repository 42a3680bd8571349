"""FiftyOne's `FiftyOneVideoLabelsDataset`: `manifest.json` and the labels of each video, as ETA writes them.

A mask is a list of lists of truth values, or an array deflated into text. Closed polylines are masks, too.

Frames count from 1 there. `index` of an object says which objects are one target; without it boxes are associated by
their overlap. Boxes are fractions of the frame, whose size comes from the labels' own metadata, from a mask's, or
from `size`.
"""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, Rle
from rts_batch.manifest.importers.files import read_json
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.shapes import mask_rle, polygons_rle
from rts_batch.masks import MAX_PIXELS, Box

_MOST_BYTES = MAX_PIXELS + 4096


def from_fiftyone(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read a folder that FiftyOne exported with the type `FiftyOneVideoLabelsDataset`.

    Raises:
        ManifestError: not such a folder.
        StorageError: a file cannot be read.
    """
    folder = Path(path)
    reading = Reading(folder, options or ImportOptions())
    index = read_json(folder / "manifest.json")
    try:
        for record in index["index"]:
            labels = read_json(folder / record["labels"])
            name = Path(record["labels"]).stem
            video = record["data"]
            reading.videos[name] = video if "://" in video else str((folder / video).resolve())
            _read_video(name, labels, reading)
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{folder} is no FiftyOneVideoLabelsDataset: {type(error).__name__} {error}") from error
    return reading.imported()


def _read_video(name: str, labels: dict[str, Any], reading: Reading) -> None:
    metadata = labels.get("metadata") or {}
    size = tuple(metadata["frame_size"]) if "frame_size" in metadata else reading.options.size
    for number, frame in labels.get("frames", {}).items():
        place = f"{name}, frame {number}"
        if _listed(frame, "keypoints"):
            reading.leave_out("key points", place)
        for label in (*_listed(frame, "objects"), *_listed(frame, "polylines")):
            try:
                box, mask = _shape(label, size)
            except (KeyError, TypeError, ValueError, OverflowError, EOFError, zlib.error, cv2.error) as error:
                what = f"no {error}" if isinstance(error, KeyError) else error
                reading.leave_out(f"objects that cannot be read: {what}", place)
                continue
            annotation = Annotation(name, int(number) - 1, label.get("index"), label.get("label"), box, mask)
            reading.add(annotation, place, label.get("confidence"))


def _listed(frame: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The labels of a kind, which ETA holds in an object of the same name."""
    found: list[dict[str, Any]] = (frame.get(kind) or {}).get(kind, [])
    return found


def _shape(label: dict[str, Any], size: tuple[int, ...] | None) -> tuple[Box | None, Rle | None]:
    """Box or mask of a detection or of a closed line."""
    if "points" not in label:
        corners = label["bounding_box"]
        sides = [float(corners[corner][axis]) for corner in ("top_left", "bottom_right") for axis in "xy"]
        return _mark(sides, label.get("mask"), size)
    if not (label.get("closed") or label.get("filled")):
        raise ValueError("a line that is not closed")
    if size is None:
        raise ValueError("points in fractions of a frame whose size is unknown (give --size)")
    rings = [
        [float(value) * side for point in ring for value, side in zip(point, size, strict=True)]
        for ring in label["points"]
    ]
    return None, polygons_rle(rings, size[0], size[1])


def _mark(sides: list[float], code: Any, size: tuple[int, ...] | None) -> tuple[Box | None, Rle | None]:
    x1, y1, x2, y2 = sides
    if code is None:
        if size is None:
            raise ValueError("boxes in fractions of a frame whose size is unknown (give --size)")
        width, height = size
        return (x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height), None
    part = _array(code)
    if x2 <= x1 or y2 <= y1 or part.ndim != 2 or not part.size:
        raise ValueError("a mask without a box")
    if size is None:
        size = round(part.shape[1] / (x2 - x1)), round(part.shape[0] / (y2 - y1))
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError("a size that no frame has")
    left, top, right, bottom = round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)
    if part.shape != (bottom - top, right - left):  # drawn in another resolution
        resized = cv2.resize(part.view(np.uint8), (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
        part = resized.astype(bool)
    mask = np.zeros((height, width), bool)
    if left < 0 or top < 0 or right > width or bottom > height:
        raise ValueError("a mask outside the frame")
    mask[top:bottom, left:right] = part
    return None, mask_rle(mask)


def _array(code: Any) -> NDArray[np.bool_]:
    """An array as ETA writes it: a list of lists, or NumPy's own format, deflated, base64. Nothing pickled is read."""
    if isinstance(code, list):
        return np.asarray(code).astype(bool)
    data = zlib.decompressobj().decompress(base64.b64decode(code), _MOST_BYTES)
    array: NDArray[np.bool_] = np.load(io.BytesIO(data), allow_pickle=False).astype(bool)
    return array
