"""The tracker that workers run: the plain one's results up to rounding, in less time.

It overrides what costs time and nothing else; each override says in which sense it is identical.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.model.fast.learner import Samples, border, fit, scores_of
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.branches import SegmentationBranch
from rts_batch.tracking.region import SearchRegion, enlarge, sample_pixels
from rts_batch.tracking.tracker import Tracker

REFRESH = 16
"""Samples between two full computations of the memory's scores, so that rounding cannot pile up."""


def fast_tracker(model: RTS, config: TrackerConfig, *, sta: STA | None = None) -> Tracker:
    """Make a tracker that gives the plain one's results up to rounding."""
    return FastTracker(model, config, sta=sta, segmentation=FastSegmentationBranch)


def _enlarge(values: Tensor, factor: float) -> Tensor:
    """`region.enlarge` by OpenCV, which rounds the size to the nearest number, not down."""
    if values.device.type != "cpu":
        return enlarge(values, factor)
    height, width = (int(factor * side) for side in values.shape)
    resized = cv2.resize(values.numpy(), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized)[:height, :width]


class FastTracker(Tracker):
    """Identical to the plain tracker but for rounding.

    OpenCV resizes the crops that it tracks in, and what is drawn there, in a third of PyTorch's time. It rounds the
    places that a pixel is mixed from less than PyTorch, whose float32 moves values of 0…255 by up to 0.01. A prompt's
    own crops are the plain tracker's: everything later follows from them.
    """

    _enlarge = staticmethod(_enlarge)

    def _crop(self, image: Tensor, region: SearchRegion) -> Tensor:
        if image.device.type != "cpu":
            return super()._crop(image, region)
        height, width = region.crop_size
        pixels = sample_pixels(image, region).float().numpy()
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(resized).permute(2, 0, 1)[None]


class FastSegmentationBranch(SegmentationBranch):
    """Identical to the plain branch but for rounding.

    The memory keeps features on the learner's bordered grid, and beside each sample its scores T_τ(x), which change
    with τ in every step of the learner and so are known when it runs the next time.
    """

    refresh = REFRESH

    def _samples(self, features: Tensor, labels: Tensor, weights: Tensor) -> dict[str, Tensor]:
        kernel = self.model.config.target_filter_size
        pixels = border(features, kernel).transpose(1, 2)
        labels, weights = border(labels, kernel), border(weights, kernel)
        scores = scores_of(pixels, self.tau, self._width)
        return {"features": pixels, "labels": labels, "weights": weights, "scores": scores}

    def restore(self, snapshot: Mapping[str, Any], device: torch.device) -> None:
        super().restore(snapshot, device)
        if "scores" not in self.memory.slots:  # a GPU's tracker keeps none
            self.memory.slots["scores"] = scores_of(self.memory.slots["features"], self.tau, self._width)

    @property
    def _width(self) -> int:
        return self.config.crop_size[1] // 16

    def _learn(self, iterations: int, *, first: bool = False) -> None:
        features, scores = self.memory.stored("features"), self.memory.stored("scores")
        refreshed = not first and self.memory.inserted % self.refresh == 0
        samples = Samples(
            features,
            self.memory.stored("labels"),
            self._weights(first=first),
            scores_of(features, self.tau, self._width) if refreshed else scores,
        )
        self.filters, followed = fit(
            self.tau,
            samples,
            width=self._width,
            reg=self.model.target_model.filter_optimizer.residual_module.filter_reg,
            iterations=iterations,
        )
        scores.copy_(followed)
