"""FiftyOne: a folder of type `FiftyOneVideoLabelsDataset`, whose labels are those of the ETA library."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written, finite
from rts_batch.export.json_lists import JsonLists, dumps
from rts_batch.io.results.schema import Row
from rts_batch.manifest.target_names import OBJECT_NAME
from rts_batch.masks import mask_box


class FiftyOne(ExportFormat):
    """`manifest.json` and `labels/<video>.json`; the videos stay where they are. Frames are counted from 1 there."""

    has_images = False

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._json = self.resources.enter_context(JsonLists(folder / "manifest.json", "index"))
        (folder / "labels").mkdir()
        self._signed = 0

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        labels = {target.object_id: video.category(target) for target in video.targets}
        with (self.folder / "labels" / f"{video.name}.json").open("w", encoding="utf-8") as file:
            file.write('{"type":"eta.core.video.VideoLabels","frames":{')
            for index, rows in video.frames():
                if rows:
                    objects = [
                        _detection(row, labels[row.object_id], video.target_names.get(row.object_id)) for row in rows
                    ]
                    frame = {"frame_number": index + 1, "objects": {"objects": objects}}
                    file.write((",\n" if written.masks else "\n") + f'"{index + 1}":{dumps(frame)}')
                    written.masks += len(rows)
            file.write("}}\n")
        self._json.append(
            "index", {"data": video.masks.uri or f"data/{video.name}.mp4", "labels": f"labels/{video.name}.json"}
        )
        self._signed += video.uri != video.masks.uri
        return written

    def close(self) -> None:
        if self._signed:
            self.warnings.append(
                f"manifest.json holds the addresses of {self._signed} videos with their queries, so that FiftyOne can "
                "find them; a query may be a signature: give the folder to nobody who may not have it"
            )
        self._json.close({"type": "eta.core.datasets.LabeledVideoDataset", "description": "Masks made by rts-batch"})


def _detection(row: Row, label: str, name: str | None) -> dict[str, Any]:
    mask = row.mask()
    x, y, w, h = mask_box(mask) or (0, 0, 1, 1)
    attributes = [_attribute("Categorical", "state", row.state)]
    if name is not None:
        attributes.append(_attribute("Categorical", OBJECT_NAME, name))
    if finite(row.score) is not None:
        attributes.append(_attribute("Numeric", "score", row.score))
    detection: dict[str, Any] = {
        "type": "eta.core.objects.DetectedObject",
        "label": label,
        "index": row.object_id,
        "bounding_box": {
            "top_left": {"x": x / row.width, "y": y / row.height},
            "bottom_right": {"x": (x + w) / row.width, "y": (y + h) / row.height},
        },
        "mask": _serialized(mask[y : y + h, x : x + w]),
        "attrs": {"attrs": attributes},
    }
    if finite(row.confidence) is not None:
        detection["confidence"] = row.confidence
    return detection


def _attribute(kind: str, name: str, value: object) -> dict[str, object]:
    return {"type": f"eta.core.data.{kind}Attribute", "name": name, "value": value}


def _serialized(array: NDArray[np.bool_]) -> str:
    """An array as ETA writes it into JSON: NumPy's own format, deflated, base64."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode("ascii")
