"""What a tracked mask tells of itself, and the IoU with the truth that is to be expected of it.

`signals.signals_of` measures the network's output. A `History` sets each frame's signals beside those since the
target's last prompt and turns them into the inputs of a `QualityMap`. The paper has no such estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.config import QualityMap
from rts_batch.masks import Box, TrackedFrame
from rts_batch.tracking.signals import SIGNALS, Signal

RECENT: Final = 8
"""Frames whose mean area a mask's is compared with."""
LEAST_LIKENESS: Final = 0.05
"""To the prompt, that a change of it is measured by."""
RATE: Final = 0.15
"""What a new frame counts for in running means."""


_AGAINST_FIRST: Final = (Signal.SOFT_IOU, Signal.UNSURE, Signal.COMPACT, Signal.ROUGH, Signal.PEAK)
"""Signals that are also compared with those of the first frame after the prompt, when the mask was still good."""

_SHARES: Final = (
    "soft_iou",
    "softer_iou",
    "confidence",
    "stable_1",
    "stable_3",
    "seen_at_peak",
    "likeness_to_first",
    "likeness_to_recent",
    "lowest_likeness",
    "mean_soft_iou",
    "lowest_soft_iou",
)
"""Measures up to 1 whose logit is an input too: they lie so near to 1 that it tells more."""
_SHARE_RANGE: Final = (0.02, 0.9995)
_MEASURES: Final = (
    *(signal.name.lower() for signal in SIGNALS),
    *(f"{signal.name.lower()}_against_first" for signal in _AGAINST_FIRST),
    "like_prompt_against_first",
    "area_against_prompt",
    "area_against_recent",
    "jump",
    "overlap",
    "lowest_overlap",
    "age",
    "likeness_to_first",
    "likeness_to_recent",
    "lowest_likeness",
    "mean_soft_iou",
    "lowest_soft_iou",
    "mean_peak",
    "from_box",
)
_SHARE_PLACES: Final = tuple(map(_MEASURES.index, _SHARES))
INPUTS: Final = (*_MEASURES, *(f"{name}_logit" for name in _SHARES))
"""The names of what `History.inputs` returns, in order."""


