"""The state of long videos under way, in the run's folder: what another worker needs to go on with them.

::

    checkpoints/<key>/<frame>-<attempt>/rows.parquet       rows of the masks table since the checkpoint before
    checkpoints/<key>/<frame>-<attempt>/state.bin          the tracker's state after that frame
    checkpoints/<key>/<frame>-<attempt>/checkpoint.json    written last: the checkpoint is complete; names all its rows

The complete one with the highest frame counts, of those that were made from the video as it is now: where that has been
replaced meanwhile, what was tracked in the old one is passed over. Nothing is ever overwritten, so a worker that was
thought dead only adds another checkpoint that leads to the same masks.

The state before is deleted once the next one is complete, and the folder once the video is done, unless the run keeps
them: then a video whose rows have been corrected is tracked from the last checkpoint before the first change on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.errors import CheckpointError, StorageError
from rts_batch.io.results.schema import Row
from rts_batch.io.storage import files, uris
from rts_batch.io.storage.parquet import read_parquet
from rts_batch.io.video.frames import Damage
from rts_batch.io.video.spool import version_of_video
from rts_batch.manifest import VideoTask
from rts_batch.manifest.task import task_digest
from rts_batch.worker.prompt_masks import ImageUses, image_of

FORMAT: Final = 2

LEAVING_SHARE: Final = 0.1
"""A worker that must leave writes a checkpoint if at least this share of the interval would be lost."""

_STATE: Final = "state.bin"
_COMPLETE: Final = "checkpoint.json"

_ROWS: Final = pa.schema(
    {
        "object_id": pa.int64(),
        "frame": pa.int64(),
        "time": pa.float64(),
        "rle": pa.binary(),
        "box": pa.list_(pa.float64()),
        "area": pa.int64(),
        "score": pa.float64(),
        "confidence": pa.float64(),
        "quality": pa.float64(),
        "state": pa.string(),
    }
)
"""What of a row of the masks table is not the same for the whole video."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a video stands after `frame`."""

    frame: int
    count: int
    """Frames read so far."""
    prompts: Mapping[str, Mapping[int, int]]
    """Which prompts have come (`PromptBook.taken`)."""
    damage: Damage
    """What had been found wrong with the video."""
    warnings: tuple[str, ...]
    size: tuple[int, int] | None
    """Height and width of the frames in pixels; None in those of earlier versions."""
    state: bytes | None
    """The tracker's, None as long as no target has appeared."""
    segments: Mapping[str, str]
    """All rows so far, in order: URIs with the SHA-256 of what they hold."""

    def rows(self, task: VideoTask, height: int, width: int) -> Iterator[Row]:
        """Yield the rows of the masks table up to and with `frame`, in the order in which they were added."""
        categories = {target.object_id: target.category for target in task.targets}
        for uri in self.segments:
            for row in read_parquet(files.read_bytes(uri)).to_pylist():
                x, y, w, h = row.pop("box") or (None, None, None, None)
                row.setdefault("quality", None)  # an earlier version's
                yield Row(
                    video_id=task.video_id,
                    height=height,
                    width=width,
                    category=categories[row["object_id"]],
                    **row,
                    x=x,
                    y=y,
                    w=w,
                    h=h,
                )


@dataclass(kw_only=True)
class Checkpoints:
    """Writes the checkpoints of one attempt at a video.

    Args:
        folder: URI of `checkpoints/<key>`.
        task: the video.
        attempt: makes the names of this attempt's checkpoints its own.
        interval: seconds of work between two; None writes none.
        version: of the video's content (`version_of_video`).
        keep: whether earlier states stay.
        segments: the rows that an earlier attempt wrote.
    """

    folder: str
    task: VideoTask
    attempt: str
    interval: float | None
    version: str
    keep: bool = False
    segments: Mapping[str, str] = field(default_factory=dict)
    count: int = 0
    """Frames tracked so far, those of earlier attempts included."""
    written: int = 0
    _rows: list[Row] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)
    _state: str | None = None

    def note(self, rows: Iterable[Row]) -> None:
        """Count a frame and keep its rows for the next checkpoint; memory is bounded by the interval."""
        self.count += 1
        if self.interval is not None:
            self._rows.extend(rows)

    def due(self, *, leaving: bool) -> bool:
        """Whether it is time to `write`."""
        share = LEAVING_SHARE if leaving else 1.0
        return self.interval is not None and time.monotonic() - self._last >= self.interval * share

    def write(
        self,
        *,
        frame: int,
        size: tuple[int, int],
        prompts: Mapping[str, Mapping[int, int]],
        damage: Damage,
        warnings: tuple[str, ...],
        snapshot: Callable[[], bytes] | None,
    ) -> None:
        """Write a checkpoint after `frame`. One that cannot be written costs nothing but time later on."""
        folder = uris.join(self.folder, f"{frame:09d}-{self.attempt}")
        rows_uri, state_uri = uris.join(folder, "rows.parquet"), uris.join(folder, _STATE)
        sink = io.BytesIO()
        rows = pa.Table.from_pylist([{**row._asdict(), "box": row.box} for row in self._rows], _ROWS)
        pq.write_table(rows, sink, compression="zstd")
        segments = {**self.segments, rows_uri: _digest(sink.getvalue())}
        state = None if snapshot is None else snapshot()
        content = {
            "frame": frame,
            "count": self.count,
            "prompts": prompts,
            "damage": dataclasses.asdict(damage),
            "warnings": warnings,
            "decided_by": decided_by(self.task, frame),
            "version": self.version,
            "size": size,
            "state_sha256": None if state is None else _digest(state),
            "segments": {posixpath.relpath(uri, self.folder): digest for uri, digest in segments.items()},
        }
        text = json.dumps(content)
        written = {"format": FORMAT, "sha256": _digest(text.encode()), "content": text}
        try:
            files.put_bytes(rows_uri, sink.getvalue())
            if state is not None:
                files.put_bytes(state_uri, state)
            files.put_bytes(uris.join(folder, _COMPLETE), json.dumps(written).encode())
            earlier, self._state = self._state, state_uri
            if earlier is not None and not self.keep:
                files.delete(earlier)  # the large part of what nobody needs any more
        except StorageError:
            return
        finally:
            self._last = time.monotonic()
        self.segments = segments
        self.written += 1
        self._rows.clear()


