"""A folder of mask images: DAVIS, YouTube-VOS, MOTS, and one folder for each target.

Layouts: `<video>/<frame>.png` whose values are object ids (palette or grey; MOTS with 16 bits: class · 1000 + id),
below any of `Annotations/`, `Annotations/<resolution>/`, `instances/` or the folder itself; and
`<video>/<object>/<frame>.png` with one target in white. 255 is void in images of ids of 8 bits, 10000 in MOTS.

Frames: where `JPEGImages/` lies beside `Annotations/` and holds the video, a mask's frame is the place of the image of
the same name there (YouTube-VOS numbers every fifth frame), and the video is that folder. Otherwise the number in the
name, of which `first_frame` is the video's first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import ManifestError
from rts_batch.io.video.picture_names import natural_key
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, read_json, read_text
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.shapes import mask_rle

__all__ = ["from_masks"]

_VOID, _MOTS_VOID = 255, 10_000


def from_masks(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read a folder of mask images.

    Raises:
        ManifestError: there are no PNGs, or one that cannot be read.
        StorageError: `meta.json` or `classes.txt` cannot be read.
    """
    root = Path(path)
    reading = Reading(root, options or ImportOptions())
    folder = next((root / name for name in ("Annotations", "instances") if (root / name).is_dir()), root)
    folders = sorted({file.parent for file in folder.rglob("*.png")} - {folder}, key=str)
    if not folders:
        raise ManifestError(f"{path} has no folders of PNG masks; a video's masks lie in a folder of its name")
    meta = _categories(root)
    classes = _classes(root / "classes.txt")
    flat = {place for place in folders if any(place.glob("*.png"))}
    for place in folders:
        apart = _one_target_each(place, folder, flat)
        video = place.parent if apart else place
        name = video.relative_to(folder).parts[-1] if video != folder else folder.name
        order = _order(video, folder, root, name, reading)
        for file in sorted(place.glob("*.png")):
            frame = _frame(file, order, reading)
            if frame is not None:
                for object_id, mask, kind in _targets(file, int(place.name) if apart else None):
                    category = classes.get(kind) if kind else meta.get((name, object_id))
                    annotation = Annotation(name, frame, object_id, category, mask=mask_rle(mask))
                    reading.add(annotation, f"{file.relative_to(root)}, value {object_id}")
    return reading.imported()


def _one_target_each(place: Path, folder: Path, flat: set[Path]) -> bool:
    """Whether a folder is one of the targets of the video that is its parent, with its object id as its name."""
    return place.name.isdigit() and place.parent != folder and place.parent not in flat and _is_binary(place)


def _is_binary(place: Path) -> bool:
    values: set[int] = set()
    for file in sorted(place.glob("*.png"))[:8]:
        values |= set(np.unique(_labels(file)).tolist())
    return len(values - {0}) <= 1


def _order(video: Path, folder: Path, root: Path, name: str, reading: Reading) -> dict[str, int] | None:
    """The place of each image's name in the video's folder of images, if there is one."""
    images = root / "JPEGImages" / video.relative_to(folder) if folder != root else None
    if images is None or not images.is_dir():
        return None
    names = sorted(
        (file.stem for file in images.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png")), key=natural_key
    )
    if not names:
        return None
    reading.videos[name] = str(images.resolve())
    return {stem: place for place, stem in enumerate(names)}


def _frame(file: Path, order: dict[str, int] | None, reading: Reading) -> int | None:
    if order is not None:
        if file.stem not in order:
            reading.leave_out("masks without an image of their name", str(file.name))
        return order.get(file.stem)
    found = reading.frame_of(file.name)
    return found[1] if found else None


def _labels(file: Path) -> NDArray[Any]:
    try:
        with Image.open(file) as image:
            numbered = image.mode in ("P", "L", "1", "I;16", "I")
            return np.asarray(image if numbered else image.convert("L")).astype(np.int64)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{file} is no image that can be read: {error}") from error


def _targets(file: Path, object_id: int | None) -> list[tuple[int, NDArray[np.bool_], int]]:
    """Object id, mask and MOTS class (0 where there is none) of each target in an image."""
    labels = _labels(file)
    if object_id is not None:
        return [(object_id, labels > 0, 0)] if labels.any() else []
    values = [value for value in np.unique(labels).tolist() if value]
    if values and max(values) >= 1000:
        values = [value for value in values if value != _MOTS_VOID and value % 1000]
        return [(value % 1000, labels == value, value // 1000) for value in values]
    if values == [_VOID]:  # white on black
        return [(1, labels == _VOID, 0)]
    return [(value, labels == value, 0) for value in values if value != _VOID]


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


def _classes(path: Path) -> dict[int, str]:
    """The lines `number name` of an export of MOTS."""
    if not path.is_file():
        return {}
    lines = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    return {int(number): name for number, name in lines if number.isdigit()}
