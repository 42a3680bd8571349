"""Label Studio: a task for each frame, with its masks as brushes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written
from rts_batch.export.json_lists import dumps
from rts_batch.io.results.schema import Row

FILES: Final = "/data/local-files/?d="
"""How Label Studio names a file of its local storage; behind it stands the path below that storage's root."""

RUN_BITS: Final = (3, 4, 8, 16)
"""Sizes of a run's length in a brush, as Label Studio writes them."""


class LabelStudio(ExportFormat):
    """`tasks.json` for a project of which `labels.xml` is the labelling interface, images in `images/`.

    A target's number is in `meta.track_id` of its regions. Frames on which no mask passes have no task.
    """

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._tasks = self.resources.enter_context((folder / "tasks.json").open("w", encoding="utf-8"))
        self._tasks.write("[")
        self._written = 0

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        labels = {target.object_id: video.category(target) for target in video.targets}
        for target in video.targets:
            self.number(video, target)  # so that `labels.xml` has it
        for index, rows in video.annotated():
            name = f"images/{video.name}/{index:06d}.jpg"
            task = {
                "data": {"image": f"{FILES}{name}"},
                "annotations": [
                    {"result": [_region(row, labels[row.object_id], video.named(row.object_id)) for row in rows]}
                ],
            }
            self._tasks.write(",\n" * (self._written > 0) + dumps(task))
            self._written += 1
            written.image(index, name)
            written.masks += len(rows)
        return written

    def close(self) -> None:
        self._tasks.write("]\n")
        self._tasks.close()
        labels = "".join(f'    <Label value="{html.escape(name)}"/>\n' for _, name in self.categories.items())
        (self.folder / "labels.xml").write_text(
            f'<View>\n  <Image name="image" value="$image"/>\n  <BrushLabels name="mask" toName="image">\n{labels}'
            "  </BrushLabels>\n</View>\n",
            encoding="utf-8",
        )


def _region(row: Row, label: str, name: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": f"object-{row.object_id}",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": row.width,
        "original_height": row.height,
        "image_rotation": 0,
        "meta": {"track_id": row.object_id, **name},
        "value": {"format": "rle", "rle": list(brush_code(row.mask())), "brushlabels": [label]},
    }


def brush_code(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask [H, W] as Label Studio's runs of RGBA values; its form is told of at `brush_values`."""
    flat = np.repeat(mask.ravel(), 4)
    ends = [*(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    bits = [f"{flat.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    begin = 0
    for end in ends:
        value = "11111111" if flat[begin] else "00000000"
        while begin < end:
            length = min(end - begin, 1 << RUN_BITS[-1])
            choice = next(place for place, size in enumerate(RUN_BITS) if length <= 1 << size)
            bits.append(f"1{choice:02b}{length - 1:0{RUN_BITS[choice]}b}{value}")
            begin += length
    return np.packbits(np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0")).tobytes()
