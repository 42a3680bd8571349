"""COCO instances: boxes, polygons and both kinds of RLE, images as frames of videos; and YouTube-VIS' form of it.

Frames: `frame_index` (from 0) beside `video_id` where images have both, as this pipeline's export writes them;
otherwise the number in `file_name`, of which `first_frame` is the video's first. `track_id` (or `instance_id`) of an
annotation says which annotations are one target; without it boxes are associated by their overlap. In YouTube-VIS an
annotation is a target, with a mask for each of its video's `file_names`; where `JPEGImages/` beside the file holds the
video, a frame is the place of its image there, and the video is that folder.

Sizes: what was drawn on pictures that were resized is scaled to `size`, the frames', where that is given.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rts_batch.errors import ManifestError, VideoError
from rts_batch.manifest.importers.base import Annotation, ImportOptions, Reading, Rle
from rts_batch.manifest.importers.files import read_json
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.picture_sizes import PictureReading
from rts_batch.manifest.importers.shapes import coco_rle, polygons_rle
from rts_batch.manifest.importers.stored_frames import stored_frames
from rts_batch.manifest.importers.video_names import distinct_names
from rts_batch.masks import Box


def from_coco(path: str | Path, options: ImportOptions | None = None, *, crowds: bool = False) -> Imported:
    """Read the annotations of a COCO instances JSON.

    Args:
        path: the file.
        options: see `ImportOptions`.
        crowds: take the annotations that are marked as crowds, too.

    Raises:
        ManifestError: no JSON, or not of COCO's form.
        StorageError: the file cannot be read.
    """
    reading = PictureReading(path, options or ImportOptions())
    data = read_json(path)
    if isinstance(data, list):
        raise ManifestError(
            f"{path} is no COCO file: it is a list, of results perhaps, which say their images' numbers only; give the "
            "file of instances"
        )
    known = isinstance(data, dict) and isinstance(data.get("annotations"), list)
    if not known or not {"images", "videos"} & set(data):
        raise ManifestError(f"{path} is no COCO file: it has no lists images and annotations")
    try:
        if data.get("images") or not any("file_names" in video for video in data.get("videos", [])):
            _read(data, reading, crowds=crowds)
        else:
            _read_videos(data, Path(path).parent, reading)
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} is not of COCO's form: {type(error).__name__} {error}") from error
    return reading.imported()


def _read(data: dict[str, Any], reading: PictureReading, *, crowds: bool) -> None:
    categories = {category["id"]: category["name"] for category in data.get("categories", [])}
    videos = {video["id"]: video.get("name") or video.get("file_name") for video in data.get("videos", [])}
    images = {image["id"]: image for image in data.get("images", [])}
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
        known = {**(annotation.get("attributes") or {}), **annotation}  # datumaro and CVAT keep theirs apart
        track = known.get("track_id", known.get("instance_id"))
        if annotation.get("iscrowd") and not crowds and track is None:
            reading.leave_out("crowds (--crowds takes them: CVAT and datumaro mark every mask as one)", place)
            continue
        try:
            mask, box = _marks(annotation.get("segmentation"), annotation.get("bbox"), image, reading)
            score = None if annotation.get("score") is None else float(annotation["score"])
        except (ValueError, TypeError, OverflowError) as error:
            reading.leave_out(f"annotations that cannot be read: {error}", place)
            continue
        category = categories.get(annotation.get("category_id"))
        reading.add(Annotation(*found, track, category, box, mask), place, score)


def _read_videos(data: dict[str, Any], folder: Path, reading: PictureReading) -> None:
    """Read YouTube-VIS' form."""
    categories = {category["id"]: category["name"] for category in data.get("categories", [])}
    videos = {video["id"]: video for video in data["videos"]}
    folders = [Path(str(name)).parent for video in videos.values() for name in video.get("file_names", [])[:1]]
    called = distinct_names({place.as_posix(): place.name for place in folders})
    frames = {key: _frames_of(video, folder / "JPEGImages", called, reading) for key, video in videos.items()}
    for annotation in data["annotations"]:
        video = videos[annotation["video_id"]]
        boxes = annotation.get("bboxes") or [None] * len(frames[video["id"]])
        masks = annotation.get("segmentations") or [None] * len(boxes)
        for number, (drawn, around, found) in enumerate(zip(masks, boxes, frames[video["id"]], strict=False)):
            place = f"annotation {annotation.get('id')}, frame {number}"
            if found is None or not (drawn or around):
                continue
            try:
                mask, box = _marks(drawn, around, video, reading)
            except (ValueError, TypeError, OverflowError) as error:
                reading.leave_out(f"annotations that cannot be read: {error}", place)
                continue
            category = categories.get(annotation.get("category_id"))
            track = annotation.get("track_id", annotation["id"])
            reading.add(Annotation(*found, track, category, box, mask), place)


