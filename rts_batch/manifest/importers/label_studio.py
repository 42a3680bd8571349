"""Label Studio JSON: percent boxes and polygons, brush masks, and boxes on a video's time line.

Frames: on a time line Label Studio counts from 1, so its frame 1 is index 0; of a task of an image the number in the
file's name counts, of which `first_frame` is the video's first. On a time line only what somebody drew is taken, not
what Label Studio interpolates. One region (`id`) of a time line is one target; regions of images that have no
`track_id` in their `meta` are associated by overlap. Predictions and cancelled annotations are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import MOST, Annotation, ImportOptions, Reading, Rle
from rts_batch.manifest.importers.files import read_json
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.picture_sizes import PictureReading
from rts_batch.manifest.importers.shapes import mask_rle, polygons_rle
from rts_batch.manifest.importers.video_names import distinct_names
from rts_batch.masks import MAX_PIXELS, Box
from rts_batch.words import counted

_LABELS: Final = ("labels", "rectanglelabels", "polygonlabels", "brushlabels", "videorectangle")
_ON_IMAGES: Final = ("rectangle", "rectanglelabels", "polygon", "polygonlabels", "brush", "brushlabels")


def from_label_studio(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read a JSON export of Label Studio (not JSON-MIN).

    Raises:
        ManifestError: no JSON, or not of Label Studio's form.
        StorageError: the file cannot be read.
    """
    reading = PictureReading(path, options or ImportOptions())
    tasks = read_json(path)
    tasks = [tasks] if isinstance(tasks, dict) else tasks
    try:
        if not all("data" in task for task in tasks):
            raise ManifestError(f"{path} is no JSON export of Label Studio: its tasks have no data")
        places = _places(tasks, reading)
        for number, task in enumerate(tasks, start=1):
            _read_task(task, f"task {task.get('id', number)}", reading, places)
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} is not of Label Studio's form: {type(error).__name__} {error}") from error
    return reading.imported()


def _finished(task: dict[str, Any]) -> list[dict[str, Any]]:
    drawn = task.get("annotations", task.get("completions", []))  # as versions before 1.0 call them
    return [found for found in drawn if not found.get("was_cancelled")]


def _places(tasks: Sequence[dict[str, Any]], reading: Reading) -> dict[tuple[str, bool], tuple[str, int] | None]:
    """Video and frame by the address of what was drawn on, and by whether that is a video."""
    found: dict[tuple[str, bool], tuple[str, str, int] | None] = {}
    for task in tasks:
        for result in (result for drawn in _finished(task)[:1] for result in drawn.get("result", [])):
            if result.get("value") is not None:
                uri, line = _address(task["data"], result), "sequence" in result["value"]
                if line or result["type"] in _ON_IMAGES:
                    found[uri, line] = found.get((uri, line)) or _place(uri, reading, line=line)
    names = distinct_names({address: name for address, name, _ in filter(None, found.values())})
    places = {key: place and (names[place[0]], place[2]) for key, place in found.items()}
    images: dict[tuple[str, int], list[str]] = {}
    for (uri, line), place in places.items():
        if place and not line:
            images.setdefault(place, []).append(uri)
    if alike := [uris for uris in images.values() if len(uris) > 1]:
        reading.warn(
            f"{counted(len(alike), 'frame')} with several images, the first {' and '.join(alike[0][:2])}; "
            "what is drawn on them is taken for one frame's: images of several videos need folders, or "
            "names that say the video"
        )
    return places


def _read_task(
    task: dict[str, Any],
    place: str,
    reading: PictureReading,
    places: dict[tuple[str, bool], tuple[str, int] | None],
) -> None:
    annotations = _finished(task)
    if not annotations:
        reading.leave_out("tasks without a finished annotation", place)
        return
    if len(annotations) > 1:
        reading.leave_out("further annotations of one task; the first was taken", place)
    results = annotations[0].get("result", [])
    labels = {r["id"]: label for r in results if "id" in r and (label := _label(r.get("value", {})))}
    for result in results:
        where = f"{place}, region {result.get('id')}"
        kind, value = result["type"], result.get("value")
        if value is None:
            reading.leave_out(f"regions of the kind {kind}", where)
            continue
        uri = _address(task["data"], result)
        label = _label(value) or labels.get(result.get("id", ""))
        if "sequence" in value and (found := places[uri, True]):
            for frame, box in _sequence(result, reading, where):
                annotation = Annotation(found[0], frame, result["id"], label, box=box, absent=box is None)
                reading.add(annotation, f"{where}, frame {frame + 1}")
        elif kind in _ON_IMAGES:
            if (found := places[uri, False]) is None:
                continue
            track = (result.get("meta") or {}).get("track_id")
            try:
                picture = _picture_size(result, reading)
                box, mask = _region(value, reading.options.size or picture, picture)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else error
                reading.leave_out(f"regions that cannot be read: {what}", where)
                continue
            if box is not None:
                reading.note_size(*picture)
            reading.add(Annotation(*found, track, label, box, mask), where, result.get("score"))
        elif kind != "labels":
            reading.leave_out(f"regions of the kind {kind}", where)


def _label(value: dict[str, Any]) -> str | None:
    return next((str(value[name][0]) for name in _LABELS if value.get(name)), None)


def _address(data: dict[str, Any], result: dict[str, Any]) -> str:
    if (name := result.get("to_name")) in data:
        return str(data[name])
    found = next((data[name] for name in ("video", "image", "img") if name in data), None)
    return str(found if found is not None else next(iter(data.values()), ""))


