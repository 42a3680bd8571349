"""LabelMe: a JSON file beside each image."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from rts_batch.export.base import ExportFormat, ExportVideo, Written, drawn
from rts_batch.export.json_lists import dumps
from rts_batch.io.results.schema import Row
from rts_batch.masks import mask_box


class LabelMe(ExportFormat):
    """`<video>/000000.json` and its image. `group_id` is the target, `description` its name, if it has one.

    Masks are LabelMe's own masks, which it has since version 5.3, and no polygons.
    Frames on which no mask passes have no file.
    """

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        folder = self.folder / video.name
        labels = {target.object_id: video.category(target) for target in video.targets}
        names = video.target_names
        for index, rows in video.annotated():
            content: dict[str, Any] = {
                "version": "5.5.0",
                "flags": {},
                "shapes": [_shape(row, labels[row.object_id], names.get(row.object_id, "")) for row in rows],
                "imagePath": f"{index:06d}.jpg",
                "imageData": None,
                "imageHeight": rows[0].height,
                "imageWidth": rows[0].width,
            }
            folder.mkdir(exist_ok=True)
            (folder / f"{index:06d}.json").write_text(dumps(content), encoding="utf-8")
            written.image(index, f"{video.name}/{index:06d}.jpg")
            written.masks += len(rows)
        return written


def _shape(row: Row, label: str, name: str) -> dict[str, Any]:
    """The mask as a PNG of its box, whose corners, both inside, are the points."""
    mask = drawn(row)
    x, y, w, h = mask_box(mask) or (0, 0, 0, 0)
    _, png = cv2.imencode(".png", mask[y : y + h, x : x + w].astype(np.uint8) * 255)
    return {
        "label": label,
        "points": [[x, y], [x + w - 1, y + h - 1]],
        "group_id": row.object_id,
        "description": name,
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png.tobytes()).decode("ascii"),
    }
