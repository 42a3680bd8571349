"""A folder of mask images: DAVIS, YouTube-VOS, MOTS, and one folder for each target.

Layouts: `<video>/<frame>.png` whose values are object ids (palette or grey; MOTS with 16 bits: class · 1000 + id),
below any of `Annotations/`, `Annotations/<resolution>/`, `instances/` or the folder itself; and
`<video>/<object>/<frame>.png` with one target in white. 255 is void in images of ids of 8 bits, 10000 in MOTS. What is
no image of ids is read as a manifest's mask of one target is (`mask_rules`), or left out.

Frames: where `JPEGImages/` lies beside `Annotations/` and holds the video, a mask's frame is the place of the image of
the same name there (YouTube-VOS numbers every fifth frame), and the video is that folder. Otherwise the number in the
name, of which `first_frame` is the video's first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import ManifestError, PromptError, VideoError
from rts_batch.io.video.picture_names import natural_key
from rts_batch.manifest.importers.base import FRAME_NAME, Annotation, ImportOptions, Reading, Rle
from rts_batch.manifest.importers.files import read_json, read_text
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.shapes import mask_rle
from rts_batch.manifest.importers.stored_frames import stored_frames
from rts_batch.manifest.mask_images import MaskImage, open_mask_image
from rts_batch.manifest.mask_looks import numbers_regions, present_values
from rts_batch.manifest.mask_rules import MOST_IDS, ImageUse, read_mask_image
from rts_batch.masks import VOID

_MOTS_VOID, _MOTS_LEAST, _MOTS_MOST = 10_000, 1000, 64_999

_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")

_TOPS: Final = ("Annotations", "instances")
"""The folders of all masks of a data set."""

_RESOLUTION: Final = re.compile(r"Full-Resolution|\d+p")
"""The folder of a resolution in DAVIS, right inside which are videos."""

ONE: Final = -1
"""In the place of a value: the image shows one target and numbers none."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What an image shows of one value."""

    file: Path
    video: str
    """What the file's name says of it, where it alone says which frame it is."""
    frame: int
    value: int
    mask: Rle | None


