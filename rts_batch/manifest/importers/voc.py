"""Pascal VOC's XML, a file for each picture, as labelImg and ImageNet VID have it: boxes.

Frames: where numbers alone name the files of a folder, the pictures beside them, or in `JPEGImages/` beside
`Annotations/`, are the video, and a frame is the place of its picture there, unless `video` says where the video is.
Otherwise the number in the file's name counts, of which `first_frame` is the video's first. `trackid` of an object
(ImageNet VID) or its attribute `track_id` (CVAT) says which boxes are one target; else they go by overlap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions
from rts_batch.manifest.importers.files import read_xml
from rts_batch.manifest.importers.files_of_pictures import FilesOfPictures
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.picture_sizes import PictureReading
from rts_batch.masks import Box

_TRACK: Final = ("track_id", "object_id")


def from_voc(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read an XML file of Pascal VOC, or all below a folder.

    Raises:
        ManifestError: no XML, one with entities, or none of Pascal VOC.
        StorageError: a file cannot be read.
    """
    source = Path(path)
    reading = PictureReading(source, options or ImportOptions())
    files = sorted(source.rglob("*.xml")) if source.is_dir() else [source]
    found = {file: root for file in files if (root := read_xml(file)).tag == "annotation"}
    if not found:
        raise ManifestError(f"{path} has no XML of Pascal VOC, whose root is <annotation>")
    for file in sorted(set(files) - set(found)):
        reading.leave_out("XML files that are none of Pascal VOC", file.name)
    frames = FilesOfPictures(list(found), source if source.is_dir() else source.parent, reading)
    for file, root in found.items():
        targets = root.findall("object")
        if targets and (place := frames.of(file)) is not None:
            size = root.findtext("size/width"), root.findtext("size/height")
            for number, target in enumerate(targets):
                _read(target, place, f"{file.name}, object {number}", _sides(size), reading)
    return reading.imported()


def _sides(size: tuple[str | None, str | None]) -> tuple[float | None, float | None]:
    """Width and height as numbers; None where one is none."""
    try:
        width, height = (float(side or 0) for side in size)
    except ValueError:
        return None, None
    return width, height


def _read(
    target: Element,
    found: tuple[str, int],
    place: str,
    size: tuple[float | None, float | None],
    reading: PictureReading,
) -> None:
    track = target.findtext("trackid")
    for attribute in target.iterfind("attributes/attribute"):
        if attribute.findtext("name") in _TRACK:
            track = attribute.findtext("value")
    try:
        box = _box(target, reading.factors(*size))
    except ValueError as error:
        reading.leave_out(f"objects that cannot be read: {error}", place)
        return
    reading.note_size(*size)
    reading.add(Annotation(*found, (track or "").strip() or None, target.findtext("name"), box=box), place)


def _box(target: Element, factors: tuple[float, float]) -> Box:
    """The box in pixels of the frames, its corners as they stand: tools differ in whether they count from 1."""
    corners = [target.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    if None in corners:
        raise ValueError("no bndbox with xmin, ymin, xmax and ymax")
    left, top, right, bottom = (float(corner or "") * factors[place % 2] for place, corner in enumerate(corners))
    return left, top, right - left, bottom - top
