"""`corrections.csv` beside a run: rows that put labels right, and what they make of the run's own manifest."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rts_batch.errors import ManifestError, RunBusyError, RunFolderError
from rts_batch.io.storage import files, uris
from rts_batch.manifest.columns import COLUMNS
from rts_batch.manifest.formats import FOLDER_KEY
from rts_batch.manifest.marks import drawing_of
from rts_batch.manifest.target_names import OBJECT_NAME, Numbers
from rts_batch.manifest.task import Direction
from rts_batch.runs.lease import holder_of
from rts_batch.runs.paths import RunPaths, shards_among
from rts_batch.runs.rows_file import OF_A_VIDEO, Place, Row, RowsFile, categories_of, place_of, target_of
from rts_batch.runs.status import recorded_rows

_OF_A_PROMPT: Final = ("frame", "time", "x", "y", "w", "h", "mask")


class CorrectionsBook(RowsFile):
    """The corrections of one run's folder, path or URI."""

    def __init__(self, run_folder: str) -> None:
        self.paths = RunPaths(uris.absolute(run_folder).rstrip("/") or "/")
        super().__init__(self.paths.corrections)

    def refuse_if_busy(self) -> None:
        """Raise RunBusyError where a submission, of the whole run or of a shard, is at work on it.

        Raises RunFolderError where there is nothing that could be corrected.
        """
        self._require_manifest()
        for shard in shards_among(files.list_names(self.paths.uri), "lease"):
            holder = holder_of(RunPaths(self.paths.uri, shard).lease)
            if holder.state in ("alive", "unknown"):
                raise RunBusyError(
                    f"{self.paths.uri}: {holder.process} is at work on the run; wait for it, or cancel it"
                )

    def recorded(self) -> pa.Table:
        """Return the run's own manifest.

        Raises:
            RunFolderError: the folder has none, as a compacted one, or it is damaged.
        """
        self._require_manifest()
        return recorded_rows(self.paths.manifest)

    def _require_manifest(self) -> None:
        if not files.exists(self.paths.manifest):
            raise RunFolderError(f"{self.paths.uri} has no manifest to correct; give the folder of the run itself")

    def rows_of(self, video_id: str) -> list[Row]:
        """Return the rows of the run's own manifest about one video, their masks' paths as they are meant there."""
        recorded = self.recorded()
        rows: list[Row] = recorded.filter(pc.equal(recorded["video_id"], video_id)).to_pylist()
        folder = (recorded.schema.metadata or {}).get(FOLDER_KEY)
        for row in rows:
            # What is said again in the corrections would be looked for beside them.
            if folder is not None and row["mask"] is not None and drawing_of(row["mask"]) is None:
                row["mask"] = uris.resolve(row["mask"], folder.decode())
        return rows

    def numbers(self) -> Numbers:
        """Return the numbers that the run's manifest has given to the names of its targets.

        Raises:
            ManifestError: its targets have no names.
        """
        recorded = self.recorded()
        if OBJECT_NAME not in recorded.schema.names:
            raise ManifestError(f"{self.uri}: the run's targets have numbers and no names; write these as object_id")
        found: dict[str | None, dict[str, int]] = {}
        for row in recorded.select(["video_id", "object_id", OBJECT_NAME]).to_pylist():
            name = row[OBJECT_NAME] or str(row["object_id"])  # no name begins with a digit; its number is taken
            found.setdefault(row["video_id"], {})[name] = row["object_id"]
        return found

    def pending(self) -> list[Place]:
        """Return what the run's own manifest does not say yet."""
        rows = self.read().rows
        if not rows:
            return []
        recorded = self.recorded()
        known = _about(recorded, {row["video_id"] for row in rows})
        categories = categories_of(known)
        said = {place_of(row): _said(row, None) for row in known}
        return [place_of(row) for row in rows if said.get(place_of(row)) != _said(row, categories.get(target_of(row)))]


def written_time(rows: Iterable[Row], object_id: int, frame: int, time: float | None) -> float | None:
    """Return by which time the run's rows name a target's prompt on a frame; None where they give the frame itself.

    Args:
        rows: of the run's manifest, about one video.
        object_id: a target that was marked on this frame.
        frame: its index.
        time: when it is shown, in seconds.
    """
    prompts = [row for row in rows if row["object_id"] == object_id]
    times = [row["time"] for row in prompts if row["time"] is not None]
    if time is None or not times or any(row["frame"] == frame for row in prompts):
        return None
    return float(min(times, key=lambda given: abs(given - time)))


