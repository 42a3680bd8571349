"""CVAT for video 1.1 and CVAT for images 1.1: boxes, polygons, masks and tracks of an XML file.

Frames: in video files `frame` counts the whole video from 0, whatever part the task is of; in image files the number
in an image's name counts (of which `first_frame` is the video's first), and its `id` where the name has none. Of a
track only key frames are taken; what CVAT interpolates between them nobody drew. Where a target is `outside` it is
absent.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, Rle
from rts_batch.manifest.importers.files import read_xml
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.picture_sizes import PictureReading
from rts_batch.manifest.importers.shapes import mask_rle, polygons_rle
from rts_batch.masks import MAX_PIXELS, Box

_SHAPES = ("box", "polygon", "mask")


def from_cvat(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read an XML file of CVAT, or every `*.xml` of a folder.

    Raises:
        ManifestError: no XML, one with entities, or none of CVAT.
        StorageError: a file cannot be read.
    """
    reading = PictureReading(path, options or ImportOptions())
    paths = sorted(Path(path).glob("*.xml")) if Path(path).is_dir() else [Path(path)]
    if not paths:
        raise ManifestError(f"{path} has no .xml files")
    tracks = _Tracks(reading)
    for file in paths:
        root = read_xml(file)
        if root.tag != "annotations":
            raise ManifestError(f"{file} is no file of CVAT: its root is <{root.tag}>, not <annotations>")
        try:
            _read(root, file, tracks, reading)
        except (KeyError, ValueError) as error:
            raise ManifestError(f"{file} is not of CVAT's form: {type(error).__name__} {error}") from error
    return reading.imported()


@dataclass(frozen=True)
class _Task:
    """What a file says of one of its tasks."""

    id: str | None
    """None of the only one."""
    name: str | None
    video: str
    size: tuple[int, int]
    """Width and height in pixels; zeros where they are not said."""


def _tasks(root: Element, file: Path, reading: Reading) -> dict[str | None, _Task]:
    """The tasks of a project by their numbers; by None that of a file of one, or the project's first."""
    source, name = root.findtext(".//meta//source"), root.findtext(".//meta//task/name")
    video = file.stem if file.stem in reading.names else source or name or file.stem
    found: dict[str | None, _Task] = {None: _Task(None, name, video, _size(root, reading))}
    listed = root.findall(".//meta/project/tasks/task")
    sources = Counter(task.findtext("source") for task in listed)
    names = Counter(task.findtext("name") for task in listed)
    for task in listed:
        number, source, name = task.findtext("id"), task.findtext("source"), task.findtext("name")
        own = source if sources[source] == 1 else name if names[name] == 1 else f"{name}, task {number}"
        found[number] = _Task(number, name, own or name or video, _size(task, reading))
    return found


def _size(element: Element, reading: Reading) -> tuple[int, int]:
    size = tuple(int(element.findtext(f".//original_size/{side}") or 0) for side in ("width", "height"))
    return (size[0], size[1]) if all(size) else reading.options.size or (0, 0)


