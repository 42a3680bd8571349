"""Puts a manifest's rows together into videos, targets and prompts."""

from __future__ import annotations

import contextlib
import gc
import glob
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from rts_batch.errors import ManifestError
from rts_batch.io.results.schema import EXTRA_TYPES
from rts_batch.io.storage import files, uris
from rts_batch.manifest.boxes import doubts, is_impossible
from rts_batch.manifest.columns import CLASS_NAMES, COLUMNS, WRITTEN_OTHERWISE, Columns, check_columns, number_targets
from rts_batch.manifest.formats import FOLDER_KEY, Problem, RawRows, format_of, read_rows
from rts_batch.manifest.marks import drawing_of
from rts_batch.manifest.task import Manifest, Prompt, Target, VideoTask, task_digest, task_key

_NEXT_STEP: Final = (
    'a manifest is a text file with a line "video,box" and one for each target, such as\n'
    '  video,box\n  {},"412,80,95,240"\nwith x,y,w,h in pixels of the video\'s first frame (docs/manifest.md)'
)
_DEFAULTS: Final = {"object_id": 1, "start": 0, "direction": "forward", "prompt_kind": "correct"}

_VIDEO_FIELDS: Final = ("video", "start", "end", "direction", "frames")
"""What all rows of one video must agree on, beside `prompt_kind`."""

_PROMPT_FIELDS: Final = ("frame", "time", "x", "y", "w", "h", "mask", "prompt_kind")


def read_manifest(uri: str, *, skip_invalid: bool = False) -> Manifest:
    """Read and check a manifest.

    Args:
        uri: a path or URI of CSV, JSON lines or Parquet. Relative paths in it belong to its own folder.
        skip_invalid: leave out the rows that are wrong, and report them in `Manifest.invalid`.

    Raises:
        ManifestError: with every problem of every row; also a manifest without any (valid) row.
        StorageError: the file cannot be read.
    """
    with _paused_garbage_collection():
        raw = read_rows(_read(uri), uri)
        columns = check_columns(raw, uri)
        _fill_defaults(columns)
        named = number_targets(columns, uri)
        _Checks(raw, columns, named).run()
        problems = tuple(problem.text for problem in sorted([*raw.problems, *columns.problems]))
        if problems and not skip_invalid:
            wrong = len(columns.bad) + len(raw.problems)
            raise ManifestError(
                f"{uri}: {wrong} of {len(raw.lines) + len(raw.problems)} rows cannot be used; correct them, or leave "
                "them out with --skip-invalid",
                problems,
            )
        good = [row for row in range(len(raw.lines)) if row not in columns.bad]
        if not good:
            raise ManifestError(f"{uri} has no row that can be used" if problems else f"{uri} has no rows", problems)
        folder = raw.folder or uris.folder_of(uri)
        if not uris.is_utf8(folder):
            raise ManifestError(f"{uri} lies in {folder}, whose name is no UTF-8; rename that folder, or take another")
        tasks = tuple(_tasks(raw, columns, good, folder))
        return Manifest(
            tasks, _table(columns, good, folder), problems, columns.extra_types, tuple(_warnings(raw, tasks))
        )


def _warnings(raw: RawRows, tasks: Sequence[VideoTask]) -> Iterator[str]:
    """Yield what is probably not as it was meant."""
    if lines := raw.commented_rows:
        count = f"line {lines[0]} begins" if len(lines) == 1 else f"{len(lines)} lines (the first is {lines[0]}) begin"
        yield f"{count} with # and {'is' if len(lines) == 1 else 'are'} left out; quote a name that begins so"
    prompts = (prompt for task in tasks for target in task.targets for prompt in target.prompts)
    if "category" not in raw.columns and (names := [name for name in CLASS_NAMES if name in raw.columns]):
        yield f"column {names[0]!r} is only carried; did you mean 'category', by which exports name the targets?"
    yield from doubts([prompt.box for prompt in prompts if prompt.box is not None])


def _fill_defaults(columns: Columns) -> None:
    known = columns.known
    for name, default in _DEFAULTS.items():
        known[name] = [default if value is None else value for value in known[name]]
    known["video_id"] = [
        name if name is not None or video is None else uris.without_query(video)
        for name, video in zip(known["video_id"], known["video"], strict=True)
    ]
    known["frame"] = [
        start if frame is None and time is None else frame
        for frame, time, start in zip(known["frame"], known["time"], known["start"], strict=True)
    ]
    for row, box in enumerate(known["box"]):
        if box is not None and all(known[name][row] is None for name in "xywh"):
            for name, value in zip("xywh", box, strict=True):
                known[name][row] = value
            known["box"][row] = None


