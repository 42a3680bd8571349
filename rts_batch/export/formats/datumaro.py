"""Datumaro's own format: everything in one JSON file."""

from __future__ import annotations

from pathlib import Path

from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written, compressed
from rts_batch.export.json_lists import JsonLists


class Datumaro(ExportFormat):
    """`annotations/default.json`, images in `images/default/`. Frames on which no mask passes are not listed.

    The attribute `track_id` and the group are a target's number among all of the run.
    """

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        (folder / "annotations").mkdir()
        self._json = self.resources.enter_context(JsonLists(folder / "annotations" / "default.json", "items"))

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        labels = {target.object_id: self.number(video, target) for target in video.targets}
        targets = {target.object_id: video.target_number(target) for target in video.targets}
        for index, rows in video.annotated():
            name = f"{video.name}/{index:06d}"
            annotations = [
                {
                    "id": place,
                    "type": "mask",
                    "attributes": {
                        "track_id": targets[row.object_id],
                        "object_id": row.object_id,
                        "state": row.state,
                        **video.named(row.object_id),
                    },
                    "group": targets[row.object_id],
                    "label_id": labels[row.object_id] - 1,
                    "rle": compressed(row),
                    "z_order": 0,
                }
                for place, row in enumerate(rows)
            ]
            item = {
                "id": name,
                "annotations": annotations,
                "attr": {"frame": index, "video_id": video.masks.video_id},
                "image": {"path": f"{name}.jpg", "size": [rows[0].height, rows[0].width]},
            }
            self._json.append("items", item)
            written.image(index, f"images/default/{name}.jpg")
            written.masks += len(rows)
        return written

    def close(self) -> None:
        labels = [{"name": name, "parent": "", "attributes": []} for name in self.categories.by_number()]
        self._json.close({"info": {}, "categories": {"label": {"labels": labels, "attributes": []}}})