def from_masks(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read a folder of mask images.

    Raises:
        ManifestError: there are no images.
        StorageError: `meta.json` or `classes.txt` cannot be read.
    """
    root, top, folder = _places(Path(path))
    reading = Reading(root, options or ImportOptions())
    files = (file for file in folder.rglob("*") if "JPEGImages" not in file.relative_to(folder).parts)
    folders = sorted({file.parent for file in files if _is_mask(file)} - {folder}, key=str)
    if not folders and any(map(_is_mask, folder.iterdir() if folder.is_dir() else ())):
        folders = [folder]
    if not folders:
        raise ManifestError(f"{path} has no folders of mask images; a video's masks lie in a folder of its name")
    meta = _categories(root)
    classes = _classes(root / "classes.txt")
    apart = _one_target_each(folders, top, folder, reading)
    names = _names([place.parent if place in apart else place for place in folders], folder)
    for place in folders:
        video = place.parent if place in apart else place
        name = names[video]
        try:
            order = None if top == root else stored_frames(_pictures(video, top), name, reading)
        except VideoError as error:
            reading.leave_out(f"masks of a video that cannot be read: {error}", str(place.relative_to(root)))
            continue
        named = classes or _listed_classes(place / "labels.txt")
        target = int(place.name) if place in apart else None
        drawn = list(_drawn(place, order, reading, target))
        together = len({found.video for found in drawn}) > 1  # one_000120.png and two_000120.png
        for found, object_id, kind in _numbered(drawn, target, reading):
            category = named.get(kind, str(kind)) if kind else meta.get((name, object_id))
            whose = found.video if together else name
            annotation = Annotation(whose, found.frame, object_id, category, mask=found.mask)
            reading.add(annotation, f"{found.file.relative_to(root)}, value {object_id}")
    return reading.imported()


def _places(source: Path) -> tuple[Path, Path, Path]:
    """The data set's folder, that of all its masks, and the part of these that is meant, as the source may be any."""
    for name in _TOPS:
        if (source / name).is_dir():
            return source, source / name, source / name
    part = source.absolute()
    tops = (place for place in (part, *part.parents[:2]) if place.name in _TOPS)
    return next(((top.parent, top, part) for top in tops), (source, source, source))


def _pictures(video: Path, top: Path) -> Path:
    """Where the pictures of a video lie whose masks are below `top`."""
    return (top.parent if top.name in _TOPS else top) / "JPEGImages" / video.relative_to(top)


def _is_mask(file: Path) -> bool:
    return file.suffix.lower() in _ENDINGS and not file.name.startswith(".") and file.is_file()


def _masks(place: Path) -> list[Path]:
    return sorted((file for file in place.iterdir() if _is_mask(file)), key=lambda file: natural_key(file.stem))


def _names(videos: Sequence[Path], folder: Path) -> dict[Path, str]:
    """What each folder's video is called: its last part, or all of them where several end alike."""
    ends: dict[str, set[Path]] = {}
    for video in videos:
        ends.setdefault(video.name, set()).add(video)
    return {
        video: video.name if video == folder or len(ends[video.name]) == 1 else video.relative_to(folder).as_posix()
        for video in videos
    }


def _one_target_each(folders: Sequence[Path], top: Path, folder: Path, reading: Reading) -> set[Path]:
    """The folders that are each one target of the video that is their parent, with its object id as their name."""
    beside: dict[Path, list[Path]] = {}
    is_video = folder != top and _pictures(folder, top).is_dir()
    known = {*folders} if is_video else {folder, *folders}
    for place in folders:
        if place.name.isdecimal() and place.parent not in known:
            beside.setdefault(place.parent, []).append(place)
    apart: set[Path] = set()
    for parent, places in beside.items():
        values = {place: _values(place) for place in places}
        if (
            _RESOLUTION.fullmatch(parent.name)
            or any(place.name in reading.names or _pictures(place, top).is_dir() for place in places)
            or any(
                len(numbers) > 1 or (ids and numbers - {int(place.name)}) for place, (numbers, ids) in values.items()
            )
        ):
            continue  # they are videos whose names are numbers
        apart.update(places)
        white = all(numbers <= {VOID} for numbers, _ in values.values())
        own = len(places) > 1 and all(numbers <= {int(place.name)} for place, (numbers, _) in values.items())
        if not (white or own or _pictures(parent, top).is_dir()):
            reading.warn(
                f"{parent}: each of its folders ({places[0].name} …) is taken for one target of a video, as its name "
                "is a number; if each is a video, give this folder as the source"
            )
    return apart


def _values(place: Path) -> tuple[set[int], bool]:
    """What a folder's first images number beside 0, and whether they do so by a palette, as images of ids do."""
    values: set[int] = set()
    coloured = False
    for file in _masks(place)[:8]:
        try:
            image = open_mask_image(file.read_bytes())
        except (OSError, PromptError):
            continue
        numbers = _numbers(image)
        values |= set() if numbers is None else set(present_values(numbers))
        if numbers is not None and image.indices is not None and image.colours is not None:
            coloured = coloured or not bool((image.colours == image.colours[:, :, :1]).all())
    return values - {0}, coloured


def _frame(file: Path, order: dict[str, int] | None, reading: Reading) -> tuple[str, int] | None:
    if order is None:
        if re.fullmatch(r"\d+[_.-]\d+", file.stem) and reading.options.pattern == FRAME_NAME:
            reading.leave_out(
                "names of two numbers; say by --pattern which is the frame's, and what the other is", file.name
            )
            return None
        return reading.frame_of(file.name)
    if file.stem not in order:
        reading.leave_out("masks without an image of their name", str(file.name))
        return None
    return "", order[file.stem]


def _drawn(place: Path, order: dict[str, int] | None, reading: Reading, target: int | None) -> Iterator[_Drawn]:
    """Yield what the images of a folder show, of `target` or of each value."""
    told = False
    for file in _masks(place):
        frame = _frame(file, order, reading)
        if frame is None:
            continue
        try:
            image = open_mask_image(file.read_bytes())
            numbers = None if target is not None else _numbers(image)
            if numbers is not None:
                for value in present_values(numbers):
                    if value:
                        yield _Drawn(file, *frame, value, mask_rle(numbers == value))
                continue
            if image.greys is not None and not image.greys.any():
                continue  # the target is not seen
            found = read_mask_image(image, ImageUse(object_id=target or 1, apart=target is not None))
        except (OSError, PromptError) as error:
            what = str(error).partition(". Its ")[0]  # of each image other values
            reading.leave_out(f"images that cannot be read: {what}", f"{place.name}/{file.name}")
            continue
        if not (found.usual or told):
            told = True
            reading.warn(f"{place.name}/{file.name}, and others of the folder perhaps: read as {found.rule}")
        yield _Drawn(file, *frame, ONE, mask_rle(found.mask))


def _numbers(image: MaskImage) -> NDArray[np.int32] | None:
    """The values of an image that numbers its targets; None where it is none, such as one with soft edges."""
    if image.indices is not None and image.colours is not None:
        values, shades = image.indices, image.colours.max(axis=2).astype(np.int32)
        black = (image.colours == 0).all(axis=2)
        if black.any() and (values == 0).any() and not black[values == 0].any():
            return None  # its palette is in the order in which the colours were found
        if not (image.colours == image.colours[:, :, :1]).all():
            return values if len(present_values(values)) <= 256 else None
        return values if numbers_regions(shades) else None
    if image.greys is None or not image.exact or image.opacity is not None:
        return None
    present = present_values(image.greys)
    if len(present) > 1 and present[-1] > _MOTS_MOST:
        return None  # white in 16 bits
    mots = len(present) <= MOST_IDS and all(value >= _MOTS_LEAST for value in present if value)  # edges are lower, too
    photograph = len(present) > MOST_IDS and int(np.bincount(image.greys.ravel()).argmax()) != 0
    return image.greys if mots or (numbers_regions(image.greys) and not photograph) else None


def _numbered(drawn: Sequence[_Drawn], target: int | None, reading: Reading) -> Iterator[tuple[_Drawn, int, int]]:
    """Yield what a video's images show with the target's number and its MOTS class, 0 where there is none."""
    if target is not None:
        yield from ((found, target, 0) for found in drawn)
        return
    values = {found.value for found in drawn}
    if max(values, default=0) >= _MOTS_LEAST:
        yield from _of_mots(drawn, reading)
        return
    void = bool(values - {VOID, ONE})
    for found in drawn:
        if found.value == VOID and void:
            continue
        yield found, 1 if found.value in (VOID, ONE) else found.value, 0


def _of_mots(drawn: Sequence[_Drawn], reading: Reading) -> Iterator[tuple[_Drawn, int, int]]:
    """The numbers in a class of MOTS are those of the targets, where no two classes have the same."""
    targets = [found for found in drawn if found.value >= _MOTS_LEAST and found.value != _MOTS_VOID]
    values = {found.value for found in targets}
    alone = len({value % 1000 for value in values}) == len(values) and all(value % 1000 for value in values)
    for found in drawn:
        if found.value < _MOTS_LEAST:
            place = f"{found.file.parent.name}/{found.file.name}, value {found.value}"
            reading.leave_out("values below 1000 in images of class · 1000 + id", place)
    for found in targets:
        yield found, found.value % 1000 if alone else found.value, found.value // 1000


def _categories(root: Path) -> dict[tuple[str, int], str]:
    """The categories in YouTube-VOS' meta.json."""
    if not (root / "meta.json").is_file():
        return {}
    try:
        return {
            (video, int(object_id)): target["category"]
            for video, found in read_json(root / "meta.json")["videos"].items()
            for object_id, target in found["objects"].items()
            if "category" in target
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ManifestError(f"{root / 'meta.json'} is not of YouTube-VOS' form: {error}") from error


def _listed_classes(path: Path) -> dict[int, str]:
    """The names beside MOTS' images, one a line, as datumaro and CVAT write them."""
    if not path.is_file():
        return {}
    return {number: name.strip() for number, name in enumerate(read_text(path).splitlines(), start=1) if name.strip()}


def _classes(path: Path) -> dict[int, str]:
    """The lines `number name` of an export of MOTS, or one name a line."""
    if not path.is_file():
        return {}
    lines = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    numbered = {int(line[0]): line[1] for line in lines if len(line) == 2 and line[0].isdecimal()}
    return numbered or _listed_classes(path)
