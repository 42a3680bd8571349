"""`rts-batch verify`: whether every results file of a run is what its task, its report and its own rows say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rts_batch.errors import ResultsError, RtsBatchError, RunFolderError, StorageError
from rts_batch.io.results.file import MasksFile, VideoEntry, video_entries
from rts_batch.io.storage import files
from rts_batch.io.storage.digest import sha256_of
from rts_batch.manifest import Target, VideoTask, read_manifest
from rts_batch.masks import parse_rle
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.paths import RECORD

COLUMNS: Final = (
    "video_id", "object_id", "frame", "time", "height", "width", "rle", "area", "score", "state", "category",
)  # fmt: skip
PROBLEMS_SHOWN: Final = 5


@dataclass(frozen=True)
class FileCheck:
    """What was found of one results file."""

    name: str
    video_id: str
    rows: int
    problems: tuple[str, ...]


def verify_run(run_folder: str) -> Iterator[FileCheck]:
    """Check the masks files of a run, each against the manifest, the video's report and itself, one after another.

    Raises:
        RunFolderError: the folder is not a run's own.
    """
    folder = RunFolder(run_folder)
    record = folder.record()
    if record is None:
        raise RunFolderError(f"{run_folder} has no {RECORD}: it is not a run's folder")
    folder.refuse_compacted()
    tasks = {task.key: task for task in read_manifest(folder.paths.manifest).tasks}
    # Masks of rows that have changed since count until the video has been tracked again.
    changed = {old: tasks[new] for old, new in folder.paths.replaced_by().items() if new in tasks}
    weights = record.results.get("weights")
    for name in files.list_names(folder.paths.masks):
        key = name.removesuffix(".parquet")
        if key == name or key not in tasks | changed:
            yield FileCheck(name, "", 0, ("no video of the manifest has this file",))
            continue
        rows, problems = 0, list[str]()
        try:
            file = MasksFile(folder.paths.masks_file(key))
            rows = file.rows
            if key in tasks:
                problems += itertools.islice(_Video(file, tasks[key], weights).problems(), PROBLEMS_SHOWN)
            problems += _report_problems(folder, key, rows)
            file.close()
        except RtsBatchError as error:
            problems.append(str(error))
        yield FileCheck(name, (tasks | changed)[key].video_id, rows, tuple(problems))


def _report_problems(folder: RunFolder, key: str, rows: int) -> list[str]:
    """Hold a masks file against its report, which is written with it."""
    try:
        report = json.loads(files.read_bytes(folder.paths.report(key)))
        found = sha256_of(folder.paths.masks_file(key))
        problems = []
        if report["rows"] != rows:
            problems.append(f"it has {rows} rows, its report says {report['rows']}")
        if "sha256" in report and report["sha256"] != found:
            problems.append(f"its checksum is {found[:12]}…, its report says {report['sha256'][:12]}…")
        return problems
    except (StorageError, ValueError, KeyError, TypeError) as error:
        return [f"its report cannot be read: {error}"]


class _Video:
    """One masks file with its task."""

    def __init__(self, file: MasksFile, task: VideoTask, weights: Any) -> None:
        self._file = file
        self._task = task
        self._weights = weights
        (self._entry,) = video_entries(file, "")
        self._size: tuple[int, int] | None = None

    def problems(self) -> Iterator[str]:
        yield from self._metadata(self._entry)
        frames: dict[int, list[int]] = {}
        times: dict[int, float] = {}
        targets = {target.object_id: target for target in self._task.targets}
        order: list[tuple[int, int]] = []
        for table in self._file.tables(0, self._file.rows, COLUMNS):
            ids, indices = table["object_id"].to_pylist(), table["frame"].to_pylist()
            places = list(zip(ids, indices, strict=True))
            order = [*order[-1:], *places]
            if order != sorted(order):
                yield "its rows are not sorted by object and frame"
                return
            for object_id, frame in places:
                frames.setdefault(object_id, []).append(frame)
            yield from self._row_problems(table, targets, times)
        for object_id in frames.keys() - targets.keys():
            yield f"object {object_id} is no target of the video"
        for object_id, target in targets.items():
            yield from self._cover_problems(target, frames.get(object_id, []))

    def _metadata(self, entry: VideoEntry) -> Iterator[str]:
        if entry.task.get("key") != self._task.key:
            yield f"it was written for task {entry.task.get('key')}"
        if self._weights is not None and entry.weights != self._weights:
            yield "it was made with other weights than the run's"

    def _row_problems(self, table: pa.Table, targets: dict[int, Target], times: dict[int, float]) -> Iterator[str]:
        for row in table.to_pylist():
            where = f"object {row['object_id']}, frame {row['frame']}"
            size = row["height"], row["width"]
            self._size = self._size or size
            if row["video_id"] != self._task.video_id:
                yield f"{where}: the row belongs to video {row['video_id']!r}"
            if size != self._size:
                yield f"{where}: the size is {size[1]}×{size[0]}, before it was {self._size[1]}×{self._size[0]}"
            try:
                area = int(parse_rle(row["rle"], *size)[1::2].sum())
            except ResultsError as error:
                yield f"{where}: {error}"
                continue
            if area != row["area"]:
                yield f"{where}: the mask has {area} pixels, its row says {row['area']}"
            # Nobody looks for a target that somebody has said to be absent, so such a row has neither mask nor score.
            absent = row["state"] == "lost" and row["score"] is None and not area
            if (row["state"] == "prompt") != (row["score"] is None) and not absent:
                yield f"{where}: a row of state {row['state']} with score {row['score']}"
            if row["state"] == "mask_lost" and area:  # a lost one may keep what was drawn elsewhere
                yield f"{where}: state {row['state']}, but the mask has {area} pixels"
            target = targets.get(row["object_id"])
            if target is not None and row["category"] != target.category:
                yield f"{where}: category {row['category']!r}, the manifest says {target.category!r}"
            if row["time"] is not None:
                if row["time"] <= times.get(row["object_id"], -np.inf):
                    yield f"{where}: its time {row['time']:g} s is not after the frame before"
                times[row["object_id"]] = row["time"]

    def _cover_problems(self, target: Target, frames: list[int]) -> Iterator[str]:
        """Whether the frames are those that the task wants."""
        task = self._task
        if not frames:
            yield f"object {target.object_id} has no row"
            return
        # An absence gives no row where nothing is tracked: before the first mark, backward after the last one.
        marks = [prompt for prompt in target.prompts if prompt.kind != "absent"]
        prompted = {prompt.frame for prompt in marks if prompt.frame is not None}
        if missing := sorted(prompted - set(frames)):
            yield f"object {target.object_id} has no row on frame {missing[0]}, where it is marked"
        if task.annotates:
            if len(frames) != len(target.prompts):
                yield f"object {target.object_id} has {len(frames)} rows for {len(target.prompts)} prompts"
            return
        if len(frames) != frames[-1] - frames[0] + 1:
            gap = next(frame for frame, after in itertools.pairwise(frames) if after != frame + 1)
            yield f"object {target.object_id} has no row on frame {gap + 1}"
        if task.direction != "backward" and frames[-1] != self._entry.frames - 1:
            yield f"object {target.object_id} ends with frame {frames[-1]}, the video with {self._entry.frames - 1}"
        if task.direction != "forward" and frames[0] != task.start:
            yield f"object {target.object_id} begins with frame {frames[0]}, the video with {task.start}"
        if task.direction == "forward" and prompted == {mark.frame for mark in marks} and frames[0] != min(prompted):
            yield f"object {target.object_id} begins with frame {frames[0]}, its first prompt is on {min(prompted)}"
