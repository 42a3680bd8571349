"""Which frames make a clip: data set, sequence and frames, drawn as in the released training (spec §1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import RtsBatchError, TrainingError
from rts_batch.training.clips.batches import Clip, ClipMaker
from rts_batch.training.clips.datasets.base import SequenceData
from rts_batch.training.clips.processing import make_clip
from rts_batch.training.settings import ClipSettings

MAXIMUM_DRAWS = 1000
"""Sequences tried for one clip before the data set is refused."""
MAXIMUM_WIDENING = 1000
GAP_STEP = 5


@dataclass(frozen=True)
class VideoClips:
    """A `ClipMaker` over the sequences of one data set.

    A sequence that cannot be read is named, skipped and counted (`Clip.skipped`), and another one is drawn.
    """

    data: SequenceData
    settings: ClipSettings

    def __post_init__(self) -> None:
        if not len(self.data):
            raise TrainingError(f"data set {self.data.name!r} has no sequence")

    def __call__(self, rng: np.random.Generator) -> Clip:
        skipped: list[str] = []
        for _ in range(MAXIMUM_DRAWS):
            index = int(rng.integers(len(self.data)))
            try:
                places = self._draw(index, rng)
                if places is None:
                    continue
                frames = self.data.read(index, places)
                train = self.settings.train_frames
                clip = make_clip(frames[:train], frames[train:], rng, self.settings)
            except RtsBatchError as error:
                skipped.append(f"{self.data.label(index)}: {error}")
                continue
            return replace(clip, skipped=tuple(skipped))
        none = "all show their target on too few frames, or too few pass the filters"
        why = f"the last that cannot be read: {skipped[-1]}" if skipped else none
        wanted = f"{self.settings.frames} frames in {MAXIMUM_DRAWS} draws"
        raise TrainingError(f"data set {self.data.name!r}: no clip of {wanted}; {why}")

    def _draw(self, index: int, rng: np.random.Generator) -> list[int] | None:
        visible = self.data.visible(index)
        if int(visible.sum()) <= 2 * self.settings.frames:
            return None
        return draw_frames(visible, rng, self.settings)


@dataclass(frozen=True)
class MixedClips:
    """A `ClipMaker` that draws each clip from one of several, with probabilities in proportion to their weights."""

    makers: Sequence[ClipMaker]
    weights: Sequence[float]

    def __call__(self, rng: np.random.Generator) -> Clip:
        shares = np.asarray(self.weights, dtype=np.float64)
        return self.makers[int(rng.choice(len(self.makers), p=shares / shares.sum()))](rng)


def draw_frames(visible: NDArray[np.bool_], rng: np.random.Generator, settings: ClipSettings) -> list[int]:
    """Return the frames of a clip, train frames first, each part in order.

    The base frame is uniform over the visible ones; the others are drawn with replacement from the visible frames
    within `maximum_gap` after it, which widens by 5 with every failure. With one train frame the base is refused, as
    the released sampler does, where nothing is visible before it: the first visible frame is never the base.

    Raises:
        TrainingError: no frames were found within a widening of 1000.
    """
    following = settings.frames - 1
    last = len(visible) - (settings.test_frames or following)
    starts = visible[: max(0, last)].nonzero()[0]
    for widening in range(0, MAXIMUM_WIDENING + 1, GAP_STEP):
        if not len(starts):
            break
        reach = settings.maximum_gap + widening
        base = int(rng.choice(starts))
        if settings.test_frames and not visible[max(0, base - reach) : base].any():
            continue
        after = base + 1 + visible[base + 1 : base + reach].nonzero()[0]
        if not following:
            return [base]
        if len(after):
            others = [int(frame) for frame in rng.choice(after, size=following)]
            train = sorted([base, *others[: settings.train_frames - 1]])
            return train + sorted(others[settings.train_frames - 1 :])
    raise TrainingError("no frames close enough to one another show the target")
