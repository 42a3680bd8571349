"""CVAT for video 1.1: an XML file for each video."""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from rts_batch.export.base import ExportFormat, ExportVideo, Written
from rts_batch.masks import mask_box

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Cvat(ExportFormat):
    """`<video>.xml`, to be uploaded to a task that holds the video.

    CVAT has no tracks of masks: of such a track its reader keeps the first mask only. So each mask is a track of one
    frame, which CVAT turns into a shape; the group and the attribute `object_id` hold a target's masks together.
    """

    has_images = False

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        height, width = video.masks.size
        labels = {target.object_id: video.category(target) for target in video.targets}
        with (self.folder / f"{video.name}.xml").open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n')
            file.write(f"    <task>\n      <name>{_text(video.masks.video_id)}</name>\n")
            file.write(f"      <size>{video.masks.frames_total}</size>\n      <mode>interpolation</mode>\n")
            file.write("      <start_frame>0</start_frame>\n")
            file.write(f"      <stop_frame>{video.masks.frames_total - 1}</stop_frame>\n")
            file.write("      <labels>\n")
            for name in sorted(set(labels.values())):
                file.write(f"        <label><name>{_text(name)}</name><type>mask</type><attributes>{_ATTRIBUTE}")
                file.write("</attributes></label>\n")
            file.write("      </labels>\n")
            file.write(f"      <original_size><width>{width}</width><height>{height}</height></original_size>\n")
            file.write("    </task>\n  </meta>\n")
            for target in video.targets:
                label = quoteattr(_clean(labels[target.object_id]))
                for index, row in video.track(target):
                    if row is None:
                        continue
                    mask = row.mask()
                    left, top, columns, lines = mask_box(mask) or (0, 0, 1, 1)
                    rle = ", ".join(map(str, _row_runs(mask[top : top + lines, left : left + columns])))
                    file.write(
                        f'  <track id="{written.masks}" label={label} source="auto" group_id="{target.object_id}">\n'
                        f'    <mask frame="{index}" keyframe="1" outside="0" occluded="0" rle="{rle}" left="{left}" '
                        f'top="{top}" width="{columns}" height="{lines}" z_order="0">'
                        f'<attribute name="object_id">{_text(target.label)}</attribute></mask>\n  </track>\n'
                    )
                    written.masks += 1
            file.write("</annotations>\n")
        return written


_ATTRIBUTE: Final = (
    "<attribute><name>object_id</name><mutable>False</mutable><input_type>text</input_type>"
    "<default_value></default_value><values></values></attribute>"
)


def _row_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs along the rows, those of zeros first: CVAT's RLE, unlike COCO's, which goes down columns."""
    flat = mask.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(ends, prepend=0, append=flat.size).tolist()
    return [0, *runs] if flat[0] else runs


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)


def _text(text: str) -> str:
    return escape(_clean(text))
