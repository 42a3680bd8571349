"""What a manifest says, once it is known to be right."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.masks import Box

Direction = Literal["forward", "backward", "both", "bidirectional"]
PromptKind = Literal["correct", "annotate", "absent"]

DIGEST_CHARACTERS: Final = 16
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
NAME_CHARACTERS: Final = 80
"""The readable part of a key; with digest and ending it stays far below the 255 bytes of a file name."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A target marked on one frame, by exactly one of `box`, `mask_uri`, `mask_rle`, `polygons`; `absent` by none."""

    frame: int | None
    """Index of the frame, counted from the video's first; None where `time` says it."""
    time: float | None
    """Presentation time in seconds."""
    box: Box | None
    mask_uri: str | None
    mask_rle: dict[str, Any] | None
    """`{"size": [height, width], "counts": str}`, checked: decode_rle takes it."""
    polygons: list[list[float]] | None = None
    """Each x, y, x, y, … in pixels, checked; together they are the target (`polygons.fill_rings`)."""
    kind: PromptKind = "correct"
    line: int = field(default=0, compare=False)
    """Where the manifest says so: the line of a text file, the row (from 1) of a Parquet file."""

    def frame_or(self, timed: int) -> int:
        """The index of its frame, `timed` where only its time is known."""
        return timed if self.time is not None else self.frame or 0

    @property
    def where(self) -> str:
        """Its place in the video, for messages."""
        return f"time {self.time:g} s" if self.time is not None else f"frame {self.frame or 0}"

    @property
    def drawn(self) -> str:
        """What says where the target is, for messages: a mask, polygon or box, or that it is absent."""
        if self.kind == "absent":
            return self.kind
        return "box" if self.box is not None else "mask" if self.polygons is None else "polygon"


@dataclass(frozen=True, slots=True)
class Target:
    object_id: int
    prompts: tuple[Prompt, ...]
    """At least one that marks the target, in order of frame or time."""
    category: str | None
    extras: Mapping[str, Any]
    """The carried columns, by name, each of the type in `Manifest.extras`."""


@dataclass(frozen=True, slots=True)
class VideoTask:
    """All that is to be done in one video."""

    video_id: str
    uri: str
    """An absolute path or a URI."""
    targets: tuple[Target, ...]
    """At least one, in order of object_id."""
    start: int
    end: int | None
    """Exclusive; None is the video's end."""
    direction: Direction
    frames: int | None
    """The video's length as the manifest gives it: a hint for planning."""
    digest: str
    """Of every field of the video as it was written, whatever the file's format and the order of its rows."""
    key: str
    """`<video id, cleaned>-<digest>`: the stem of the video's files in a run's folder."""

    @property
    def annotates(self) -> bool:
        """Whether each prompt is wanted on its own frame only (`prompt_kind` is `annotate`), and nothing is tracked."""
        return any(prompt.kind == "annotate" for target in self.targets for prompt in target.prompts)

    @property
    def marked_again(self) -> bool:
        """Whether a target is marked on more than one frame."""
        return any(sum(prompt.kind != "absent" for prompt in target.prompts) > 1 for target in self.targets)

    @property
    def absent_at_first(self) -> bool:
        """Whether a target may be said to be absent before its first mark; where times are given nobody knows yet."""
        for target in self.targets:
            marks = [prompt.frame for prompt in target.prompts if prompt.kind != "absent" and prompt.frame is not None]
            absent = [prompt.frame for prompt in target.prompts if prompt.kind == "absent"]
            if any(frame is None or frame < min(marks, default=frame + 1) for frame in absent):
                return True
        return False

    def last_prompt(self) -> tuple[int | None, float | None]:
        """The latest frame index and the latest time in seconds that a prompt gives; None where none gives it so."""
        return _latest(prompt for target in self.targets for prompt in target.prompts)

    def second_pass_from(self) -> tuple[int | None, float | None]:
        """Where a second pass, down to `start`, probably begins, as `last_prompt`; None twice where there is none."""
        if self.annotates or self.direction not in ("both", "bidirectional"):
            return None, None
        begins = _latest(next(p for p in target.prompts if p.kind != "absent") for target in self.targets)
        if self.direction == "both":
            return begins
        frame, time = begins
        needed = self.marked_again or time is not None or (frame or 0) > self.start
        return self.last_prompt() if needed else (None, None)


def _latest(prompts: Iterable[Prompt]) -> tuple[int | None, float | None]:
    prompts = list(prompts)
    frames = [prompt.frame for prompt in prompts if prompt.frame is not None]
    times = [prompt.time for prompt in prompts if prompt.time is not None]
    return max(frames, default=None), max(times, default=None)


@dataclass(frozen=True)
class Manifest:
    tasks: tuple[VideoTask, ...]
    """In the order in which the manifest first names their videos."""
    table: pa.Table
    """The valid rows with every default filled in; itself a manifest that reads back to the same tasks."""
    invalid: tuple[str, ...]
    """The problems of rows that were left out (`skip_invalid`)."""
    extras: Mapping[str, str]
    """The carried columns: name to `int64`, `float64`, `bool` or `string`."""
    warnings: tuple[str, ...] = ()
    """What is probably not as it was meant, over all rows."""

    def to_parquet(self) -> bytes:
        """The table as a Parquet file; equal tables give equal bytes."""
        sink = io.BytesIO()
        pq.write_table(self.table, sink, compression="zstd", compression_level=3, row_group_size=100_000)
        return sink.getvalue()


def task_digest(fields: Any) -> str:
    """A digest of plain values (numbers, strings, lists, dicts)."""
    return hashlib.sha256(_CANONICAL.encode(fields).encode()).hexdigest()[:DIGEST_CHARACTERS]


def task_key(video_id: str, digest: str) -> str:
    """A file name's stem, safe on every store: no separators, no leading dot, ASCII, at most 97 characters."""
    # The end of a long path says more about the video than its beginning.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", video_id)[-NAME_CHARACTERS:].strip("._-")
    return f"{name or 'video'}-{digest}"