class _Checks:
    """What is wrong within single rows, and between rows."""

    def __init__(self, raw: RawRows, columns: Columns, named: Sequence[str | None]) -> None:
        self.named = named
        """The names of the rows' targets; None for those that are numbered."""
        self.raw = raw
        self.columns = columns
        self.known = columns.known

    def run(self) -> None:
        """Add what it finds to the columns' problems."""
        known = self.known
        first_of_video: dict[str, int] = {}
        first_with_mark: dict[str, int] = {}
        first_of_target: dict[tuple[str, int], int] = {}
        first_of_prompt: dict[tuple[Any, ...], int] = {}
        names = ("video_id", "object_id", "frame", "time")
        of_video = {name: known[name] for name in _VIDEO_FIELDS}
        of_video["video"] = [video and uris.unsigned(video) for video in known["video"]]
        marked: set[tuple[str, int]] = set()
        first_of_image: dict[tuple[str, str], int] = {}
        for row, prompt in enumerate(zip(*(known[name] for name in names), strict=True)):
            if row in self.columns.bad:
                continue
            found = [*self._mark(row), *self._span(row), *self._shared(row, first_of_image)]
            first = first_of_video.setdefault(prompt[0], row)
            if first != row:
                found += self._differing(row, first, of_video, "video_id")
            if known["prompt_kind"][row] != "absent":  # which goes with either
                first = first_with_mark.setdefault(prompt[0], row)
                found += self._differing(row, first, {"prompt_kind": known["prompt_kind"]}, "video_id")
            first = first_of_target.setdefault(prompt[:2], row)
            if first_of_prompt.setdefault(prompt, row) != row:
                found.append(
                    f"the same video_id, object_id and frame as {self._place(first_of_prompt[prompt])}; remove one of "
                    "the two, or give them different object_ids"
                )
            elif first != row:
                carried = {"category": known["category"], **self.columns.extras}
                found += self._differing(row, first, carried, "target")
            self._add(row, *found)
            if not found and known["prompt_kind"][row] != "absent":
                marked.add(prompt[:2])
        for row, target in enumerate(zip(known["video_id"], known["object_id"], strict=True)):
            if row not in self.columns.bad and target not in marked:
                who = f"object {self.named[row] or target[1]}"
                self._add(row, f"{who} is only said to be absent; mark it on the frame where it is seen")

    def _add(self, row: int, *texts: str) -> None:
        for text in texts:
            self.columns.problems.append(Problem(self.raw.lines[row], f"{self._place(row)}: {text}"))
            self.columns.bad.add(row)

    def _mark(self, row: int) -> Iterator[str]:
        known = self.known
        missing = [name for name in "xywh" if known[name][row] is None]
        if known["prompt_kind"][row] == "absent":
            if len(missing) < 4 or known["box"][row] is not None or known["mask"][row] is not None:
                yield "a target that is absent has neither box nor mask; leave them empty, or leave out prompt_kind"
        elif known["box"][row] is not None:
            yield "a box and the columns x, y, w, h; give one of the two"
        elif missing and len(missing) < 4:
            yield f"a box without {', '.join(missing)}; fill x, y, w and h or none of them"
        elif missing and known["mask"][row] is None:
            yield "no target is marked; fill box (x,y,w,h in pixels), mask or polygon"
        elif not missing and known["mask"][row] is None:
            x, y, w, h = (known[name][row] for name in "xywh")
            if is_impossible((x, y, w, h)):
                yield (
                    f"the box {x:g},{y:g},{w:g},{h:g} is smaller than a pixel; a box is x,y,w,h in pixels: multiply "
                    "fractions by the frame's width and height"
                )

    def _shared(self, row: int, first_of_image: dict[tuple[str, str], int]) -> Iterator[str]:
        """An image of several targets numbers them; a name says nothing about which it is."""
        known = self.known
        mask = known["mask"][row]
        if mask is None or drawing_of(mask) is not None:
            return
        first = first_of_image.setdefault((known["video_id"][row], uris.unsigned(mask)), row)
        if known["object_id"][first] != known["object_id"][row] and (self.named[row] or self.named[first]):
            yield (
                f"the same mask image as another target's on {self._place(first)}, whose values number the targets; "
                "give object_id as these numbers, or each target an image of its own"
            )

    def _span(self, row: int) -> Iterator[str]:
        known = self.known
        frame, time, start, end = (known[name][row] for name in ("frame", "time", "start", "end"))
        if frame is not None and time is not None:
            yield f"frame {frame} and time {time}; give one of the two"
        if end is not None and end <= start:
            yield f"column end: {end} is not after start, which is {start}"
        elif frame is not None and frame < start:
            yield f"column frame: {frame} comes before start, which is {start}"
        elif frame is not None and end is not None and frame >= end:
            yield f"column frame: {frame} is not before end, which is {end}"

    def _differing(self, row: int, first: int, columns: dict[str, list[Any]], what: str) -> Iterator[str]:
        for name, values in columns.items():
            if values[row] != values[first]:
                ours, theirs = (
                    repr(uris.safe_uri(value) if name == "video" else value) for value in (values[row], values[first])
                )
                remedy = "leave the column out" if what == "target" else f"give them different {what}s"
                yield (
                    f"column {name}: {ours}, but {self._place(first)} has {theirs} for the same {what}; correct one of "
                    f"the two, or {remedy}"
                )

    def _place(self, row: int) -> str:
        return f"{self.raw.place} {self.raw.lines[row]}"


