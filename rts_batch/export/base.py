"""What every export format shares: how videos and categories are named, the interface."""

from __future__ import annotations

import abc
import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import ResultsError
from rts_batch.export.catalogue import Catalogue
from rts_batch.export.doubt import Doubt, find_doubt
from rts_batch.export.row_filter import RowFilter
from rts_batch.io.results.schema import Row
from rts_batch.io.storage import uris
from rts_batch.manifest.target_names import OBJECT_NAME
from rts_batch.runs.video_masks import Target, VideoMasks

NO_CATEGORY: Final = "object"
"""The category of targets for which the manifest gives none."""


class Categories:
    """Numbers the categories from 1: those of the manifest in alphabetical order, then any other as it comes.

    Args:
        names: the manifest's.
        chosen: numbers that are given; the others get those that are free.
        reserved: numbers that no category may have.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        chosen: Mapping[str, int] | None = None,
        *,
        reserved: frozenset[int] = frozenset(),
    ) -> None:
        self._ids = dict(chosen or {})
        self._reserved = reserved
        for name in sorted(set(names)):
            self.number(name)

    def number(self, name: str) -> int:
        if name not in self._ids:
            taken = self._reserved.union(self._ids.values())
            self._ids[name] = next(number for number in itertools.count(1) if number not in taken)
        return self._ids[name]

    def items(self) -> list[tuple[int, str]]:
        return sorted((number, name) for name, number in self._ids.items())

    def by_number(self) -> list[str]:
        """Names in the order of their numbers from 1 on, for formats that count lines; one stands in for each gap."""
        names = dict(self.items())
        return [names.get(number, f"class_{number}") for number in range(1, max(names, default=0) + 1)]

    def to_json(self) -> list[dict[str, object]]:
        return [{"id": number, "name": name, "supercategory": NO_CATEGORY} for number, name in self.items()]


@dataclass(frozen=True)
class ExportVideo:
    """A video as it is exported: filtered, with a name that is fit for files, and with numbers."""

    masks: VideoMasks
    catalogue: Catalogue
    filter: RowFilter
    needs_mask: bool
    """Rows with an empty mask count as absent."""
    keep_images: bool
    """Whether the frames will be extracted."""

    @property
    def name(self) -> str:
        return self.catalogue.name(self.masks.video_id)

    @property
    def uri(self) -> str | None:
        """Where the video is, as results may say it: a digest stands in place of a query, which may be a signature."""
        uri = self.masks.uri
        return uri and uris.safe_uri(uri)

    @property
    def number(self) -> int:
        """Among all videos of the run, from 1, whatever is finished."""
        return self.catalogue.video(self.masks.video_id)

    def target_number(self, target: Target) -> int:
        """Among all targets of the run, from 1, whatever is finished."""
        return self.catalogue.target(self.masks.video_id, target.object_id)

    def number_in_class(self, target: Target) -> int:
        """Among all targets of its category in the run, from 1, whatever is finished."""
        return self.catalogue.in_class(self.masks.video_id, target.object_id, target.category)

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        wanted = self.filter.objects
        return tuple(
            t for t in self.masks.targets.values() if wanted is None or t.object_id in wanted or t.name in wanted
        )

    @cached_property
    def doubt(self) -> Doubt:
        return find_doubt(self.masks, self.targets, self.filter, needs_mask=self.needs_mask)

    @property
    def doubted(self) -> frozenset[int]:
        """The frames on which a target may be anywhere: nothing is known of what is not labelled there."""
        return self.doubt.frames

    @property
    def indices(self) -> range:
        """The frames that are exported, from the first that any target covers to the video's end."""
        first = min((target.first_frame for target in self.targets), default=self.masks.frames_total)
        return range(-(-first // self.every) * self.every, self.masks.frames_total, self.every)

    def frames(self) -> Iterator[tuple[int, list[Row]]]:
        """Every frame of `indices` with the rows that pass, in order of object_id."""
        due = iter(self.indices)
        for frame in self.masks.frames([target.object_id for target in self.targets]):
            if frame.index % self.every == 0:
                yield from ((index, []) for index in itertools.takewhile(frame.index.__gt__, due))
                yield frame.index, [row for row in frame.rows if self._takes(row)]
        yield from ((index, []) for index in due)

    def annotated(self) -> Iterator[tuple[int, list[Row]]]:
        """Those of `frames` that show a target and leave nothing out: what is not annotated would be background."""
        return ((index, rows) for index, rows in self.frames() if rows and index not in self.doubted)

    def track(self, target: Target) -> Iterator[tuple[int, Row | None]]:
        """Every exported frame of one target from its first on, with None where its row does not pass or there is none.

        What lies after its last row is left out.
        """
        due = None
        for row in self.masks.rows([target.object_id]):
            if row.frame % self.every == 0:
                yield from ((index, None) for index in range(due or row.frame, row.frame, self.every))
                yield row.frame, row if self._takes(row) else None
                due = row.frame + self.every

    def written(self) -> Written:
        return Written(self.keep_images)

    @cached_property
    def target_names(self) -> Mapping[int, str]:
        """Of the targets that the manifest names."""
        return {target.object_id: target.name for target in self.targets if target.name is not None}

    def named(self, object_id: int) -> dict[str, str]:
        """Return what an annotation says of its target's name; nothing where it has none."""
        return {OBJECT_NAME: self.target_names[object_id]} if object_id in self.target_names else {}

    def category(self, target: Target) -> str:
        return target.category or NO_CATEGORY

    @property
    def every(self) -> int:
        return self.filter.every

    def _takes(self, row: Row) -> bool:
        return (row.area > 0 or not self.needs_mask) and self.filter.takes(row)


@dataclass
class Written:
    """What a format has made of one video."""

    keep_images: bool
    masks: int = 0
    images: list[tuple[int, str]] = field(default_factory=list)
    """Frames that the labels speak of, each with the place in the export's folder where its image belongs; empty where
    they are not wanted."""

    def image(self, index: int, place: str) -> None:
        if self.keep_images:
            self.images.append((index, place))


class ExportFormat(abc.ABC):
    """One export under way: `add` for each video, then `close`."""

    needs_mask: ClassVar[bool] = True
    has_images: ClassVar[bool] = True
    """Whether the format has a place for the frames as images (`--frames extract`)."""
    has_parts: ClassVar[bool] = False
    """Whether the format divides videos into train, val and test (`--split`)."""

    reserved_numbers: ClassVar[frozenset[int]] = frozenset()
    """Numbers that no category may have, because the format's readers ignore what has them."""

    has_polygons: ClassVar[bool] = False
    """Whether the format takes polygons as well (`--polygons`)."""

    def __init__(self, folder: Path, categories: Categories) -> None:
        self.folder = folder
        self.categories = categories
        self.polygons = False
        """Masks are written as polygons."""
        self.parts: Mapping[str, str] | None = None
        """Each video_id's part, where `--split` is given."""
        self.warnings: list[str] = []
        self.resources = contextlib.ExitStack()
        """What must be closed, also after an error."""

    @abc.abstractmethod
    def add(self, video: ExportVideo) -> Written:
        """Write one video.

        Raises:
            ResultsError: a damaged mask.
            UsageError: the format cannot hold this video.
        """

    def close(self) -> None:  # noqa: B027
        """Complete the files that all videos share."""

    def number(self, video: ExportVideo, target: Target) -> int:
        return self.categories.number(video.category(target))


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def drawn(row: Row) -> NDArray[np.bool_]:
    """Return a row's mask, of which something is to be drawn; raise ResultsError where it is empty."""
    mask = row.mask()
    if not mask.any():
        where = f"video {row.video_id!r}, object {row.object_id}, frame {row.frame}"
        raise ResultsError(f"{where}: the mask is empty, though its area is {row.area}")
    return mask


def compressed(row: Row) -> dict[str, object]:
    """The mask as COCO's compressed RLE for JSON, after a check of it."""
    row.runs()
    return {"size": [row.height, row.width], "counts": row.rle.decode("ascii")}
