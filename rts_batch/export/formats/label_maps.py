"""Label images: every pixel holds the id of its target. DAVIS palette PNG and MOTS PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import UsageError
from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written
from rts_batch.masks import LABEL_PALETTE, VOID, smaller_on_top

MOTS_IGNORED = 10_000
"""The value of pixels of which MOTS knows nothing."""


class DavisPng(ExportFormat):
    """`Annotations/Full-Resolution/<video>/00000.png`: palette PNG whose indices are object ids, 0 the background."""

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._names: list[str] = []

    def add(self, video: ExportVideo) -> Written:
        wrong = [target.object_id for target in video.targets if not 1 <= target.object_id <= 255]
        if wrong:
            raise UsageError(
                f"video {video.masks.video_id!r}: object {wrong[0]} does not fit into a palette PNG, which holds the "
                "ids 1 to 255; choose with --objects, or take another format: mots-png goes to 999"
            )
        self._names.append(video.name)
        written = video.written()
        values = {target.object_id: target.object_id for target in video.targets}
        if video.doubted and VOID in values:
            raise UsageError(
                f"video {video.masks.video_id!r}: object {VOID} has DAVIS's value for what is not known, and rows are "
                "left out; choose with --objects, take more with --states all, or take another format"
            )
        for index, labels in _label_maps(self, video, values, VOID, written):
            image = Image.fromarray(labels)
            image.putpalette(LABEL_PALETTE)
            _save(image, self.folder / "Annotations" / "Full-Resolution" / video.name / f"{index:05d}.png")
            written.image(index, f"JPEGImages/Full-Resolution/{video.name}/{index:05d}.jpg")
        return written

    def close(self) -> None:
        path = self.folder / "ImageSets" / "2017" / "train.txt"
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"{name}\n" for name in self._names), encoding="utf-8")


class MotsPng(ExportFormat):
    """`instances/<video>/000000.png`: 16-bit PNG whose values are class · 1000 + object id, 0 the background."""

    reserved_numbers = frozenset({MOTS_IGNORED // 1000})

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        for index, labels in _label_maps(self, video, mots_ids(self, video), MOTS_IGNORED, written):
            _save(Image.fromarray(labels), self.folder / "instances" / video.name / f"{index:06d}.png")
            written.image(index, f"images/{video.name}/{index:06d}.jpg")
        return written

    def close(self) -> None:
        write_classes(self)
        if (self.folder / "instances").is_dir():
            known = dict(self.categories.items())  # line n is class n
            names = "".join(
                f"{known.get(number, f'class {number}')}\n" for number in range(1, max(known, default=0) + 1)
            )
            (self.folder / "instances" / "labels.txt").write_text(names, encoding="utf-8")  # where datumaro looks


def mots_ids(export: ExportFormat, video: ExportVideo) -> dict[int, int]:
    """Each target's MOTS id by its object id.

    Raises:
        UsageError: an id that MOTS cannot hold.
    """
    ids = {}
    for target in video.targets:
        number = export.number(video, target)
        if not 1 <= target.object_id <= 999 or number > 64:
            raise UsageError(
                f"video {video.masks.video_id!r}, object {target.object_id} of class {number}: MOTS holds the object "
                "ids 1 to 999 and the classes 1 to 64 without 10; choose with --objects, or take another format"
            )
        ids[target.object_id] = number * 1000 + target.object_id
    return ids


def write_classes(export: ExportFormat) -> None:
    lines = [f"{number} {name}\n" for number, name in export.categories.items()]
    (export.folder / "classes.txt").write_text("".join(lines), encoding="utf-8")


def _label_maps(
    export: ExportFormat, video: ExportVideo, values: Mapping[int, int], void: int, written: Written
) -> Iterator[tuple[int, NDArray[np.uint8 | np.uint16]]]:
    """Yield the exported frames as labels [H, W].

    Where a row was left out because of doubt, its target may be anywhere: what no other target has is `void`, and a
    frame of which nothing is left is none.
    """
    shared = 0
    dtype = np.uint8 if void <= 255 else np.uint16
    for index, rows in video.frames():
        doubted = index in video.doubted
        if doubted and not rows:
            continue
        labels: NDArray[np.uint8 | np.uint16] = np.full(video.masks.size, void if doubted else 0, dtype)
        masks = smaller_on_top({row.object_id: row.mask() for row in rows})
        for row in rows:
            labels[masks[row.object_id]] = values[row.object_id]
            shared += row.area - int(masks[row.object_id].sum())
            written.masks += 1
        yield index, labels
    warn_of_overlap(export, video, shared)


def warn_of_overlap(export: ExportFormat, video: ExportVideo, pixels: int) -> None:
    """Say how many pixels of a video were left to smaller targets, in a format that gives each to one only."""
    if pixels:
        export.warnings.append(
            f"video {video.masks.video_id!r}: {pixels} pixels belong to several targets; the smaller one has them"
        )


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, compress_level=3)
