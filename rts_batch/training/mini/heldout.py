"""What training is judged by: clips of held-out pictures, seen as a trainer sees them and as a tracker sees them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rts_batch.config import GOOD_IOU, QualityMap
from rts_batch.masks import jaccard
from rts_batch.tracking.quality import History
from rts_batch.tracking.tracker import Tracker
from rts_batch.training.clips.batches import Batch
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.distributed import Workers
from rts_batch.training.mini.quality_runs import start_on
from rts_batch.training.objectives import objective_of
from rts_batch.training.settings import TrainSettings

FOUND_AGAIN = 10
"""Frames within which a target that returns should be found."""


@dataclass(frozen=True)
class Tracked:
    """How a tracker did on one clip; all numbers leave out the first frame."""

    jaccard: float
    """Mean over the frames; 1 where both masks are empty."""
    wrong_object: float
    """Share of the frames whose mask covers more of other objects than of the target."""
    absent: int
    """Frames without the target."""
    lost: int
    """Of those, the ones that are called `lost`."""
    falsely_lost: int
    """Frames with the target that are called `lost`."""
    good: int
    """Frames with a mask of at least `GOOD_IOU`."""
    good_lost: int
    """Of those, the ones that are called `lost`; the others that are falsely so have a mask that is not worth much."""
    returns: int
    """How often the target comes back and stays in view for `FOUND_AGAIN` frames, or to the end."""
    found_again: int
    """Of those, the ones with a mask of J ≥ 0.5 within `FOUND_AGAIN` frames."""


def evaluate_batches(model: nn.Module, settings: TrainSettings, batches: Sequence[Batch]) -> dict[str, float]:
    """Return the means of the objective's terms over `batches`, for `train`'s `evaluate`."""
    objective, workers = objective_of(settings), Workers.current()
    rows = []
    for place, batch in enumerate(batches):
        torch.manual_seed(place)
        rows.append(objective(model, batch, settings, workers).parts)
    return {key: float(torch.stack([row[key] for row in rows]).mean()) for key in rows[0]}


def track_clip(tracker: Tracker, clip: TruthClip, *, box: bool = False, quality: QualityMap | None = None) -> Tracked:
    """Track a clip's target from its first mask, or with `box` from that mask's box.

    With `quality` a frame is also `lost` where that map says so, as in a run.
    """
    history = History.from_prompt(start_on(tracker, clip, box=box), from_box=box)
    jaccards, wrong, lost = [], [], []
    for frame, mask, others in zip(clip.frames[1:], clip.masks[1:], clip.others[1:], strict=True):
        found = tracker.step(frame)
        if quality is not None:
            found = history.judge(found, quality)
        jaccards.append(jaccard(found.mask, mask))
        wrong.append(np.count_nonzero(found.mask & others) > np.count_nonzero(found.mask & mask))
        lost.append(found.state == "lost")
    present, said = clip.present[1:], np.array(lost)
    good = present & (np.array(jaccards) >= GOOD_IOU)
    again = returns(present)
    return Tracked(
        jaccard=float(np.mean(jaccards)),
        wrong_object=float(np.mean(wrong)),
        absent=int(np.count_nonzero(~present)),
        lost=int(np.count_nonzero(~present & said)),
        falsely_lost=int(np.count_nonzero(present & said)),
        good=int(np.count_nonzero(good)),
        good_lost=int(np.count_nonzero(good & said)),
        returns=len(again),
        found_again=sum(max(jaccards[start : start + FOUND_AGAIN]) >= 0.5 for start in again),
    )


def returns(present: NDArray[np.bool_]) -> list[int]:
    """Return the frames on which a target is back after an absence and then stays for `FOUND_AGAIN`, or to the end."""
    back = np.flatnonzero(present[1:] & ~present[:-1]) + 1
    return [int(start) for start in back if present[start : start + FOUND_AGAIN].all()]


def preferred_seed(held_out: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Choose the seed with the highest J on the held-out clips, the mean of its starts; by seed and start."""
    return max(held_out, key=lambda seed: statistics.mean(start["jaccard"] for start in held_out[seed].values()))