def merge(recorded: pa.Table, rows: Sequence[Row], folder: str, direction: Direction | None = None) -> pa.Table:
    """Return the run's manifest with the corrections in it; where both mark a target on a frame, the correction counts.

    Args:
        recorded: the run's manifest.
        rows: corrections of its videos.
        folder: what relative paths of masks in `rows` are relative to.
        direction: in which the videos of `rows` are tracked, if they are; None leaves it as it is.

    Raises:
        ManifestError: a correction of a video that the run does not have.
    """
    if not rows:
        return recorded
    names = {row["video_id"] for row in rows}
    kept = {place_of(row): row for row in _about(recorded, names)}
    if missing := names - {video_id for video_id, *_ in kept}:
        raise ManifestError(f"the run has no video {sorted(missing)[0]!r}, of which a correction speaks")
    videos = {row["video_id"]: row for row in reversed(kept.values())}
    annotated = {row["video_id"] for row in kept.values() if row["prompt_kind"] == "annotate"}
    targets = {target_of(row): row for row in reversed(kept.values())}
    categories = categories_of(kept.values()) | categories_of(rows)
    extras = [name for name in recorded.schema.names if name not in COLUMNS]
    for row in rows:
        kind = "annotate" if row["video_id"] in annotated else "correct"
        carried = _carried(row, targets.get(target_of(row), {}), extras)
        kept[place_of(row)] = {**carried, **_prompt_of(row, videos[row["video_id"]], kind, folder)}
    for row in kept.values():
        row["category"] = categories.get(target_of(row))
        if direction is not None and row["video_id"] not in annotated:
            row["direction"] = direction
    others = recorded.filter(pc.invert(pc.is_in(recorded["video_id"], pa.array(sorted(names), pa.string()))))
    return pa.concat_tables([others, pa.Table.from_pylist(list(kept.values()), schema=recorded.schema)])


def _carried(row: Row, target: Row, extras: Sequence[str]) -> Row:
    """What further columns say of a correction's target: what the run has; of a new one only its name is known."""
    return {name: target.get(name, row.get(name) if name == OBJECT_NAME else None) for name in extras}


def _prompt_of(row: Row, video: Row, kind: str, folder: str) -> Row:
    """A correction with all columns of a manifest, given any row of its video, and the kind of a prompt without one."""
    mask = row.get("mask")
    if mask is not None and drawing_of(mask) is None:
        mask = uris.resolve(mask, folder)
    return {
        **{name: video[name] for name in OF_A_VIDEO},
        **{name: row.get(name) for name in _OF_A_PROMPT},
        **{name: row[name] for name in ("video_id", "object_id")},
        "mask": mask,
        "prompt_kind": row.get("prompt_kind") or kind,
    }


@contextlib.contextmanager
def merged_manifest(run_folder: str, direction: Direction | None = None) -> Iterator[str]:
    """The path of a manifest for as long as the context lasts: the run's own with its corrections in it.

    With `direction` the videos that have some are tracked in that one.

    Raises:
        RunFolderError: the folder has no manifest, or no corrections.
        ManifestError: the corrections cannot be used.
    """
    book = CorrectionsBook(run_folder)
    rows = book.read().rows
    if not rows:
        raise RunFolderError(f"{book.paths.uri} has no corrections; make some with rts-batch review --serve")
    recorded = book.recorded()
    merged = merge(recorded, rows, book.paths.uri, direction)
    metadata = dict(recorded.schema.metadata or {})
    metadata.setdefault(FOLDER_KEY, book.paths.uri.encode())
    with tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch:
        path = Path(scratch) / "corrected.parquet"
        pq.write_table(merged.replace_schema_metadata(metadata), path)
        try:
            yield str(path)
        except ManifestError as error:
            if str(path) not in str(error):  # another manifest's
                raise
            raise _in_corrections(error, merged, str(path), book.uri) from None


def _in_corrections(error: ManifestError, merged: pa.Table, path: str, uri: str) -> ManifestError:
    """What is wrong with a manifest made for a moment, at `path`, said of the corrections that are in it, at `uri`."""

    def named(row: re.Match[str]) -> str:
        if not 0 < int(row[1]) <= merged.num_rows:  # somebody's own words
            return row[0]
        (told,) = merged.slice(int(row[1]) - 1, 1).to_pylist()
        moment = f"time {told['time']:g}" if told["frame"] is None else f"frame {told['frame']}"
        return f"video {told['video_id']}, object {told['object_id']}, {moment}"

    if not error.problems:
        return ManifestError(str(error).replace(path, uri))
    problems = [re.sub(r"\brow (\d+)\b", named, problem) for problem in error.problems]
    return ManifestError(f"{uri} does not go together with the run's own manifest; correct these rows", problems)


def _about(recorded: pa.Table, video_ids: set[str]) -> list[Row]:
    chosen = pc.is_in(recorded["video_id"], pa.array(sorted(video_ids), pa.string()))
    return list(recorded.filter(chosen).to_pylist())


def _said(row: Row, category: str | None) -> str:
    """What a row says of its prompt, to be compared; `category` is meant where it gives none."""
    kind = "absent" if row.get("prompt_kind") == "absent" else None
    mask = row.get("mask")
    box = None if mask is not None else [row.get(name) for name in "xywh"]
    return json.dumps([kind, mask, box, row.get("category") or category])
