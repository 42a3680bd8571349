"""What training is judged by: clips of held-out pictures, seen as a trainer sees them and as a tracker sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rts_batch.config import TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.tracker import Tracker
from rts_batch.training.clips.batches import Batch, clip_generator
from rts_batch.training.clips.stills.scenes import FRAME, Scene, view_of
from rts_batch.training.clips.stills.stills import Stills
from rts_batch.training.clips.stills.synthetic import SOLID, SceneOptions, random_scene
from rts_batch.training.distributed import Workers
from rts_batch.training.objectives import objective_of
from rts_batch.training.settings import TrainSettings

HARD = SceneOptions(in_place=0.2, distractors=3, absence=0.5, pace=0.8)
"""Scenes for the tracker: look-alikes in most of them, and half of the targets leave the frame and come back."""
SMALLEST_START = 400
"""Pixels that the target shows at least on the first frame."""


@dataclass(frozen=True)
class HeldOutClip:
    """A clip as a video: frames `[N, H, W, 3] uint8`, masks of the target and of other objects `[N, H, W] bool`."""

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    others: NDArray[np.bool_]


@dataclass(frozen=True)
class Tracked:
    """How a tracker did on one clip; both numbers leave out the first frame."""

    jaccard: float
    """Mean over the frames; 1 where both masks are empty."""
    wrong_object: float
    """Share of the frames whose mask covers more of other objects than of the target."""


def evaluate_batches(model: nn.Module, settings: TrainSettings, batches: Sequence[Batch]) -> dict[str, float]:
    """Returns the means of the objective's terms over `batches`, for `train`'s `evaluate`."""
    objective, workers = objective_of(settings), Workers.current()
    rows = []
    for place, batch in enumerate(batches):
        torch.manual_seed(place)
        rows.append(objective(model, batch, settings, workers).parts)
    return {key: float(torch.stack([row[key] for row in rows]).mean()) for key in rows[0]}


def held_out_clips(
    stills: Stills, *, count: int, seed: int, frames: int = 30, options: SceneOptions = HARD
) -> Iterator[HeldOutClip]:
    """Yields `count` clips; those whose target is hardly visible on the first frame are drawn again."""
    index = 0
    while count:
        clip = render_clip(random_scene(stills, clip_generator(seed, index), options), frames)
        index += 1
        if clip.masks[0].sum() >= SMALLEST_START:
            count -= 1
            yield clip


def render_clip(scene: Scene, frames: int) -> HeldOutClip:
    """Draws the whole frame of a scene at `frames` instants from t = 0 to 1."""
    view = view_of((FRAME[1] / 2, FRAME[0] / 2), 1.0, FRAME)
    drawn = [scene.render(float(t), view, FRAME) for t in np.linspace(0, 1, frames)]
    return HeldOutClip(
        np.stack([item.image for item in drawn]),
        np.stack([item.target >= SOLID for item in drawn]),
        np.stack([item.others >= SOLID for item in drawn]),
    )


def track_clip(model: RTS, config: TrackerConfig, clip: HeldOutClip, *, sta: STA | None = None) -> Tracked:
    """Tracks a clip's target from its first mask (with `sta`: from that mask's box)."""
    tracker = Tracker(model, config, sta=sta)
    rows, columns = (np.flatnonzero(clip.masks[0].any(axis)) for axis in (1, 0))
    box = (float(columns[0]), float(rows[0]), float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1)
    tracker.start(clip.frames[0], mask=None if sta else clip.masks[0], box=box if sta else None)
    jaccards, wrong = [], []
    for frame, mask, others in zip(clip.frames[1:], clip.masks[1:], clip.others[1:], strict=True):
        found = tracker.step(frame).mask
        jaccards.append(jaccard(found, mask))
        wrong.append(np.count_nonzero(found & others) > np.count_nonzero(found & mask))
    return Tracked(float(np.mean(jaccards)), float(np.mean(wrong)))


def jaccard(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Returns the intersection over the union of two masks, 1 where both are empty."""
    union = np.count_nonzero(found | true)
    return np.count_nonzero(found & true) / union if union else 1.0
