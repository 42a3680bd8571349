"""What training is judged by: clips of held-out pictures, seen as a trainer sees them and as a tracker sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rts_batch.config import TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.tracker import Tracker
from rts_batch.training.clips.batches import Batch
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.distributed import Workers
from rts_batch.training.objectives import objective_of
from rts_batch.training.settings import TrainSettings


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


def track_clip(model: RTS, config: TrackerConfig, clip: TruthClip, *, sta: STA | None = None) -> Tracked:
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
