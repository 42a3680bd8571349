"""Feeds a run's videos to an export format, one after another."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, get_args

from rts_batch.errors import StorageError, UsageError, VideoError
from rts_batch.export.base import NO_CATEGORY, Categories, ExportFormat, ExportVideo
from rts_batch.export.catalogue import Catalogue, write_names
from rts_batch.export.choices import split_videos
from rts_batch.export.formats.boxes import Got10k, Lasot
from rts_batch.export.formats.burst import Burst
from rts_batch.export.formats.coco import Coco
from rts_batch.export.formats.cvat import Cvat
from rts_batch.export.formats.datumaro import Datumaro
from rts_batch.export.formats.fiftyone import FiftyOne
from rts_batch.export.formats.label_maps import DavisPng, MotsPng
from rts_batch.export.formats.label_studio import LabelStudio
from rts_batch.export.formats.labelme import LabelMe
from rts_batch.export.formats.mot import Mot
from rts_batch.export.formats.mots_txt import MotsTxt
from rts_batch.export.formats.sav import SaV
from rts_batch.export.formats.yolo import YoloSeg
from rts_batch.export.formats.youtube_vis import YoutubeVis
from rts_batch.export.frames import write_frames
from rts_batch.export.names import ExportName
from rts_batch.export.row_filter import RowFilter
from rts_batch.io.storage.staging import staged_folder
from rts_batch.io.video.opening import FrameRange, FrameSource, open_video
from rts_batch.runs.reading import read_masks
from rts_batch.runs.sources import VideoSources
from rts_batch.runs.video_masks import VideoMasks

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
        "mot": Mot,
        "labelme": LabelMe,
        "label-studio": LabelStudio,
        "datumaro": Datumaro,
    }
)
"""Where a new format is entered; its name is in `rts_batch.export.names`."""


@dataclass
class Exported:
    """What an export holds."""

    out: str
    videos: int = 0
    targets: int = 0
    masks: int = 0
    """Of box formats, the boxes."""
    images: int = 0
    """Frames written as images."""
    left_out: list[str] = field(default_factory=list)
    """Videos that could not be opened for their frames, each with its reason."""
    doubted: int = 0
    """Rows left out by their state, score, confidence or quality, or because they hold nothing to show."""
    unmarked: int = 0
    """Frames on which a target has no row, though nothing says that it is not there."""
    warnings: list[str] = field(default_factory=list)


def export_run(
    run_folder: str,
    out: str,
    format: ExportName,
    *,
    row_filter: RowFilter | None = None,
    extract_frames: bool = False,
    classes: Mapping[str, int] | None = None,
    split: Sequence[float] | None = None,
    polygons: bool = False,
) -> Exported:
    """Write the masks of a run, or of a compacted folder, in another format.

    Args:
        run_folder: path or URI.
        out: the folder to write, path or URI; it must not exist or be empty, and appears whole or not at all.
        format: a name of `FORMATS`.
        row_filter: which rows to take; by default all.
        extract_frames: also writes the frames that the labels speak of, as JPEG, which needs the videos. A video that
            cannot be opened any more is left out and reported.
        classes: numbers of categories; the others get those that are free, from 1.
        polygons: masks as polygons along their pixels' edges in place of RLE, for formats that take either.
        split: shares of train, val and, if any, test, by whole videos, for formats that divide them.

    Raises:
        UsageError: an unknown format, one that cannot hold what it should, or a folder that is not empty.
        ResultsError: no masks, a file in `masks/` that is none of ours, or a damaged mask.
        VideoError: a video that broke off while its frames were extracted.
        StorageError: the folder cannot be read or written.
    """
    kind = _able_kind(format, extract_frames=extract_frames, split=split, polygons=polygons, numbers=classes or {})
    masks = read_masks(run_folder)
    exported = Exported(out)
    catalogue = Catalogue.of(masks)
    named: list[VideoMasks] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(staged_folder(out))
        export = kind(folder, Categories(catalogue.categories, classes, reserved=kind.reserved_numbers))
        export.parts = None if split is None else split_videos(catalogue.video_ids, split)
        export.polygons = polygons
        stack.enter_context(export.resources)
        unseen = set((row_filter or RowFilter()).objects or ())
        for video in masks:
            unseen -= {*video.targets, *(target.name for target in video.targets.values())}
            chosen = ExportVideo(video, catalogue, row_filter or RowFilter(), kind.needs_mask, extract_frames)
            if not chosen.targets:
                continue
            if not extract_frames:
                _add(export, chosen, exported)
            elif not _add_with_frames(export, chosen, masks.sources, exported):
                continue
            named.append(video)
        export.close()
        write_names(folder, catalogue, named)
    exported.warnings += [*export.warnings, *_asked_in_vain(unseen, set(classes or ()), catalogue)]
    return exported


def _able_kind(
    format: ExportName,
    *,
    extract_frames: bool,
    split: Sequence[float] | None,
    polygons: bool,
    numbers: Mapping[str, int],
) -> type[ExportFormat]:
    """Return the format of that name; raise UsageError where there is none, or it cannot hold what it should."""
    if format not in FORMATS:
        raise UsageError(f"{format!r} is no export format; there are {', '.join(get_args(ExportName))}")
    kind = FORMATS[format]
    if extract_frames and not kind.has_images:
        able = _names(lambda other: other.has_images)
        raise UsageError(f"{format} refers to the videos themselves and holds no frames; those that do: {able}")
    if split is not None and not kind.has_parts:
        raise UsageError(f"{format} does not divide videos; those that do: {_names(lambda other: other.has_parts)}")
    if polygons and not kind.has_polygons:
        raise UsageError(f"{format} takes no polygons; those that do: {_names(lambda other: other.has_polygons)}")
    ignored = [f"{name}={number}" for name, number in numbers.items() if number in kind.reserved_numbers]
    if ignored:
        raise UsageError(f"--classes {ignored[0]}: readers of {format} ignore what has this number; choose another one")
    return kind


def _asked_in_vain(targets: Set[int | str], classes: Set[str], catalogue: Catalogue) -> Iterator[str]:
    """Yield what the run has nothing of."""
    for name in sorted(targets, key=str):
        yield f"no target of the finished videos is called {name!r}"
    for name in sorted(classes - {*catalogue.categories, NO_CATEGORY}):
        yield f"--classes: no target of the run has the category {name!r}"


def _names(able: Callable[[type[ExportFormat]], bool]) -> str:
    return ", ".join(name for name, kind in FORMATS.items() if able(kind))


def _add(export: ExportFormat, video: ExportVideo, exported: Exported) -> Sequence[tuple[int, str]]:
    written = export.add(video)
    exported.videos += 1
    exported.targets += len(video.targets)
    exported.masks += written.masks
    exported.doubted += video.doubt.rows
    exported.unmarked += len(video.doubt.unmarked)
    return written.images


def _add_with_frames(export: ExportFormat, video: ExportVideo, sources: VideoSources, exported: Exported) -> bool:
    """Return whether the video could be opened."""
    with tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch:
        try:
            # Before the labels are written, so that none speaks of a video that is not there.
            path = sources.fetch(video.masks.video_id, scratch)
            _open(path).close()
        except (VideoError, StorageError) as error:
            exported.left_out.append(f"video {video.masks.video_id!r}: {error}")
            return False
        images = _add(export, video, exported)
        if images:
            start, end = min(images)[0], max(images)[0] + 1
            with _open(path, start, end) as source:
                exported.images += write_frames(source, images, export.folder, video.masks)
    return True


def _open(path: Path, start: int = 0, end: int | None = None) -> FrameSource:
    return open_video(str(path), FrameRange(start, end))
