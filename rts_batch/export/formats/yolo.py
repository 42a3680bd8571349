"""YOLO segmentation: one text file for each image, one polygon for each target."""

from __future__ import annotations

import json

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.export.base import ExportFormat, ExportVideo, Written, drawn
from rts_batch.export.choices import PARTS


class YoloSeg(ExportFormat):
    """`labels/train/<video>_000000.txt`, `data.yaml`, images in `images/train/`. Frames without a mask are left out.

    With parts also `val` and `test` beside `train`. A whole video is in one part.
    """

    has_parts = True

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        part = (self.parts or {}).get(video.masks.video_id, "train")
        folder = self.folder / "labels" / part
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {target.object_id: self.number(video, target) - 1 for target in video.targets}
        for index, rows in video.annotated():
            lines = []
            for row in rows:
                points = mask_polygon(drawn(row)) / (row.width, row.height)
                # The next larger of seven digits, because readers cut the pixels' fractions off.
                values = (np.floor(points.ravel() * 1e7) + 1) / 1e7
                lines.append(f"{numbers[row.object_id]} " + " ".join(f"{value:.7f}" for value in values) + "\n")
            stem = f"{video.name}_{index:06d}"
            (folder / f"{stem}.txt").write_text("".join(lines))
            written.image(index, f"images/{part}/{stem}.jpg")
            written.masks += len(rows)
        return written

    def close(self) -> None:
        # JSON strings are YAML strings.
        names = "".join(f"  {number - 1}: {json.dumps(name)}\n" for number, name in self.categories.items())
        parts = ["train"] if self.parts is None else [part for part in PARTS if part in self.parts.values()]
        if self.parts is None:
            self.warnings.append(
                "data.yaml names no videos to validate on, which ultralytics asks for: --split 0.8,0.2"
            )
        for part in parts:
            (self.folder / "labels" / part).mkdir(parents=True, exist_ok=True)
        text = "".join(f"{part}: images/{part}\n" for part in parts) + f"names:\n{names or '  {}'}"
        (self.folder / "data.yaml").write_text(text, encoding="utf-8")


def mask_polygon(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One closed polygon [N, 2] (x, y in pixels) around all parts and holes of a mask [H, W] that is not empty.

    Its even-odd filling, edges included, is the mask again, but for the lines of no width that join the parts: a row
    of the format has room for one polygon only.
    """
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = sorted((contour[:, 0].astype(np.int64) for contour in contours), key=len, reverse=True)
    polygon: NDArray[np.int64] = parts[0]
    for part in parts[1:]:
        x, y = (np.subtract.outer(polygon[:, axis], part[:, axis]) for axis in (0, 1))
        distances = x * x + y * y
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        # To the part, once around it, and back the same way.
        detour = np.concatenate([np.roll(part, -int(there), axis=0), part[there : there + 1]])
        polygon = np.concatenate([polygon[: here + 1], detour, polygon[here:]])
    if len(polygon) < 3:  # a polygon has three points, also around one pixel
        polygon = np.concatenate([polygon, np.repeat(polygon[-1:], 3 - len(polygon), axis=0)])
    return polygon
