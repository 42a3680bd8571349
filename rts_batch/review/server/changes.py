"""What the page sends to be saved, as rows of a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rts_batch.errors import ManifestError
from rts_batch.manifest.marks import parse_mask
from rts_batch.review.server.catalogue import Catalogue
from rts_batch.runs.corrections import CorrectionsBook, Place, Row, place_of, written_time

__all__ = ["Change", "Spot", "removed_places", "rows_of"]


class Spot(BaseModel):
    """A target on a frame."""

    model_config = ConfigDict(extra="forbid")

    video_id: str
    object_id: int = Field(ge=1)
    frame: int = Field(ge=0)


class Change(BaseModel):
    """What is said of a target: its mask on a frame, that it is absent from there on, or only its category."""

    model_config = ConfigDict(extra="forbid")

    video_id: str
    object_id: int = Field(ge=1)
    frame: int | None = Field(default=None, ge=0)
    counts: str | None = None
    """Of the COCO RLE of its mask."""
    absent: bool = False
    category: str | None = Field(default=None, max_length=200)


def rows_of(changes: Iterable[Change], catalogue: Catalogue, book: CorrectionsBook) -> list[Row]:
    """Return a row for each change.

    Raises:
        ManifestError: a mask that is none, or empty, or a change that says nothing.
        ResultsError: a video that the run does not have.
    """
    recorded: dict[str, list[Row]] = {}
    rows = []
    for change in changes:
        if change.video_id not in recorded:
            recorded[change.video_id] = book.rows_of(change.video_id)
        rows.append(_row(change, catalogue, recorded[change.video_id]))
    return rows


def removed_places(spots: Iterable[Spot], rows: Iterable[Row], catalogue: Catalogue) -> list[Place]:
    """Return which of these rows are about the targets on these frames."""
    wanted = {(spot.video_id, spot.object_id, spot.frame) for spot in spots}
    return [place_of(row) for row in rows if (row["video_id"], row["object_id"], frame_of(row, catalogue)) in wanted]


def frame_of(row: Row, catalogue: Catalogue) -> int | None:
    """The frame that a row is about, also where it gives a time."""
    frame: int | None = row.get("frame")
    return catalogue.frame_at(row["video_id"], row["time"]) if frame is None and row.get("time") is not None else frame


def _row(change: Change, catalogue: Catalogue, recorded: list[Row]) -> Row:
    where = f"video {change.video_id!r}, object {change.object_id}"
    row: Row = {
        "video": catalogue.source(change.video_id).uri,
        "video_id": change.video_id,
        "object_id": change.object_id,
        "frame": change.frame,
        "category": (change.category or "").strip() or None,
    }
    if change.frame is None:
        return row | _first_prompt(recorded, change.object_id, where)
    if catalogue.is_prompt(change.video_id, change.object_id, change.frame):
        time = catalogue.time_of(change.video_id, change.frame)
        row["time"] = written_time(recorded, change.object_id, change.frame, time)
        row["frame"] = change.frame if row["time"] is None else None
    if change.absent:
        return row | {"prompt_kind": "absent"}
    if change.counts is None:
        raise ManifestError(f"{where}, frame {change.frame}: neither a mask nor absent")
    height, width = catalogue.size(change.video_id)
    try:
        return row | {"mask": parse_mask(json.dumps({"size": [height, width], "counts": change.counts}))}
    except ValueError as error:
        raise ManifestError(f"{where}, frame {change.frame}: {error}") from error


def _first_prompt(recorded: list[Row], object_id: int, where: str) -> dict[str, Any]:
    """What the run's manifest says of a target first, to be said again with another category."""
    prompts = [row for row in recorded if row["object_id"] == object_id]
    if not prompts:
        raise ManifestError(f"{where}: the run does not know this target; mark it on a frame first")
    return {name: prompts[0][name] for name in ("frame", "time", "x", "y", "w", "h", "mask", "prompt_kind")}