class _Tracks:
    """The names of tracks over all files, each of which counts its own from 0."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._firsts: dict[tuple[str, str | None], tuple[str, str | None]] = {}
        self._tasks: dict[str, str] = {}

    def name(self, track: Element, task: _Task, file: Path) -> str:
        """Return what a track is called; with its file, where another one has a track of this number and video."""
        number, whose = track.get("id"), (file.name, task.id)
        if self._firsts.setdefault((task.video, number), whose) == whose:
            return f"track {number}"
        return f"track {number} of {file.name}" + (f", task {task.id}" if task.id else "")

    def meet(self, task: _Task) -> None:
        """Warn of several tasks whose video has one name."""
        if task.name and (first := self._tasks.setdefault(task.video, task.name)) != task.name:
            self._reading.warn(
                f"the tasks {first!r} and {task.name!r} are both of {task.video}, and are taken for one video; if they "
                "are of several, import each file by itself, with its own --video"
            )


def _read(root: Element, file: Path, tracks: _Tracks, reading: PictureReading) -> None:
    tasks = _tasks(root, file, reading)
    for track in root.iterfind("track"):
        task = tasks.get(track.get("task_id"), tasks[None])
        tracks.meet(task)
        for shape in track:
            _read_shape(shape, track, tracks.name(track, task, file), task, reading)
    for image in root.iterfind("image"):
        task = tasks.get(image.get("task_id"), tasks[None])
        found = _frame_of(image, task.video, reading)
        if found is not None and found[0] == task.video:
            tracks.meet(task)
        size = int(image.attrib["width"]), int(image.attrib["height"])
        for number, shape in enumerate(image):
            if found is not None:
                place = f"image {image.get('name')}, shape {number}"
                _add(shape, (*found, _object_id(shape), shape.get("label")), size, place, reading)
                if shape.tag == "box" and not _is_of_video(image):
                    reading.note_size(*size)


def _frame_of(image: Element, video: str, reading: Reading) -> tuple[str, int] | None:
    name = image.attrib["name"]
    if _is_of_video(image):
        return video, int(re.findall(r"\d+", name)[0])
    if not re.search(r"\d", name):
        return video, int(image.attrib["id"])
    return reading.frame_of(name, unnamed=video)


def _is_of_video(image: Element) -> bool:
    """Whether an image is the frame of a task's video, which CVAT calls frame_000000 whatever the video's name."""
    return re.fullmatch(r"frame_\d+(\.\w+)?", image.attrib["name"]) is not None


def _read_shape(shape: Element, track: Element, called: str, task: _Task, reading: PictureReading) -> None:
    if not re.fullmatch(r"\d{1,9}", shape.get("frame", "")):
        reading.leave_out("shapes without a frame", f"track {track.get('id')}, frame {shape.get('frame')}")
        return
    frame = int(shape.attrib["frame"])
    place = f"track {track.get('id')}, frame {frame}"
    object_id = _object_id(shape)
    target = (task.video, frame, called if object_id is None else object_id, track.get("label"))
    if shape.get("outside") == "1":
        reading.add(Annotation(*target, absent=True), place)
    elif shape.get("keyframe", "1") == "0":
        reading.leave_out("frames between key frames, which CVAT interpolates", place)
    else:
        _add(shape, target, task.size, place, reading)


def _object_id(shape: Element) -> int | str | None:
    """The attribute `object_id` or `track_id`, where the labels have one."""
    for attribute in shape.iterfind("attribute"):
        text = (attribute.text or "").strip()
        if attribute.get("name") in ("object_id", "track_id") and text:
            return int(text) if re.fullmatch(r"[1-9]\d{0,8}", text) else text
    return None


def _add(
    shape: Element,
    target: tuple[str, int, Any, str | None],
    size: tuple[int, int],
    place: str,
    reading: PictureReading,
) -> None:
    if shape.tag not in _SHAPES:
        reading.leave_out(f"shapes of the kind <{shape.tag}>", place)
        return
    box: Box | None = None
    mask: Rle | None = None
    if shape.tag != "box" and not all(size):
        reading.leave_out("masks and polygons in a file that names no original_size (give --size)", place)
        return
    factors = reading.factors(*size)
    try:
        if shape.tag == "box":
            box = _box(shape, factors)
        else:
            mask = _polygon(shape, size, factors) if shape.tag == "polygon" else _mask(shape, size, factors)
    except KeyError as error:
        reading.leave_out(f"shapes without the attribute {error}", place)
        return
    except (ValueError, OverflowError) as error:
        reading.leave_out(f"shapes that cannot be read: {error}", place)
        return
    reading.add(Annotation(*target, box=box, mask=mask), place)


def _box(shape: Element, factors: tuple[float, float]) -> Box:
    """The upright box around a box that may be rotated (degrees, clockwise, about its middle), scaled by `factors`."""
    x1, y1, x2, y2 = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(float(shape.get("rotation", 0)))
    w, h = x2 - x1, y2 - y1
    if angle:
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        w, h = w * cos + h * sin, w * sin + h * cos
    x, y = factors
    return (x1 + x2 - w) / 2 * x, (y1 + y2 - h) / 2 * y, w * x, h * y


def _polygon(shape: Element, size: tuple[int, int], factors: tuple[float, float]) -> Rle | None:
    values = [value for pair in shape.attrib["points"].split(";") for value in pair.split(",")]
    points = [float(value) * factors[place % 2] for place, value in enumerate(values)]
    return polygons_rle([points], round(size[0] * factors[0]), round(size[1] * factors[1]))


def _mask(shape: Element, size: tuple[int, int], factors: tuple[float, float]) -> Rle | None:
    """CVAT's runs go along the rows of the mask's own box, those of zeros first."""
    if factors != (1, 1):
        raise ValueError("a mask is not scaled to --size; give a polygon or a box")
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    left, top, width, height = (int(float(shape.attrib[name])) for name in ("left", "top", "width", "height"))
    if not 0 < size[0] * size[1] <= MAX_PIXELS or min(runs) < 0 or sum(runs) != width * height:
        raise ValueError("runs that do not add up to the mask's box")
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError("a mask outside the frame")
    mask = np.zeros(size[::-1], bool)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return mask_rle(mask)
