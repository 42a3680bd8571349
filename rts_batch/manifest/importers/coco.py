"""COCO instances: boxes, polygons and both kinds of RLE, images as frames of videos.

Frames: `frame_index` (from 0) beside `video_id` where images have both, as this pipeline's export writes them;
otherwise the number in `file_name`, of which `first_frame` is the video's first. `track_id` (or `instance_id`) of an
annotation says which annotations are one target; without it boxes are associated by their overlap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, Rle, read_json
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.shapes import coco_rle, polygons_rle
from rts_batch.masks import Box

__all__ = ["from_coco"]


def from_coco(path: str | Path, options: ImportOptions | None = None) -> Imported:
    """Read the annotations of a COCO instances JSON.

    Raises:
        ManifestError: no JSON, or not of COCO's form.
        StorageError: the file cannot be read.
    """
    reading = Reading(path, options or ImportOptions())
    data = read_json(path)
    if not isinstance(data, dict) or not {"images", "annotations"} <= set(data):
        raise ManifestError(f"{path} is no COCO file: it has no lists images and annotations")
    try:
        _read(data, reading)
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} is not of COCO's form: {type(error).__name__} {error}") from error
    return reading.imported()


def _read(data: dict[str, Any], reading: Reading) -> None:
    categories = {category["id"]: category["name"] for category in data.get("categories", [])}
    videos = {video["id"]: video.get("name") or video.get("file_name") for video in data.get("videos", [])}
    images = {image["id"]: image for image in data["images"]}
    places: dict[Any, tuple[str, int] | None] = {}
    for annotation in data["annotations"]:
        image_id = annotation["image_id"]
        place = f"annotation {annotation.get('id')}"
        if image_id not in images:
            reading.leave_out("annotations of images that are not listed", place)
            continue
        image = images[image_id]
        if image_id not in places:
            places[image_id] = _place(image, videos, reading)
        if (found := places[image_id]) is None:
            continue
        if annotation.get("iscrowd"):
            reading.leave_out("crowds", place)
            continue
        try:
            mask = _mask(annotation.get("segmentation"), image)
        except ValueError as error:
            reading.leave_out(f"masks that cannot be read: {error}", place)
            continue
        known = {**(annotation.get("attributes") or {}), **annotation}  # datumaro and CVAT keep theirs apart
        track = known.get("track_id", known.get("instance_id"))
        category = categories.get(annotation.get("category_id"))
        box = _box(annotation.get("bbox"))
        reading.add(Annotation(*found, track, category, box, mask), place, annotation.get("score"))


def _place(image: dict[str, Any], videos: dict[Any, str], reading: Reading) -> tuple[str, int] | None:
    video = videos.get(image.get("video_id"))
    index = image.get("frame_index")
    if video is not None and isinstance(index, int):
        return video, index
    if (found := reading.frame_of(image["file_name"])) is None:
        return None
    return video or found[0], found[1]


def _box(value: Any) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, w, h = map(float, value)
    return x, y, w, h


def _mask(value: Any, image: dict[str, Any]) -> Rle | None:
    if not value:
        return None
    if isinstance(value, dict):
        return coco_rle(value)
    if not {"width", "height"} <= set(image):
        raise ValueError("polygons need the image's width and height")
    return polygons_rle(value, image["width"], image["height"])
