"""YouTube-VIS: one annotation for each target, with a list of masks over the frames of its video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pycocotools import mask as coco

from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written, compressed, finite
from rts_batch.export.json_lists import JsonLists, dumps
from rts_batch.io.results.schema import Row
from rts_batch.runs.video_masks import Target


def _runs(row: Row) -> dict[str, object]:
    """An RLE as YouTube-VIS' own files have it, a list of runs: some of its readers know no other."""
    return {"size": [row.height, row.width], "counts": row.runs().tolist()}


class YoutubeVis(ExportFormat):
    """`instances.json`, images in `JPEGImages/`. The frames listed begin with the first that any target covers."""

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._json = self.resources.enter_context(JsonLists(folder / "instances.json", "videos", "annotations"))

    def add(self, video: ExportVideo) -> Written:
        indices = video.indices
        names = [f"{video.name}/{index:05d}.jpg" for index in indices]
        written = video.written()
        for index, name in zip(indices, names, strict=True):
            written.image(index, f"JPEGImages/{name}")
        height, width = video.masks.size
        number = video.number
        size = {"height": height, "width": width, "length": len(indices)}
        about = {"id": number, "name": video.name, "source_id": video.masks.video_id, "uri": video.uri}
        self._json.append("videos", {**about, **size, "file_names": names, "frame_indices": list(indices)})
        for target in video.targets:
            head: dict[str, object] = {
                "id": video.target_number(target),
                "video_id": number,
                "category_id": self.number(video, target),
                "track_id": target.object_id,
                **video.named(target.object_id),
                "iscrowd": 0,
                **size,
            }
            self._json.append_text("annotations", self._annotation(video, target, head, written))
        return written

    def close(self) -> None:
        self._json.close({"info": {}, "licenses": [], "categories": self.categories.to_json()})

    def _annotation(
        self, video: ExportVideo, target: Target, head: dict[str, object], written: Written
    ) -> Iterator[str]:
        """The annotation as JSON in pieces; only boxes and areas wait in memory, as text."""
        boxes, areas, scores = [], [], []
        yield dumps(head)[:-1] + ',"segmentations":['
        rows = video.track(target)
        following = next(rows, None)
        for place, index in enumerate(video.indices):
            row = None
            if following is not None and following[0] == index:
                row = following[1]
                following = next(rows, None)
            segmentation = compressed(row) if row else None
            yield ("," if place else "") + dumps(_runs(row) if row else None)
            boxes.append(dumps(coco.toBbox(segmentation).tolist() if row else None))
            areas.append(dumps(row.area if row else None))
            scores.append(dumps(finite(row.confidence) if row else None))
            written.masks += row is not None
        for name, values in (("bboxes", boxes), ("areas", areas), ("confidences", scores)):
            yield f'],"{name}":[{",".join(values)}'
        yield "]}"
