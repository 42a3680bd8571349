"""Prompts from other tools' annotations: one function for each format, each giving an `Imported` to `write`.

    from rts_batch.manifest.importers import ImportOptions, from_coco

    found = from_coco("annotations.json", ImportOptions(video="clips/{name}.mp4"))
    found.write("manifest.csv")

docs/import.md is the user's description.
"""

from rts_batch.manifest.importers.base import ImportOptions
from rts_batch.manifest.importers.coco import from_coco
from rts_batch.manifest.importers.cvat import from_cvat
from rts_batch.manifest.importers.detections import from_detections
from rts_batch.manifest.importers.fiftyone import from_fiftyone
from rts_batch.manifest.importers.imported import Imported
from rts_batch.manifest.importers.label_images import from_masks
from rts_batch.manifest.importers.label_studio import from_label_studio
from rts_batch.manifest.importers.labelme import from_labelme
from rts_batch.manifest.importers.voc import from_voc
from rts_batch.manifest.importers.yolo import from_yolo

__all__ = [
    "ImportOptions",
    "Imported",
    "from_coco",
    "from_cvat",
    "from_detections",
    "from_fiftyone",
    "from_label_studio",
    "from_labelme",
    "from_masks",
    "from_voc",
    "from_yolo",
]