def _place(uri: str, reading: Reading, *, line: bool) -> tuple[str, str, int] | None:
    """A video's address without what comes before its path, its name, which ends it, and the frame that an image is.

    The name is the last part of `/data/upload/3/1a2b3c4d-one.mp4` or `/data/local-files/?d=clips/one.mp4`, on which a
    time `line` is drawn. An image goes by its name with its folder's before it, but without the digits of an upload.
    """
    parts = urlsplit(uri)
    path = unquote(parts.query[2:] if parts.query.startswith("d=") else parts.path)
    *folders, name = path.strip("/").split("/")
    if line:
        return "/".join([parts.netloc, *folders, name]), name, 0
    if path.startswith("/data/upload/"):
        folders, name = [], re.sub(r"^[0-9a-f]{8}-", "", name)
    found = reading.frame_of("/".join([*folders[-1:], name]))
    return found and ("/".join([parts.netloc, *folders[:-1], found[0]]), *found)


def _picture_size(result: dict[str, Any], reading: Reading) -> tuple[int, int]:
    """Width and height of a region's image."""
    if result.get("image_rotation"):
        raise ValueError("an image that was turned in Label Studio")
    size = result.get("original_width"), result.get("original_height")
    if not all(size) and reading.options.size is None:
        raise ValueError("percent of an image whose size the file does not name (give --size)")
    width, height = size if all(size) else reading.options.size or (0, 0)
    return int(width or 0), int(height or 0)


def _sequence(result: dict[str, Any], reading: Reading, where: str) -> Iterator[tuple[int, Box | None]]:
    """Frame index and box of what was drawn on a time line; no box on the frame from which the target is not there.

    `enabled` says of what was drawn whether the target is seen from there up to what was drawn next.
    """
    width, height = result.get("original_width"), result.get("original_height")
    size = reading.options.size or ((width, height) if width and height else None)
    if size is None:
        reading.leave_out("boxes in percent of a video whose size the file does not name (give --size)", where)
        return
    _warn_of_rate(result["value"], reading)
    drawn: list[tuple[int, Box, bool]] = []
    for key in result["value"]["sequence"]:
        try:
            mark = int(key["frame"]) - 1, _box(key, size), key.get("enabled") is not False
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reading.leave_out(f"boxes that cannot be read: {error}", where)
            continue
        drawn.append(mark)
    drawn.sort(key=lambda mark: mark[0])
    last = result["value"].get("framesCount")
    ends = [*(frame for frame, *_ in drawn[1:]), last if isinstance(last, int) else MOST]
    for (frame, box, seen), end in zip(drawn, ends, strict=False):
        yield frame, box
        if not seen and end > frame + 1:
            yield frame + 1, None


def _warn_of_rate(value: dict[str, Any], reading: Reading) -> None:
    """Say how many frames a second a time line counts, which is what the configuration says, whatever the video has."""
    frames, seconds = value.get("framesCount"), value.get("duration")
    if isinstance(frames, int) and isinstance(seconds, int | float) and seconds > 0:
        rate = f"{frames / seconds:.0f}"
        reading.warn(
            f"a time line counts {rate} frames a second, the frameRate of <Video> in Label Studio's configuration; if "
            f"the video has another rate (rts-batch probe says it), multiply the manifest's frames by that / {rate}"
        )


def _box(value: dict[str, Any], size: tuple[int, int]) -> Box:
    """The upright box around a box in percent, which turns (degrees, clockwise) about its upper left corner."""
    x, y, w, h = (
        float(value[key]) * side / 100 for key, side in zip(("x", "y", "width", "height"), size * 2, strict=True)
    )
    angle = math.radians(float(value.get("rotation") or 0))
    if not angle:
        return x, y, w, h
    cos, sin = math.cos(angle), math.sin(angle)
    across = [x + a * cos - b * sin for a in (0, w) for b in (0, h)]
    down = [y + a * sin + b * cos for a in (0, w) for b in (0, h)]
    return min(across), min(down), max(across) - min(across), max(down) - min(down)


def _region(value: dict[str, Any], size: tuple[int, int], picture: tuple[int, int]) -> tuple[Box | None, Rle | None]:
    """Box or mask in frames of a size, of what was drawn on a picture of perhaps another one."""
    if "rle" in value:
        if picture != size:
            raise ValueError("a brush is not scaled to --size; give a polygon or a box")
        width, height = size
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError("a size that no image has")
        values = brush_values(bytes(value["rle"]), 4 * width * height)
        return None, mask_rle(values.reshape(height, width, 4)[..., 3] > 127)
    if "points" in value:
        flat = [
            coordinate * side / 100 for point in value["points"] for coordinate, side in zip(point, size, strict=True)
        ]
        return None, polygons_rle([flat], *size)
    return _box(value, size), None


def brush_values(code: bytes, length: int) -> NDArray[np.uint8]:
    """Unpack the runs of Label Studio's brush, [length] uint8: RGBA of each pixel, row after row.

    The code is a row of bits: 32 of the number of values, 5 of a value's bits less one, four times 4 of a run length's
    bits less one; then for each run a bit (1 for one value repeated), 2 that choose among the four, and the run's
    length less one, with one value or each of them behind.

    Raises:
        ValueError: the code breaks off, or is of another length.
    """
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    place = 0

    def read(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise ValueError("a brush that breaks off")
        place += count
        return int.from_bytes(np.packbits(bits[place - count : place]).tobytes(), "big") >> (-count % 8)

    if (total := read(32)) != length:
        raise ValueError(f"a brush of {total} values where the image has {length}")
    word = read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(length, np.uint8)
    done = 0
    while done < length:
        repeated = read(1)
        end = min(done + read(lengths[read(2)]) + 1, length)
        if repeated:
            values[done:end] = read(word) & 255
        else:
            values[done:end] = [read(word) & 255 for _ in range(end - done)]
        done = end
    return values
