"""Puts a manifest's rows together into videos, targets and prompts."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from rts_batch.errors import ManifestError, StorageError
from rts_batch.io import storage
from rts_batch.manifest.columns import COLUMNS, Columns, check_columns, rle_of
from rts_batch.manifest.files import FOLDER_KEY, Problem, RawRows, read_rows
from rts_batch.manifest.model import Manifest, Prompt, Target, VideoTask, task_digest, task_key

__all__ = ["read_manifest"]

_EXTRA_TYPES: Final = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}

_VIDEO_FIELDS: Final = ("video", "start", "end", "direction", "frames")
"""What all rows of one video must agree on."""


def read_manifest(uri: str, *, skip_invalid: bool = False) -> Manifest:
    """Reads and checks a manifest.

    Args:
        uri: a path or URI of CSV, JSON lines or Parquet. Relative paths in it belong to its own folder.
        skip_invalid: leave out the rows that are wrong, and report them in `Manifest.invalid`.

    Raises:
        ManifestError: with every problem of every row; also a manifest without any (valid) row.
        StorageError: the file cannot be read.
    """
    raw = read_rows(storage.read_bytes(uri), uri)
    columns = check_columns(raw, uri)
    folder = raw.folder or _folder_of(uri)
    rows = _Rows(raw, columns, folder)
    rows.check()
    problems = sorted([*raw.problems, *columns.problems])
    texts = tuple(problem.text for problem in problems)
    if texts and not skip_invalid:
        wrong = len({problem.line for problem in problems})
        raise ManifestError(
            f"{uri}: {wrong} of {len(raw.lines) + len(raw.problems)} rows cannot be used; correct them or leave them "
            "out with --skip-invalid",
            texts,
        )
    good = [row for row in range(len(raw.lines)) if row not in columns.bad]
    if not good:
        raise ManifestError(f"{uri} has no row that can be used" if texts else f"{uri} has no rows", texts)
    return Manifest(
        tasks=tuple(rows.tasks(good)), table=rows.table(good), invalid=texts, extras=dict(columns.extra_types)
    )


def _folder_of(uri: str) -> str:
    path = storage.local_path(uri)
    return str(path.absolute().parent) if path is not None else posixpath.dirname(uri.split("?")[0])


class _Rows:
    """Checked columns, seen as rows."""

    def __init__(self, raw: RawRows, columns: Columns, folder: str) -> None:
        self.raw = raw
        self.columns = columns
        self.folder = folder
        self.count = len(raw.lines)
        self._fill_defaults()

    def _fill_defaults(self) -> None:
        known = self.columns.known
        bad = self.columns.bad
        for row in range(self.count):
            if row in bad:
                continue
            if known["video_id"][row] is None:
                known["video_id"][row] = _default_id(known["video"][row])
            if known["box"][row] is not None and known["x"][row] is None:
                for name, value in zip("xywh", known["box"][row], strict=True):
                    known[name][row] = value
                known["box"][row] = None
            start = known["start"][row] or 0
            if known["frame"][row] is None and known["time"][row] is None:
                known["frame"][row] = start
            known["start"][row] = start
            for name, value in (("object_id", 1), ("direction", "forward"), ("prompt_kind", "correct")):
                if known[name][row] is None:
                    known[name][row] = value

    def check(self) -> None:
        """Adds what is wrong within single rows and between rows to the columns' problems."""
        known = self.columns.known
        first_of_video: dict[str, int] = {}
        first_of_target: dict[tuple[str, int], int] = {}
        first_of_prompt: dict[tuple[Any, ...], int] = {}
        for row in range(self.count):
            if row in self.columns.bad:
                continue
            found = list(self._check_row(row))
            video_id, object_id = known["video_id"][row], known["object_id"][row]
            found += self._check_agreement(row, first_of_video.setdefault(video_id, row))
            target = first_of_target.setdefault((video_id, object_id), row)
            prompt = first_of_prompt.setdefault((video_id, object_id, known["frame"][row], known["time"][row]), row)
            if prompt != row:
                found.append(
                    f"the same video, object_id and frame as {self._place(prompt)}; remove one of the two, or give "
                    "them different object_ids"
                )
            elif target != row:
                found += self._check_same_target(row, target)
            for text in found:
                self.columns.problems.append(Problem(self.raw.lines[row], f"{self._place(row)}: {text}"))
                self.columns.bad.add(row)

    def _check_row(self, row: int) -> Iterator[str]:
        known = {name: values[row] for name, values in self.columns.known.items()}
        sides = [name for name in "xywh" if known[name] is not None]
        if known["box"] is not None:
            yield "a box and the columns x, y, w, h; give one of the two"
        elif 0 < len(sides) < 4:
            missing = ", ".join(name for name in "xywh" if name not in sides)
            yield f"a box without {missing}; fill x, y, w and h or none of them"
        elif not sides and known["mask"] is None:
            yield "no target is marked; fill box (x,y,w,h in pixels) or mask"
        if known["frame"] is not None and known["time"] is not None:
            yield f"frame {known['frame']} and time {known['time']}; give one of the two"
        start, end = known["start"], known["end"]
        if end is not None and end <= start:
            yield f"column end: {end} is not after start, which is {start}"
        elif known["frame"] is not None and not start <= known["frame"] < (end or 2**31):
            yield f"column frame: {known['frame']} lies outside start {start} to end {'' if end is None else end}"
        for name in ("video", "mask"):
            if known[name] is not None and not known[name].startswith("{"):
                try:
                    storage.check_uri(known[name])
                except StorageError as error:
                    yield f"column {name}: {error}"
        if known["direction"] != "forward":
            yield f"column direction: {known['direction']!r} is not supported by this version; only 'forward' is"
        if known["prompt_kind"] != "correct":
            yield f"column prompt_kind: {known['prompt_kind']!r} is not supported by this version; only 'correct' is"

    def _check_agreement(self, row: int, first: int) -> Iterator[str]:
        for name in _VIDEO_FIELDS:
            values = self.columns.known[name]
            if values[row] != values[first]:
                yield (
                    f"column {name}: {values[row]!r}, but {self._place(first)} has {values[first]!r} for the same "
                    f"video_id {self.columns.known['video_id'][row]!r}; correct one, or use two video_ids"
                )

    def _check_same_target(self, row: int, first: int) -> Iterator[str]:
        carried = {"category": self.columns.known["category"], **self.columns.extras}
        for name, values in carried.items():
            if values[row] != values[first]:
                yield (
                    f"column {name}: {values[row]!r}, but {self._place(first)} has {values[first]!r} for the same "
                    "target; a target carries one value into the results"
                )
        yield (
            f"column object_id: {self.columns.known['object_id'][row]} was marked in {self._place(first)} already, and "
            "corrections of a target are not supported by this version; remove the row, or give it another object_id"
        )

    def _place(self, row: int) -> str:
        return f"{self.raw.place} {self.raw.lines[row]}"

    def tasks(self, rows: list[int]) -> Iterator[VideoTask]:
        by_video: dict[str, list[int]] = {}
        for row in rows:
            by_video.setdefault(self.columns.known["video_id"][row], []).append(row)
        for video_id, members in by_video.items():
            yield self._task(video_id, members)

    def _task(self, video_id: str, rows: list[int]) -> VideoTask:
        known = self.columns.known
        by_target: dict[int, list[int]] = {}
        for row in rows:
            by_target.setdefault(known["object_id"][row], []).append(row)
        targets = []
        written = []
        for object_id, members in sorted(by_target.items()):
            members.sort(key=lambda row: (known["time"][row] or 0.0, known["frame"][row] or 0))
            extras = {name: values[members[0]] for name, values in self.columns.extras.items()}
            category = known["category"][members[0]]
            targets.append(Target(object_id, tuple(map(self._prompt, members)), category, extras))
            prompts = [
                [known[name][row] for name in ("frame", "time", "x", "y", "w", "h", "mask", "prompt_kind")]
                for row in members
            ]
            written.append([object_id, category, extras, prompts])
        start, end, direction, frames = (known[name][rows[0]] for name in ("start", "end", "direction", "frames"))
        video = known["video"][rows[0]]
        digest = task_digest([video_id, video, start, end, direction, frames, written])
        return VideoTask(
            video_id=video_id,
            uri=storage.resolve(video, self.folder),
            targets=tuple(targets),
            start=start,
            end=end,
            direction=direction,
            frames=frames,
            digest=digest,
            key=task_key(video_id, digest),
        )

    def _prompt(self, row: int) -> Prompt:
        known = self.columns.known
        mask = known["mask"][row]
        rle = rle_of(mask)
        x, y, w, h = (known[name][row] for name in "xywh")
        return Prompt(
            frame=known["frame"][row],
            time=known["time"][row],
            box=(x, y, w, h) if mask is None else None,
            mask_uri=storage.resolve(mask, self.folder) if mask is not None and rle is None else None,
            mask_rle=rle,
            kind=known["prompt_kind"][row],
            line=self.raw.lines[row],
        )

    def table(self, rows: list[int]) -> pa.Table:
        known = {name: values for name, values in self.columns.known.items() if name != "box"}
        arrays = {name: pa.array([values[row] for row in rows], COLUMNS[name].type) for name, values in known.items()}
        for name, values in self.columns.extras.items():
            arrays[name] = pa.array([values[row] for row in rows], _EXTRA_TYPES[self.columns.extra_types[name]])
        return pa.table(arrays).replace_schema_metadata({FOLDER_KEY: self.folder.encode()})


def _default_id(video: str) -> str:
    """The path as written, which no other video of the manifest shares, without what may be secret in a URL."""
    uri = storage.safe_uri(video)
    return uri.rstrip("/") or "video" if urlsplit(uri).scheme else uri
