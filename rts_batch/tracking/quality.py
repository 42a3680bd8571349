"""What a tracked mask tells of itself, and the IoU with the truth that is to be expected of it.

`signals_of` measures the network's output where it was computed, as one vector that is read back with the mask. A
`History` sets each frame's vector beside those since the target's last prompt and turns them into the inputs of a
`QualityMap`. The paper has no such estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rts_batch.config import QualityMap
from rts_batch.masks import TrackedFrame

__all__ = ["INPUTS", "History", "Signal", "expected_iou", "signals_of"]

NEIGHBOURHOOD: Final = 4
"""Cells of the score map around its peak, to each side, in which no second peak is looked for."""
RECENT: Final = 8
"""Frames whose mean area a mask's is compared with."""
RATE: Final = 0.15
"""What a new frame counts for in running means."""


class Signal(IntEnum):
    """Where each measure lies in a vector of signals; the mean feature of the mask's pixels follows at `LENGTH`."""

    SOFT_IOU = 0
    """IoU of the mask with its own probabilities."""
    SOFTER_IOU = 1
    """The same of probabilities at a third of the logits."""
    CONFIDENCE = 2
    """Mean probability inside the mask."""
    STABLE_1 = 3
    """Area above logit 1 over the area above −1."""
    STABLE_3 = 4
    """Area above logit 3 over the area above −3."""
    UNSURE = 5
    """Sum of 4 p (1 − p) over the length of the outline: how many pixels wide the doubt is."""
    SIZE = 6
    """Logarithm of the mask's share of the search region."""
    EDGE = 7
    """Mask pixels on the search region's border over the length of the outline."""
    COMPACT = 8
    """Area over that of the ellipse with the same moments."""
    ROUGH = 9
    """Length of the outline over the root of the area."""
    PEAK = 10
    """Maximum of the score map."""
    SECOND = 11
    """The highest score away from the peak over the peak."""
    OFF_PEAK = 12
    """From the peak to the mask's centre, over the root of the area."""
    SEEN_AT_PEAK = 13
    """Probability around the peak."""
    EMPTY = 14
    """1 where there is no mask."""
    LENGTH = 15


def signals_of(logits: Tensor, score_map: Tensor, features: Tensor) -> Tensor:
    """Measure one target's output in its search region, without a value that the host has to know.

    Args:
        logits: of the mask, `[h, w] float`.
        score_map: s_c, `[h', w'] float`.
        features: x_s, `[C, h / 16, w / 16] float`.

    Returns:
        `[Signal.LENGTH + C] float32`.
    """
    logits, score_map, features = logits.float(), score_map.float(), features.float()
    mask, probabilities = (logits > 0).float(), torch.sigmoid(logits)
    coarse = functional.adaptive_avg_pool2d(probabilities[None], (features.shape[-2], features.shape[-1]))[0]
    measured = _measure_mask(logits, probabilities, mask) | _measure_scores(score_map, mask, coarse)
    mean = (features * coarse).sum((1, 2)) / coarse.sum().clamp(min=1e-3)
    return torch.cat([torch.stack([measured[signal].float() for signal in _SIGNALS]), mean])


def _measure_mask(logits: Tensor, probabilities: Tensor, mask: Tensor) -> dict[Signal, Tensor]:
    """How sure the mask is of itself, and its shape; all `[h, w] float32`."""
    area = mask.sum()
    some = area.clamp(min=1)
    outline = (mask[1:] - mask[:-1]).abs().sum() + (mask[:, 1:] - mask[:, :-1]).abs().sum()
    edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    length = (outline + edge).clamp(min=1)
    rows, columns = mask.sum(1), mask.sum(0)
    off_y, off_x = (
        torch.arange(len(profile), dtype=torch.float32, device=mask.device) - centre
        for profile, centre in zip((rows, columns), _centre_of(mask), strict=True)
    )
    var_y, var_x = (rows * off_y.square()).sum() / some, (columns * off_x.square()).sum() / some
    cov = (mask * off_y[:, None] * off_x).sum() / some
    return {
        Signal.SOFT_IOU: _soft_iou(probabilities, mask),
        Signal.SOFTER_IOU: _soft_iou(torch.sigmoid(logits / 3), mask),
        Signal.CONFIDENCE: (probabilities * mask).sum() / some,
        Signal.STABLE_1: (logits > 1).sum() / (logits > -1).sum().clamp(min=1),
        Signal.STABLE_3: (logits > 3).sum() / (logits > -3).sum().clamp(min=1),
        Signal.UNSURE: 4 * (probabilities * (1 - probabilities)).sum() / length,
        Signal.SIZE: torch.log(some / mask.numel()),
        Signal.EDGE: edge / length,
        Signal.COMPACT: area / (4 * math.pi * (var_y * var_x - cov.square()).clamp(min=0.01).sqrt()),
        Signal.ROUGH: length / some.sqrt(),
        Signal.EMPTY: (area == 0).float(),
    }