def _frames_of(
    video: dict[str, Any], images: Path, called: dict[str, str], reading: Reading
) -> list[tuple[str, int] | None]:
    """Video and frame of each of its file names, or of what this pipeline's export adds to them.

    Args:
        video: of the file.
        images: the folder below which images may lie.
        called: a video's name by its folder there.
        reading: is told of what is left out.
    """
    if "frame_indices" in video:
        return [(str(video["name"]), int(index)) for index in video["frame_indices"]]
    names = [str(name) for name in video["file_names"]]
    folder = Path(names[0]).parent if names else Path()
    video_name = called.get(folder.as_posix(), "")
    try:
        order = stored_frames(images / folder, video_name, reading) if video_name else None
    except VideoError as error:
        reading.leave_out(f"videos that cannot be read: {error}", f"video {video['id']}")
        return [None] * len(names)
    if order is None:
        return [reading.frame_of(name) for name in names]
    for name in names:
        if Path(name).stem not in order:
            reading.leave_out("frames without an image of their name", name)
    return [(video_name, order[stem]) if (stem := Path(name).stem) in order else None for name in names]


def _place(image: dict[str, Any], videos: dict[Any, str], reading: Reading) -> tuple[str, int] | None:
    video = videos.get(image.get("video_id"))
    index = image.get("frame_index")
    if video is not None and (isinstance(index, int) or (isinstance(index, float) and index.is_integer())):
        return video, int(index)
    if (found := reading.frame_of(image["file_name"])) is None:
        return None
    return video or found[0], found[1]


def _marks(
    segmentation: Any, box: Any, picture: dict[str, Any], reading: PictureReading
) -> tuple[Rle | None, Box | None]:
    """Mask and box in pixels of the frames; raises ValueError, TypeError or OverflowError where one cannot be read."""
    size = picture.get("width"), picture.get("height")
    factors = reading.factors(*size)
    marks = _mask(segmentation, picture, factors), _box(box, factors)
    if marks[0] is None and marks[1] is not None:
        reading.note_size(*size)
    return marks


def _box(value: Any, factors: tuple[float, float]) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, w, h = (float(number) * factor for number, factor in zip(value, factors * 2, strict=True))
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError("a box of numbers that are not finite")
    return x, y, w, h


def _mask(value: Any, picture: dict[str, Any], factors: tuple[float, float]) -> Rle | None:
    if not value:
        return None
    if isinstance(value, dict):
        if factors != (1, 1):
            raise ValueError("an RLE is not scaled to --size; give its pixels as polygons or a box")
        return coco_rle(value)
    if not {"width", "height"} <= set(picture):
        raise ValueError("polygons need the image's width and height")
    value = _scaled(_without_slivers(value), factors)
    return polygons_rle(value, round(picture["width"] * factors[0]), round(picture["height"] * factors[1]))


def _without_slivers(rings: list[Any]) -> list[Any]:
    """Polygons without those of one or two points that tools leave beside others, which cover nothing."""
    if not any(isinstance(ring, list) and len(ring) >= 6 for ring in rings):
        return rings
    return [ring for ring in rings if not isinstance(ring, list) or len(ring) not in (0, 2, 4)]


def _scaled(points: list[Any], factors: tuple[float, float]) -> list[Any]:
    """x, y, x, y …, in lists of whatever depth, by the factors of x and y."""
    if factors == (1, 1):
        return points
    return [
        _scaled(value, factors) if isinstance(value, list) else float(value) * factors[place % 2]
        for place, value in enumerate(points)
    ]
