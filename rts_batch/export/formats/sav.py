"""SA-V: one JSON for each video, as SAM 2's training data has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rts_batch.export.base import ExportFormat, ExportVideo, Written, compressed
from rts_batch.export.json_lists import dumps
from rts_batch.io.results.schema import Row
from rts_batch.masks import compress_runs


@dataclass
class _Masklet:
    """Statistics of one target over the listed frames."""

    area: int = 0
    visible: int = 0
    changes: int = 0
    first: int | None = None
    was_visible: bool = False

    def add(self, place: int, row: Row | None) -> None:
        if self.first is not None:
            self.changes += self.was_visible != (row is not None)
        if row is not None:
            self.area += row.area
            self.visible += 1
            self.first = place if self.first is None else self.first
        self.was_visible = row is not None


class SaV(ExportFormat):
    """`<video>_auto.json`. The outer list of `masklet` begins with the video's frame 0 and takes every K-th."""

    has_images = False

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        height, width = video.masks.size
        frames = video.masks.frames_total
        duration = frames / video.masks.fps if video.masks.fps else video.masks.duration
        head = {
            "video_id": video.name,
            "source_id": video.masks.video_id,
            "video_duration": duration,
            "video_frame_count": frames,
            "video_height": height,
            "video_width": width,
            "video_resolution": height * width,
            "video_split": "train",
            "annotated_every": video.every,
        }
        masklets = {target.object_id: _Masklet() for target in video.targets}
        absent = {"size": [height, width], "counts": ""}
        if height:
            absent["counts"] = compress_runs(np.array([height * width]), height, width).decode("ascii")
        with (self.folder / f"{video.name}_auto.json").open("w", encoding="utf-8") as file:
            file.write(dumps(head)[:-1] + ',"masklet":[\n')
            place = 0

            def put(rows: dict[int, Row]) -> None:
                nonlocal place
                for object_id, masklet in masklets.items():
                    masklet.add(place, rows.get(object_id))
                found = [compressed(rows[key]) if key in rows else absent for key in masklets]
                file.write((",\n" if place else "") + dumps(found))
                place += 1

            for index, rows in video.frames():
                while place * video.every < index:
                    put({})
                put({row.object_id: row for row in rows})
                written.masks += len(rows)
            file.write("]," + dumps(self._statistics(video, masklets, place))[1:] + "\n")
        return written

    def _statistics(self, video: ExportVideo, masklets: dict[int, _Masklet], frames: int) -> dict[str, object]:
        height, width = video.masks.size
        sizes = [masklet.area / max(1, masklet.visible) for masklet in masklets.values()]
        return {
            "masklet_id": list(masklets),
            "masklet_category": [video.category(target) for target in video.targets],
            "masklet_size_rel": [size / max(1, height * width) for size in sizes],
            "masklet_size_abs": sizes,
            "masklet_size_bucket": ["small" if s < 32**2 else "medium" if s < 96**2 else "large" for s in sizes],
            "masklet_visibility_changes": [masklet.changes for masklet in masklets.values()],
            "masklet_first_appeared_frame": [masklet.first for masklet in masklets.values()],
            "masklet_frame_count": [frames] * len(masklets),
            "masklet_edited_frame_count": [0] * len(masklets),
            "masklet_type": ["auto"] * len(masklets),
            "masklet_stability_score": [None] * len(masklets),
            "masklet_num": len(masklets),
        }