def _measure_scores(score_map: Tensor, mask: Tensor, coarse: Tensor) -> dict[Signal, Tensor]:
    """Whether the localisation branch agrees; `coarse` are the probabilities on the features' grid."""
    down, across = score_map.shape
    scores = score_map.flatten()
    place = scores.argmax(0, keepdim=True)
    peak = scores.gather(0, place)[0]
    row, column = torch.div(place, across, rounding_mode="floor")[0], torch.remainder(place, across)[0]
    rows, columns = (torch.arange(size, device=scores.device) for size in (down, across))
    near = ((rows - row).abs() <= NEIGHBOURHOOD)[:, None] & ((columns - column).abs() <= NEIGHBOURHOOD)
    height, width = mask.shape
    centre_y, centre_x = _centre_of(mask)
    off_y, off_x = row * (height / (down - 1)) - centre_y, column * (width / (across - 1)) - centre_x
    # A cell of the score map lies between four of the features'.
    around = functional.avg_pool2d(coarse[None], 2, stride=1, padding=1, count_include_pad=False)[0].flatten()
    return {
        Signal.PEAK: peak,
        Signal.SECOND: torch.where(near, 0.0, score_map).amax() / peak.clamp(min=0.05),
        Signal.OFF_PEAK: torch.hypot(off_y, off_x) / mask.sum().clamp(min=1).sqrt(),
        Signal.SEEN_AT_PEAK: around.gather(0, place.clamp(max=around.numel() - 1))[0],
    }


def _centre_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean row and column of a mask of 0 and 1, `[]` each; 0 where it is empty."""
    some = mask.sum().clamp(min=1)
    y, x = (torch.arange(size, dtype=torch.float32, device=mask.device) for size in mask.shape)
    return (mask.sum(1) * y).sum() / some, (mask.sum(0) * x).sum() / some


def _soft_iou(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Return the IoU of a mask of 0 and 1 with probabilities, `[] float32`; 0 where it is empty."""
    shared = (probabilities * mask).sum()
    return shared / (mask.sum().clamp(min=1) + (probabilities * (1 - mask)).sum())


_SIGNALS: Final = tuple(signal for signal in Signal if signal is not Signal.LENGTH)

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
    *(signal.name.lower() for signal in _SIGNALS),
    *(f"{signal.name.lower()}_against_first" for signal in _AGAINST_FIRST),
    "area_against_prompt",
    "area_against_recent",
    "jump",
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
    centre: tuple[float, float] | None = None
    """Of the last box, x and y in pixels."""
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
        return cls(prompt_area=float(frame.area), from_box=from_box, centre=_centre(frame))

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
        centre, area = _centre(frame), max(frame.area, 1.0)
        jump = math.dist(centre, self.centre) / math.sqrt(area) if centre and self.centre and frame.area else 0.0
        recent = sum(self.areas) / len(self.areas) if self.areas else max(self.prompt_area, 1.0)
        values = [
            *signals,
            *(signals[signal] - self.first[signal] for signal in _AGAINST_FIRST),
            math.log(area / max(self.prompt_area, 1.0)),
            math.log(area / recent),
            math.log1p(jump),
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
            self.centre = centre
            self.recent_feature = (np.asarray(self.recent_feature) * (1 - RATE) + RATE * feature).tolist()
        shares = np.clip([values[place] for place in _SHARE_PLACES], *_SHARE_RANGE)
        return np.concatenate([values, np.log(shares / (1 - shares))])

    def judge(self, frame: TrackedFrame, quality: QualityMap) -> TrackedFrame:
        """Take the next frame up and return it with its quality, and called `uncertain` where that is low."""
        inputs = self.inputs(frame)
        if inputs is None:
            return frame
        estimate = float(expected_iou(quality, inputs[None])[0])
        state = "uncertain" if frame.state == "tracked" and estimate < quality.threshold else frame.state
        return replace(frame, quality=estimate, state=state)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain values, for `restore`."""
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self).items()}

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> History:
        """Build the history of a `snapshot`."""
        own: dict[str, Any] = {
            name: list(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**own)


def expected_iou(quality: QualityMap, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the map's estimates, `[N] float64` between 0 and 1, of inputs `[N, len(INPUTS)]`."""
    inputs = inputs[:, [INPUTS.index(name) for name in quality.inputs]]
    low, high = np.array(quality.lowest), np.array(quality.highest)
    # What lies beyond everything that the map has seen is taken for the most extreme that it has seen.
    scaled = (np.clip(inputs, low, high) - quality.means) / quality.scales
    hidden = np.tanh(scaled @ np.array(quality.hidden).T + quality.hidden_bias)
    logits = hidden @ np.array(quality.output) + quality.output_bias
    estimates: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return estimates


def _centre(frame: TrackedFrame) -> tuple[float, float] | None:
    return None if frame.box is None else (frame.box[0] + frame.box[2] / 2, frame.box[1] + frame.box[3] / 2)


def _likeness(feature: NDArray[np.float64], other: Sequence[float]) -> float:
    """Cosine of two features; 0 where one of them is nothing."""
    norm = float(np.linalg.norm(feature) * np.linalg.norm(other))
    return float(feature @ np.asarray(other)) / norm if norm > 0 else 0.0