def _tasks(raw: RawRows, columns: Columns, rows: Sequence[int], folder: str) -> Iterator[VideoTask]:
    """The rows, grouped by video and then by target, each in the order of the prompts' frames."""
    known = columns.known
    by_video: dict[str, dict[int, list[int]]] = {}
    for row in rows:
        by_video.setdefault(known["video_id"][row], {}).setdefault(known["object_id"][row], []).append(row)
    prompt_columns = [known[name] for name in _PROMPT_FIELDS]
    # An address is signed again once it has expired, and what it leads to stays the same.
    lasting = [
        [mask and uris.unsigned(mask) for mask in known["mask"]] if name == "mask" else known[name]
        for name in _PROMPT_FIELDS
    ]
    for video_id, by_target in by_video.items():
        targets = []
        written = []
        for object_id, members in sorted(by_target.items()):
            members.sort(key=lambda row: (known["time"][row] or 0.0, known["frame"][row] or 0))
            category = known["category"][members[0]]
            extras = {name: values[members[0]] for name, values in columns.extras.items()}
            values = [[column[row] for column in prompt_columns] for row in members]
            lines = [raw.lines[row] for row in members]
            prompts = tuple(_prompt(line, fields, folder) for line, fields in zip(lines, values, strict=True))
            targets.append(Target(object_id, prompts, category, extras))
            written.append([object_id, category, extras, [[column[row] for column in lasting] for row in members]])
        video, start, end, direction, frames = (known[name][members[0]] for name in _VIDEO_FIELDS)
        digest = task_digest([video_id, uris.unsigned(video), start, end, direction, frames, written])
        yield VideoTask(
            video_id=video_id,
            uri=uris.resolve(video, folder),
            targets=tuple(targets),
            start=start,
            end=end,
            direction=direction,
            frames=frames,
            digest=digest,
            key=task_key(video_id, digest),
        )


def _prompt(line: int, fields: list[Any], folder: str) -> Prompt:
    frame, time, x, y, w, h, mask, kind = fields
    drawing = drawing_of(mask)
    return Prompt(
        frame=frame,
        time=time,
        box=(x, y, w, h) if mask is None and kind != "absent" else None,
        mask_uri=uris.resolve(mask, folder) if mask is not None and drawing is None else None,
        mask_rle=drawing if drawing and "counts" in drawing else None,
        polygons=drawing.get("polygons") if drawing else None,
        kind=kind,
        line=line,
    )


def _table(columns: Columns, rows: Sequence[int], folder: str) -> pa.Table:
    types = {name: column.type for name, column in COLUMNS.items() if name not in WRITTEN_OTHERWISE}
    types |= {name: EXTRA_TYPES[kind] for name, kind in columns.extra_types.items()}
    values = {**columns.known, **columns.extras}
    arrays = {name: pa.array([values[name][row] for row in rows], kind) for name, kind in types.items()}
    return pa.table(arrays).replace_schema_metadata({FOLDER_KEY: folder.encode()})


@contextlib.contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """A million rows are many objects and no cycles: looking for those takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(uri: str) -> bytes:
    """Return the file's bytes, or say what a manifest is where a video, a folder or a pattern was given."""
    path = uris.local_path(uri)
    if path is not None and path.is_dir():
        raise ManifestError(f"{uri} is a folder, not a manifest; {_NEXT_STEP.format(path / 'video.mp4')}")
    if path is not None and not path.exists() and glob.has_magic(uri) and (matches := sorted(glob.glob(uri))):
        raise ManifestError(f"{uri} is a pattern, not a manifest; {_NEXT_STEP.format(matches[0])}")
    data = files.read_bytes(uri)
    if b"\0" in data[:4096] and format_of(data, uri) != "parquet" and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{uri} is no text; if it is a video: {_NEXT_STEP.format(uri)}")
    return data
