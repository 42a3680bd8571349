"""MOTS text files: a line for each target and frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from rts_batch.export.base import ExportFormat, ExportVideo, Written, compressed
from rts_batch.export.formats.label_maps import MOTS_IGNORED, MotsPng, mots_ids, warn_of_overlap, write_classes
from rts_batch.io.results.schema import Row
from rts_batch.masks import encode_rle, smaller_on_top


class MotsTxt(ExportFormat):
    """`instances_txt/<video>.txt` with lines `frame id class height width rle`; frames are counted from 0."""

    reserved_numbers = MotsPng.reserved_numbers

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        ids = mots_ids(self, video)
        folder = self.folder / "instances_txt"
        folder.mkdir(exist_ok=True)
        shared = 0
        with (folder / f"{video.name}.txt").open("w", encoding="ascii") as file:
            for index, rows in video.frames():
                if index in video.doubted:
                    height, width = video.masks.size
                    rest = _rest(rows, (height, width))
                    file.write(f"{index} {MOTS_IGNORED} {MOTS_IGNORED // 1000} {height} {width} {rest}\n")
                counts, taken = _apart(rows)
                shared += taken
                for row, rle in zip(rows, counts, strict=True):
                    if rle is None:
                        continue
                    number = ids[row.object_id]
                    file.write(f"{index} {number} {number // 1000} {row.height} {row.width} {rle}\n")
                    written.masks += 1
                written.image(index, f"images/{video.name}/{index:06d}.jpg")
        warn_of_overlap(self, video, shared)
        return written

    def close(self) -> None:
        write_classes(self)


def _rest(rows: Sequence[Row], size: tuple[int, int]) -> str:
    """The RLE of everything that no row has, which MOTS shall ignore."""
    rest = np.ones(size, np.bool_)
    for row in rows:
        rest &= ~row.mask()
    return encode_rle(rest).decode("ascii")


def _apart(rows: Sequence[Row]) -> tuple[list[str | None], int]:
    """Return the RLE of each row of a frame, none of which may share a pixel with another, and how many pixels did.

    None stands for a mask of which nothing is left.
    """
    masks = [compressed(row) for row in rows]
    if len(rows) < 2 or int(coco.area(coco.merge(masks))) == sum(row.area for row in rows):
        return [str(mask["counts"]) for mask in masks], 0
    apart = smaller_on_top({row.object_id: row.mask() for row in rows})
    left = [apart[row.object_id] for row in rows]
    taken = sum(row.area for row in rows) - sum(int(mask.sum()) for mask in left)
    return [encode_rle(mask).decode("ascii") if mask.any() else None for mask in left], taken
