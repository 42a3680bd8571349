"""The tracker that workers run: the plain one's results up to rounding, in less time.

It overrides what costs time and nothing else; each override says in which sense it is identical.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.model.fast.learner import border, fit, scores_of
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.branches import SegmentationBranch
from rts_batch.tracking.tracker import Tracker

REFRESH = 16
"""Samples between two full computations of the memory's scores, so that rounding cannot pile up."""


def fast_tracker(model: RTS, config: TrackerConfig, *, sta: STA | None = None) -> Tracker:
    """Make the plain tracker with the segmentation branch below: the same but for rounding."""
    return Tracker(model, config, sta=sta, segmentation=FastSegmentationBranch)


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
        self.filters, followed = fit(
            self.tau,
            features,
            self.memory.stored("labels"),
            self._weights(first=first),
            scores_of(features, self.tau, self._width) if refreshed else scores,
            width=self._width,
            reg=self.model.target_model.filter_optimizer.residual_module.filter_reg,
            iterations=iterations,
        )
        scores.copy_(followed)
