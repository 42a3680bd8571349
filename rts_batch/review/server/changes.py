"""What the page sends to be saved, as rows of a manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Sequence

from rts_batch.errors import ManifestError, RtsBatchError
from rts_batch.manifest.columns import COLUMNS
from rts_batch.manifest.marks import drawing_of, parse_mask
from rts_batch.manifest.polygons import fill_rings
from rts_batch.review.server.requests import Change, Spot
from rts_batch.review.server.subject import Subject
from rts_batch.runs.corrections import written_time
from rts_batch.runs.rows_file import OF_A_VIDEO, Place, Row, RowsFile, place_of


def rows_of(changes: Sequence[Change], subject: Subject, book: RowsFile, removed: Collection[Place] = ()) -> list[Row]:
    """Return a row for each change; where only the category changes, what marks the target stays as it is.

    Args:
        changes: to be saved together.
        subject: what they are about.
        book: what has been saved before.
        removed: saved rows that go.

    Raises:
        ManifestError: a mask that is none, or empty, or a change that says nothing.
        ResultsError: a video that the run does not have.
    """
    recorded: dict[str, list[Row]] = {}
    saved = book.read().rows
    rows: list[Row] = []
    for change in sorted(changes, key=lambda change: change.frame is None):  # by then it is known what marks a target
        same = [row for row in saved if row["video_id"] == change.video_id]
        if change.video_id not in recorded:
            recorded[change.video_id] = book.rows_of(change.video_id)
        alike = _alike(change, same, subject)
        if change.frame is None:
            kept = {place_of(row): row for row in same if place_of(row) not in removed}
            kept |= {place_of(row): row for row in rows if row["video_id"] == change.video_id}
            rows.append(_renamed(change, subject, recorded[change.video_id], list(kept.values()), alike))
        else:
            rows.append(alike | _said(change, subject, [*recorded[change.video_id], *same]))
    return rows


def removed_places(spots: Iterable[Spot | Change], rows: Iterable[Row], subject: Subject) -> list[Place]:
    """Return which of these rows are about the targets on these frames."""
    wanted = {(spot.video_id, spot.object_id, spot.frame) for spot in spots if spot.frame is not None}
    return [place_of(row) for row in rows if (row["video_id"], row["object_id"], frame_of(row, subject)) in wanted]


def frame_of(row: Row, subject: Subject) -> int | None:
    """The frame that a row is about, also where it gives a time, if its video can be had."""
    frame: int | None = row.get("frame")
    if frame is not None or row.get("time") is None:
        return frame
    with contextlib.suppress(RtsBatchError):
        return subject.frame_at(row["video_id"], row["time"])
    return None


def mask_of(row: Row, subject: Subject) -> str | None:
    """A row's mask as the page takes it: polygons as the RLE of what they fill, if their video can be had."""
    mask: str | None = row.get("mask")
    drawing = drawing_of(mask)
    if drawing is None or "polygons" not in drawing:
        return mask
    try:
        height, width = subject.size(row["video_id"])
    except RtsBatchError:
        return mask
    counts = fill_rings(drawing["polygons"], height, width).decode("ascii")
    return json.dumps({"size": [height, width], "counts": counts})


def _alike(change: Change, same: list[Row], subject: Subject) -> Row:
    """What a row must have in common with those of its video, and of its target, in the same file."""
    source = subject.source(change.video_id)
    row: Row = {"video": source.uri}
    if same:
        row = {name: same[0].get(name) for name in OF_A_VIDEO}
        if any(one.get("prompt_kind") == "annotate" for one in same):
            row["prompt_kind"] = "annotate"
    if target := [row for row in same if row["object_id"] == change.object_id]:
        row |= {name: value for name, value in target[0].items() if name not in COLUMNS}
    return row


def _said(change: Change, subject: Subject, recorded: list[Row]) -> Row:
    where = _where(change)
    row = _about(change)
    assert change.frame is not None
    end = subject.numbers(change.video_id)["end"]
    if subject.kind == "run" and change.frame >= end:  # of new videos the length is only announced
        raise ManifestError(f"{where}: frame {change.frame} is not in the video, whose last one is {end - 1}")
    if not subject.is_prompt(change.video_id, change.object_id, change.frame):
        recorded = _absences_on(change.frame, change, subject, recorded)
    time = subject.time_of(change.video_id, change.frame)
    if (written := written_time(recorded, change.object_id, change.frame, time)) is not None:
        row |= {"frame": None, "time": written}
    if change.absent:
        return row | {"prompt_kind": "absent"}
    if change.counts is None:
        raise ManifestError(f"{where}, frame {change.frame}: neither a mask nor absent")
    height, width = subject.size(change.video_id)
    try:
        return row | {"mask": parse_mask(json.dumps({"size": [height, width], "counts": change.counts}))}
    except ValueError as error:
        raise ManifestError(f"{where}, frame {change.frame}: {error}") from error


def _absences_on(frame: int, change: Change, subject: Subject, recorded: list[Row]) -> list[Row]:
    """Return the rows of the target that are about a frame which no prompt of it has marked.

    Its state does not tell on which frame an absence was said from those after it, so the frame's time has to.
    """
    numbers = subject.numbers(change.video_id)
    times = [time for time in numbers["times"] if time is not None]
    if not times:
        return []
    # A time before all rows, or after them, is of a frame that has none, and not of the one nearest to it.
    half = 0.5 / numbers["fps"] if numbers["fps"] else 0.0
    own = [row for row in recorded if row["object_id"] == change.object_id]
    near = [row for row in own if row["time"] is None or times[0] - half <= row["time"] <= times[-1] + half]
    return [row for row in near if frame_of(row, subject) == frame]


def _renamed(change: Change, subject: Subject, recorded: list[Row], kept: list[Row], alike: Row) -> Row:
    """What marks a target first, with another category: as it is to be saved or, without that, as the run has it."""
    prompts, kept = ([row for row in rows if row["object_id"] == change.object_id] for rows in (recorded, kept))
    first = next(iter([*prompts, *kept]), None)
    if first is None:
        raise ManifestError(f"{_where(change)}: the run does not know this target; mark it on a frame first")
    about = _about(change)
    for row in kept:
        if place_of(row) == place_of(first) or frame_of(row, subject) == frame_of(first, subject) is not None:
            return row | {"category": about["category"] or row.get("category")}
    return alike | about | {name: first[name] for name in ("frame", "time", "x", "y", "w", "h", "mask", "prompt_kind")}


def _about(change: Change) -> Row:
    return {
        "video_id": change.video_id,
        "object_id": change.object_id,
        "frame": change.frame,
        "category": (change.category or "").strip() or None,
    }


def _where(change: Change) -> str:
    return f"video {change.video_id!r}, object {change.object_id}"