def read_latest(folder: str, *, version: str | None = None, below: int | None = None) -> Checkpoint | None:
    """Return the whole checkpoint with the highest frame in `checkpoints/<key>`; None: there is none to go on from.

    Args:
        version: of the video's content; a checkpoint that was made from another one is passed over.
        below: a frame; only those before it count.
    """
    for name in sorted(files.list_folders(folder), reverse=True):
        here = uris.join(folder, name)
        try:
            if files.exists(uris.join(here, _COMPLETE)):
                content = _read_content(here)
                if _is_of(content, version) and (below is None or content["frame"] < below):
                    return _read(folder, here, content)
        except (StorageError, CheckpointError):
            continue
    return None


def decided_by(task: VideoTask, frame: int) -> str:
    """Return a digest of all that the masks up to `frame` depend on, when frames are read forward.

    A prompt at a time counts always, as nothing but the video says which frame it is on. Which pixels of a mask image
    are a target's also depends on the other rows that use it, be they of later frames.
    """
    uses = ImageUses(task)
    marks = [
        [
            target.object_id,
            dict(target.extras),
            dataclasses.astuple(dataclasses.replace(prompt, line=0, mask_uri=image_of(prompt))),
            *uses.deciding(prompt, target.object_id),
        ]
        for target in task.targets
        for prompt in target.prompts
        if prompt.frame is None or prompt.frame <= frame
    ]
    # What is read forward first is the same whether it is read backward as well, but for what is warned of.
    same = task.direction == "bidirectional" and not task.absent_at_first
    direction = "forward" if same else task.direction
    return task_digest([uris.unsigned(task.uri), task.start, task.end, direction, marks])


def carry_over(task: VideoTask, before: str, after: str) -> None:
    """Copy the checkpoints in `before`, of a video whose rows have changed, that these leave as they are to `after`.

    What was made from another version of the video is left. What cannot be read or copied costs nothing but time.
    """
    version = None
    with contextlib.suppress(StorageError):  # where it cannot be seen from here, the worker will look
        version = version_of_video(task.uri)
    for name in files.list_folders(before):
        here, there = uris.join(before, name), uris.join(after, name)
        with contextlib.suppress(StorageError, CheckpointError):
            if files.exists(uris.join(there, _COMPLETE)):
                continue
            content = _read_content(here)
            if content.get("decided_by") != decided_by(task, content["frame"]) or not _is_of(content, version):
                continue
            checkpoint = _read(before, here, content)
            for uri in checkpoint.segments:
                files.put_bytes(uris.join(after, posixpath.relpath(uri, before)), files.read_bytes(uri))
            if checkpoint.state is not None:
                files.put_bytes(uris.join(there, _STATE), checkpoint.state)
            files.put_bytes(uris.join(there, _COMPLETE), files.read_bytes(uris.join(here, _COMPLETE)))


def _read_content(here: str) -> dict[str, Any]:
    """Raise CheckpointError where it is another format's or not as it was written."""
    try:
        written = json.loads(files.read_bytes(uris.join(here, _COMPLETE)))
        text = written["content"]
        if written["format"] != FORMAT or written["sha256"] != _digest(text.encode()):
            raise CheckpointError(f"{here} is another version's, or damaged")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{here} is no checkpoint: {error!r}") from error
    content: dict[str, Any] = json.loads(text)
    return content


def _is_of(content: Mapping[str, Any], version: str | None) -> bool:
    """Whether it was made from this version of the video, as far as both are known."""
    return version is None or content.get("version") in (None, version)


def _read(folder: str, here: str, content: Mapping[str, Any]) -> Checkpoint:
    """Raise CheckpointError where the rows or the state are not as they were written."""
    state = files.read_bytes(uris.join(here, _STATE)) if content["state_sha256"] else None
    segments = {uris.join(folder, name): digest for name, digest in content["segments"].items()}
    found = {uri: _digest(files.read_bytes(uri)) for uri in segments}
    if found != segments or (state is not None and _digest(state) != content["state_sha256"]):
        raise CheckpointError(f"{here}: its rows or the tracker's state are not as they were written")
    return Checkpoint(
        frame=content["frame"],
        count=content["count"],
        prompts={name: {int(key): value for key, value in some.items()} for name, some in content["prompts"].items()},
        damage=Damage(**content["damage"]),
        warnings=tuple(content["warnings"]),
        size=tuple(content["size"]) if "size" in content else None,
        state=state,
        segments=segments,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
