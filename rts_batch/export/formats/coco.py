"""COCO: images and annotations in one JSON, for detectors and instance segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pycocotools import mask as coco

from rts_batch.errors import UsageError
from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written, compressed, finite
from rts_batch.export.json_lists import JsonLists
from rts_batch.export.polygons import mask_polygons

FRAMES_OF_ONE: Final = 10_000_000
"""Ids left for the frames of each video and of each target, so that no id depends on what else is exported."""


class Coco(ExportFormat):
    """`annotations/instances_default.json`, images in `images/`. Frames on which no mask passes are not listed."""

    has_polygons = True

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        (folder / "annotations").mkdir()  # where datumaro looks
        json = JsonLists(folder / "annotations" / "instances_default.json", "videos", "images", "annotations")
        self._json = self.resources.enter_context(json)

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        source = {"name": video.name, "source_id": video.masks.video_id, "uri": video.uri, "fps": video.masks.fps}
        if video.masks.frames_total > FRAMES_OF_ONE:
            raise UsageError(f"video {source['source_id']!r} has more than {FRAMES_OF_ONE} frames; take another format")
        number = video.number
        self._json.append("videos", {"id": number, **source})
        targets = {target.object_id: video.target_number(target) for target in video.targets}
        numbers = {target.object_id: self.number(video, target) for target in video.targets}
        for index, rows in video.annotated():
            name = f"{video.name}/{index:06d}.jpg"
            image_id = number * FRAMES_OF_ONE + index
            image = {
                "id": image_id,
                "file_name": name,
                "width": rows[0].width,
                "height": rows[0].height,
                "video_id": number,
                "frame_index": index,
                "time": rows[0].time,
            }
            self._json.append("images", image)
            written.image(index, f"images/{name}")
            for row in rows:
                segmentation = compressed(row)
                annotation = {
                    "id": targets[row.object_id] * FRAMES_OF_ONE + index,
                    "image_id": image_id,
                    "video_id": number,
                    "category_id": numbers[row.object_id],
                    "segmentation": mask_polygons(row.mask()) if self.polygons else segmentation,
                    "bbox": coco.toBbox(segmentation).tolist(),
                    "area": row.area,
                    "iscrowd": 0,
                    "track_id": row.object_id,
                    **video.named(row.object_id),
                    "state": row.state,
                }
                # Without null, at which datumaro stops. FiftyOne makes keywords of all keys and has a `confidence`.
                values = {"score": finite(row.score), "mask_confidence": finite(row.confidence)}
                annotation |= {key: value for key, value in values.items() if value is not None}
                self._json.append("annotations", annotation)
                written.masks += 1
        return written

    def close(self) -> None:
        info = {"description": "Masks made by rts-batch", "version": "1"}
        self._json.close({"info": info, "licenses": [], "categories": self.categories.to_json()})
