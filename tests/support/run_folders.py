"""Small finished runs, written as a run writes them, whose every mask is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.io.results.writer import ResultsWriter
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.masks import encode_rle, mask_box

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

    def truth(self, object_id: int, frame: int) -> NDArray[np.bool_]:
        return self.masks[frame, list(self.categories).index(object_id)]

    def score(self, frame: int) -> float | None:
        return None if frame == 0 else (frame % 10) / 10

    def state(self, object_id: int, frame: int) -> str:
        if frame == self.first.get(object_id, 0):
            return "prompt"
        return "tracked" if self.truth(object_id, frame).any() else "lost"


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
    frames, _, height, width = video.masks.shape
    described: dict[str, Any] = {"video_id": video.video_id, "key": task.key, "start": 0, "end": None}
    with ResultsWriter(
        path,
        video_id=video.video_id,
        height=height,
        width=width,
        targets={key: (category, dict(video.extras)) for key, category in video.categories.items()},
        extras=dict.fromkeys(video.extras, "string"),
        task=described,
        weights="abc",
        profile="exact",
    ) as writer:
        for frame in range(frames):
            for object_id in video.categories:
                if frame < video.first.get(object_id, 0):
                    continue
                mask = video.truth(object_id, frame)
                box = mask_box(mask)
                prompt = frame == video.first.get(object_id, 0)
                writer.add(
                    object_id,
                    frame=frame,
                    time=frame / 25,
                    rle=encode_rle(mask),
                    box=box,
                    area=int(mask.sum()),
                    score=None if prompt else video.score(frame),
                    confidence=0.75 if box else None,
                    state=video.state(object_id, frame),  # type: ignore[arg-type]
                )
        writer.close(frames=frames, fps=25.0, duration=frames / 25)
    return path


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
