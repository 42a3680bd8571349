"""BURST: sequences with a mapping from track to mask for each frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written, compressed, finite
from rts_batch.export.json_lists import JsonLists, dumps

DATASET = "rts-batch"


class Burst(ExportFormat):
    """`annotations.json`, images in `frames/rts-batch/<video>/`."""

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._json = self.resources.enter_context(JsonLists(folder / "annotations.json", "sequences"))

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        self._json.append_text("sequences", self._sequence(video, written))
        return written

    def close(self) -> None:
        categories = [
            {"id": number, "name": name, "synset": name, "def": "", "synonyms": [name]}
            for number, name in self.categories.items()
        ]
        self._json.close({"split": "train", "categories": categories})

    def _sequence(self, video: ExportVideo, written: Written) -> Iterator[str]:
        height, width = video.masks.size
        head = {
            "id": video.number,
            "seq_name": video.name,
            "dataset": DATASET,
            "width": width,
            "height": height,
            "fps": video.masks.fps,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
            "track_category_ids": {str(target.object_id): self.number(video, target) for target in video.targets},
        }
        yield dumps(head)[:-1]
        annotated = [index for index in video.indices if index not in video.doubted]
        for name, indices in (("all_image_paths", video.indices), ("annotated_image_paths", annotated)):
            yield f',"{name}":['
            yield from (f'{"," if place else ""}"{_name(index)}"' for place, index in enumerate(indices))
            yield "]"
        yield ',"segmentations":['
        place = -1
        for index, rows in video.frames():
            written.image(index, f"frames/{DATASET}/{video.name}/{_name(index)}")
            if index in video.doubted:
                continue
            place += 1
            masks = {
                str(row.object_id): {
                    "rle": compressed(row)["counts"],
                    "is_gt": row.state == "prompt",
                    "score": finite(row.confidence),
                }
                for row in rows
            }
            yield (",\n" if place else "\n") + dumps(masks)
            written.masks += len(rows)
        yield "]}"


def _name(index: int) -> str:
    return f"{index:06d}.jpg"
