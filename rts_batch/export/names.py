"""The names of the export formats, which the command line knows before it imports any."""

from __future__ import annotations

from typing import Literal

ExportName = Literal[
    "coco",
    "ytvis",
    "sav",
    "davis",
    "mots-png",
    "mots-txt",
    "yolo-seg",
    "cvat",
    "lasot",
    "got10k",
    "burst",
    "fiftyone",
    "mot",
    "labelme",
    "label-studio",
    "datumaro",
]