@dataclass
class History:
    """What is remembered of one target since its last prompt: plain numbers, and features as arrays `[C] float64`."""

    prompt_area: float
    from_box: bool
    age: int = 0
    """Frames since the prompt."""
    areas: list[float] = field(default_factory=list)
    """Of the last `RECENT` frames with a mask."""
    box: Box | None = None
    """Of the last mask."""
    lowest_overlap: float = 1.0
    """Of the boxes of two masks in a row: a target moves on, what was taken for it lies elsewhere."""
    first: list[float] = field(default_factory=list)
    """Signals of the first frame after the prompt."""
    first_feature: list[float] = field(default_factory=list)
    recent_feature: list[float] = field(default_factory=list)
    lowest_likeness: float = 1.0
    mean_soft_iou: float = 1.0
    lowest_soft_iou: float = 1.0
    mean_peak: float = 1.0

    @classmethod
    def from_prompt(cls, frame: TrackedFrame, *, from_box: bool) -> History:
        """Begin anew with a prompt's own frame."""
        return cls(prompt_area=float(frame.area), from_box=from_box, box=frame.box)

    def inputs(self, frame: TrackedFrame) -> NDArray[np.float64] | None:
        """Take the next frame up and return the inputs of the map, `[len(INPUTS)] float64`; None without signals."""
        if frame.signals is None:
            return None
        signals, feature = list(frame.signals[: Signal.LENGTH]), np.asarray(frame.signals[Signal.LENGTH :])
        self.age += 1
        if not self.first:
            self.first, self.first_feature, self.recent_feature = signals, feature.tolist(), feature.tolist()
            self.mean_soft_iou, self.mean_peak = signals[Signal.SOFT_IOU], signals[Signal.PEAK]
        to_first, to_recent = _likeness(feature, self.first_feature), _likeness(feature, self.recent_feature)
        self.lowest_likeness = min(self.lowest_likeness, to_first)
        self.lowest_soft_iou = min(self.lowest_soft_iou, signals[Signal.SOFT_IOU])
        self.mean_soft_iou += RATE * (signals[Signal.SOFT_IOU] - self.mean_soft_iou)
        self.mean_peak += RATE * (signals[Signal.PEAK] - self.mean_peak)
        area = max(frame.area, 1.0)
        here, before = (frame.box, self.box) if frame.area and self.box else (None, None)
        jump = math.dist(_centre(here), _centre(before)) / math.sqrt(area) if here and before else 0.0
        overlap = _box_iou(here, before) if here and before else 1.0
        self.lowest_overlap = min(self.lowest_overlap, overlap)
        recent = sum(self.areas) / len(self.areas) if self.areas else max(self.prompt_area, 1.0)
        values = [
            *signals,
            *(signals[signal] - self.first[signal] for signal in _AGAINST_FIRST),
            self._against_first_likeness(signals),
            math.log(area / max(self.prompt_area, 1.0)),
            math.log(area / recent),
            math.log1p(jump),
            overlap,
            self.lowest_overlap,
            math.log1p(self.age),
            to_first,
            to_recent,
            self.lowest_likeness,
            self.mean_soft_iou,
            self.lowest_soft_iou,
            self.mean_peak,
            float(self.from_box),
        ]
        if frame.area:
            self.areas = [*self.areas, float(frame.area)][-RECENT:]
            self.box = frame.box
            self.recent_feature = (np.asarray(self.recent_feature) * (1 - RATE) + RATE * feature).tolist()
        shares = np.clip([values[place] for place in _SHARE_PLACES], *_SHARE_RANGE)
        return np.concatenate([values, np.log(shares / (1 - shares))])

    def _against_first_likeness(self, signals: Sequence[float]) -> float:
        """Return the change of the likeness to the prompt as a share of the first; scenes differ in how alike all is.

        NaN where an earlier version's history is gone on with, which does not know the first.
        """
        if len(self.first) <= Signal.LIKE_PROMPT:
            return math.nan
        first = self.first[Signal.LIKE_PROMPT]
        return (signals[Signal.LIKE_PROMPT] - first) / max(first, LEAST_LIKENESS)

    def judge(self, frame: TrackedFrame, quality: QualityMap) -> TrackedFrame:
        """Take the next frame up and return it with its quality, and with a state that says what to think of it.

        A mask that lies elsewhere rather than on its target is called `lost`, but stays as it was drawn; one of low
        quality `uncertain`.
        """
        inputs = self.inputs(frame)
        if inputs is None:
            return frame
        iou, on_target = (float(values[0]) for values in estimated(quality, inputs[None]))
        state = frame.state
        if state in ("tracked", "uncertain") and on_target < quality.lost_below:
            state = "lost"
        elif state == "tracked" and iou < quality.threshold:
            state = "uncertain"
        return replace(frame, quality=iou, state=state)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain values, for `restore`."""
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self).items()}

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> History:
        """Build the history of a `snapshot`."""
        own: dict[str, Any] = {
            name: list(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name != "centre"  # of the last box, in earlier versions
        }
        return cls(**own)


def expected_iou(quality: QualityMap, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the map's estimates, `[N] float64` between 0 and 1, of inputs `[N, len(INPUTS)]`."""
    return estimated(quality, inputs)[0]


def estimated(quality: QualityMap, inputs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what `expected_iou` does, and of its two factors the chance that the mask lies on its target at all.

    Both `[N] float64`; the chance is 1 by maps that do not say so.
    """
    inputs = inputs[:, [INPUTS.index(name) for name in quality.inputs]]
    low, high = np.array(quality.lowest), np.array(quality.highest)
    # What lies beyond everything that the map has seen is taken for the most extreme that it has seen.
    scaled = (np.clip(inputs, low, high) - quality.means) / quality.scales
    scaled = np.where(np.isnan(scaled), 0.0, scaled)  # what is not known counts as the mean of what is
    hidden = np.tanh(scaled @ np.array(quality.hidden).T + quality.hidden_bias)
    estimates = _share(hidden @ np.array(quality.output) + quality.output_bias)
    on_target = np.ones_like(estimates)
    if quality.on_target:
        on_target = _share(hidden @ np.array(quality.on_target) + quality.on_target_bias)
        estimates = estimates * on_target
    if (quality.stretch, quality.shift) != (1.0, 0.0):
        estimates = _share(quality.stretch * np.log(estimates / (1 - estimates)) + quality.shift)
    return estimates, on_target


def _share(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return shares


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2] / 2, box[1] + box[3] / 2)


def _box_iou(box: Box, other: Box) -> float:
    """Return the IoU of two boxes (x, y, w, h); 0 where neither has an area."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = box[2] * box[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def _likeness(feature: NDArray[np.float64], other: Sequence[float]) -> float:
    """Cosine of two features; 0 where one of them is nothing."""
    norm = float(np.linalg.norm(feature) * np.linalg.norm(other))
    return float(feature @ np.asarray(other)) / norm if norm > 0 else 0.0
