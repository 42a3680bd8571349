"""Takes a run's masks to where they are used: one small module for each format, all with one interface.

`export_run` does the work; `base.ExportFormat` is what a new format implements, and `FORMATS` where it is entered.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, get_args

from rts_batch.config import ExportName
from rts_batch.errors import UsageError
from rts_batch.export.base import Categories, ExportFormat, ExportVideo, RowFilter, Written
from rts_batch.export.formats.boxes import Got10k, Lasot
from rts_batch.export.formats.burst import Burst
from rts_batch.export.formats.coco import Coco
from rts_batch.export.formats.cvat import Cvat
from rts_batch.export.formats.fiftyone import FiftyOne
from rts_batch.export.formats.label_maps import DavisPng, MotsPng
from rts_batch.export.formats.mots_txt import MotsTxt
from rts_batch.export.formats.sav import SaV
from rts_batch.export.formats.yolo import YoloSeg
from rts_batch.export.formats.youtube_vis import YoutubeVis
from rts_batch.export.run import ExportSummary, export_videos

__all__ = [
    "FORMATS",
    "Categories",
    "ExportFormat",
    "ExportSummary",
    "ExportVideo",
    "RowFilter",
    "Written",
    "export_run",
]

FORMATS: Final[Mapping[ExportName, type[ExportFormat]]] = MappingProxyType(
    {
        "coco": Coco,
        "ytvis": YoutubeVis,
        "sav": SaV,
        "davis": DavisPng,
        "mots-png": MotsPng,
        "mots-txt": MotsTxt,
        "yolo-seg": YoloSeg,
        "cvat": Cvat,
        "lasot": Lasot,
        "got10k": Got10k,
        "burst": Burst,
        "fiftyone": FiftyOne,
    }
)


def export_run(
    run_folder: str,
    out: str,
    format: ExportName,
    *,
    row_filter: RowFilter | None = None,
    extract_frames: bool = False,
) -> ExportSummary:
    """Writes the masks of a run, or of a compacted folder, in another format.

    Args:
        run_folder: path or URI.
        out: the folder to write, path or URI; it must not exist or be empty, and appears whole or not at all.
        format: a name of `FORMATS`.
        row_filter: which rows to take; by default all.
        extract_frames: also writes the frames that the labels speak of, as JPEG, which needs the videos. A video that
            cannot be opened any more is left out and reported.

    Raises:
        UsageError: an unknown format, one that cannot hold what it should, or a folder that is not empty.
        ResultsError: no masks, a file in `masks/` that is none of ours, or a damaged mask.
        VideoError: a video that broke off while its frames were extracted.
        StorageError: the folder cannot be read or written.
    """
    if format not in FORMATS:
        raise UsageError(f"{format!r} is no export format; there are {', '.join(get_args(ExportName))}")
    kind = FORMATS[format]
    if extract_frames and not kind.has_images:
        able = ", ".join(name for name, other in FORMATS.items() if other.has_images)
        raise UsageError(f"{format} refers to the videos themselves and holds no frames; those that do: {able}")
    return export_videos(run_folder, out, kind, row_filter or RowFilter(), extract_frames)
