"""Small finished runs, written as a run writes them, whose every mask is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.io.results.schema import Row
from rts_batch.io.results.writer import Covers, ResultsWriter
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.masks import State, encode_rle, mask_box

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Video:
    """One video of a run; `masks` is [frames, targets, H, W] with the targets in the order of `categories`."""

    video_id: str
    uri: str
    masks: Masks
    categories: Mapping[int, str | None]
    first: Mapping[int, int] = field(default_factory=dict)
    """First frame of a target, where it is not 0."""
    extras: Mapping[str, str] = field(default_factory=dict)
    said_absent: bool = False
    """Where a target has no mask a person has said so: nothing was searched, so there is no score."""

    def truth(self, object_id: int, frame: int) -> NDArray[np.bool_]:
        return self.masks[frame, list(self.categories).index(object_id)]

    def score(self, frame: int) -> float | None:
        return None if frame == 0 else (frame % 10) / 10

    def state(self, object_id: int, frame: int) -> State:
        if frame == self.first.get(object_id, 0):
            return "prompt"
        return "tracked" if self.truth(object_id, frame).any() else "lost"


def row_of(
    mask: NDArray[np.bool_] | NDArray[np.uint8],
    frame: int,
    state: State = "tracked",
    *,
    video_id: str = "a",
    object_id: int = 1,
    **others: Any,
) -> Row:
    """A row with this mask [H, W], its tight box and its area; `others` are further columns, null if not given."""
    x, y, w, h = mask_box(mask) or (None, None, None, None)
    height, width = mask.shape
    columns: dict[str, Any] = {"time": None, "score": None, "confidence": None, "quality": None, "category": None}
    columns |= {"rle": encode_rle(mask), "area": int(np.count_nonzero(mask)), "x": x, "y": y, "w": w, "h": h}
    columns |= {"video_id": video_id, "object_id": object_id, "frame": frame, "height": height, "width": width}
    return Row(**{**columns, "state": state, **others})


def begin_masks(run: Path, *, targets: int, covers: Covers = "forward") -> ResultsWriter:
    """Begin the only masks file of a run without a manifest, of the targets 1 to `targets`."""
    (run / "masks").mkdir(parents=True)
    known: dict[int, dict[str, Any]] = {object_id: {} for object_id in range(1, targets + 1)}
    return ResultsWriter(run / "masks" / "a-0123456789abcdef.parquet", targets=known, covers=covers)


def write_run(folder: Path, videos: list[Video]) -> dict[str, VideoTask]:
    """Writes manifest and masks and returns the tasks by video_id."""
    rows = [
        {
            "video": video.uri,
            "video_id": video.video_id,
            "object_id": object_id,
            "frame": video.first.get(object_id, 0),
            "box": "1,1,4,4",
            "category": category,
            **video.extras,
        }
        for video in videos
        for object_id, category in video.categories.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder.parent / f"{folder.name}.jsonl"
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = read_manifest(str(plain))
    (folder / "manifest.parquet").write_bytes(manifest.to_parquet())
    tasks = {task.video_id: task for task in manifest.tasks}
    for video in videos:
        write_masks(folder, video, tasks[video.video_id])
    return tasks


def write_masks(folder: Path, video: Video, task: VideoTask) -> Path:
    path = folder / "masks" / f"{task.key}.parquet"
    path.parent.mkdir(exist_ok=True)
    frames = len(video.masks)
    described: dict[str, Any] = {"video_id": video.video_id, "key": task.key, "start": 0, "end": None}
    with ResultsWriter(
        path,
        targets={object_id: dict(video.extras) for object_id in video.categories},
        extras=dict.fromkeys(video.extras, "string"),
        task=described,
        weights="abc",
        profile="exact",
    ) as writer:
        for frame in range(frames):
            for object_id, category in video.categories.items():
                if frame < video.first.get(object_id, 0):
                    continue
                mask = video.truth(object_id, frame)
                state = video.state(object_id, frame)
                given = state == "prompt" or (state == "lost" and video.said_absent)
                writer.add(
                    row_of(
                        mask,
                        frame,
                        state,
                        video_id=video.video_id,
                        object_id=object_id,
                        time=frame / 25,
                        score=None if given else video.score(frame),
                        confidence=0.75 if mask.any() else None,
                        category=category,
                    )
                )
        writer.close(frames=frames, fps=25.0, duration=frames / 25)
    return path


class Repeated:
    """The masks of a long `Video`, of which only the first are held."""

    def __init__(self, masks: Masks, frames: int) -> None:
        self._masks, self._frames = masks, frames

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, place: tuple[int, int]) -> Masks:
        return self._masks[place[0] % len(self._masks), place[1]]


def write_plain_masks(
    run: Path, video_id: str, masks: Mapping[int, list[NDArray[Any]]], starts: Mapping[int, int], *, init: str = "mask"
) -> None:
    """Write the masks of one video and nothing beside them; an object's masks go from its start to the video's end."""
    (run / "masks").mkdir(parents=True, exist_ok=True)
    path = run / "masks" / f"{video_id}-0123456789abcdef.parquet"
    targets = {object_id: {"init": init} for object_id in masks}
    with ResultsWriter(path, targets=targets, extras={"init": "string"}, weights="0123abcd") as writer:
        for object_id, found in masks.items():
            for offset, mask in enumerate(found):
                frame, state = starts[object_id] + offset, "prompt" if offset == 0 else "tracked"
                writer.add(row_of(mask, frame, state, video_id=video_id, object_id=object_id))  # type: ignore[arg-type]
        writer.close(frames=max(starts[one] + len(found) for one, found in masks.items()))


def moving_squares(frames: int, targets: int, size: tuple[int, int] = (40, 60)) -> Masks:
    """Disjoint squares that move, [frames, targets, H, W]; each is gone on every seventh frame."""
    height, width = size
    masks = np.zeros((frames, targets, height, width), bool)
    rows = max(1, height // targets)
    for frame in range(frames):
        for target in range(targets):
            if frame % 7 != 6 or frame == 0:
                x = (3 * frame + 5 * target) % (width - 6)
                masks[frame, target, target * rows : target * rows + max(1, rows - 1), x : x + 6] = True
    return masks
