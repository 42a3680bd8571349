"""MOTS text files: a line for each target and frame."""

from __future__ import annotations

from rts_batch.export.base import ExportFormat, ExportVideo, Written, compressed
from rts_batch.export.formats.label_maps import mots_ids, write_classes

__all__ = ["MotsTxt"]


class MotsTxt(ExportFormat):
    """`instances_txt/<video>.txt` with lines `frame id class height width rle`; frames are counted from 0."""

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        ids = mots_ids(self, video)
        folder = self.folder / "instances_txt"
        folder.mkdir(exist_ok=True)
        with (folder / f"{video.name}.txt").open("w", encoding="ascii") as file:
            for index, rows in video.frames():
                for row in rows:
                    number = ids[row.object_id]
                    rle = compressed(row)["counts"]
                    file.write(f"{index} {number} {number // 1000} {row.height} {row.width} {rle}\n")
                    written.masks += 1
                written.image(index, f"images/{video.name}/{index:06d}.jpg")
        return written

    def close(self) -> None:
        write_classes(self)
