"""The few-shot learner A_θ arranged for speed: the same steps as `learner.steepest_descent`, for one target.

Samples lie on a grid with a border of zeros as wide as the filter reaches. Then a tap of the filter is a shift along
one long row of pixels, whatever row, column or sample it crosses: into the border go only values that the border's zero
weight removes. An application is one matrix product with all taps and nine shifted sums, its adjoint nine shifted
copies and one matrix product.

The scores of the memory's samples are handed in and out, so that the learner need not compute them afresh: they follow
the filter in every step as it is.

Shapes, with n samples, C channels, F filters and P pixels of the bordered grid:

* features `[n, P, C]`
* labels, weights and scores `[n, F, P]`
* filter `[1, F, C, k, k]`, k odd
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rts_batch.model.learner import MINIMUM_CURVATURE


def border(values: Tensor, kernel: int) -> Tensor:
    """Return a map on the bordered grid, `[…, h, w]` → `[…, P]`."""
    reach = kernel // 2
    return functional.pad(values, (reach, reach, reach, reach)).flatten(-2)


def scores_of(features: Tensor, filters: Tensor, width: int) -> Tensor:
    """Return T(x), `[n, F, P]`, of features `[n, P, C]` on a grid `width` wide without its border."""
    count, pixels, _ = features.shape
    applied = _Taps(filters.shape[-1], width).apply(features.flatten(0, 1), filters)
    return applied.view(-1, count, pixels).transpose(0, 1)


def fit(
    filters: Tensor,
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    scores: Tensor,
    *,
    width: int,
    reg: Tensor | float,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Take steepest-descent steps on ½‖ω(T(x) − E)‖² + ½λ²‖filter‖² and return the filter and the scores under it.

    Args:
        filters: where to begin.
        features: x, zero in the border.
        labels: E_θ(y).
        weights: ω, zero in the border.
        scores: T(x) under `filters`.
        width: of the grid without its border, in pixels.
        reg: λ.
        iterations: how many steps.
    """
    taps = _Taps(filters.shape[-1], width)
    pixels = features.flatten(0, 1)
    labels, weights, scores = (values.transpose(0, 1).flatten(1) for values in (labels, weights, scores))
    squared = weights.square()
    for _ in range(iterations):
        gradient = taps.adjoint(pixels, squared * (scores - labels)) + reg**2 * filters
        change = taps.apply(pixels, gradient)
        gradient_norm = gradient.square().sum()
        curvature = (squared * change.square()).sum() + reg**2 * gradient_norm
        step = gradient_norm / curvature.clamp(min=MINIMUM_CURVATURE)
        filters = filters - step * gradient
        scores = torch.addcmul(scores, step, change, value=-1)
    return filters, scores.view(len(scores), len(features), -1).transpose(0, 1)


class _Taps:
    """The taps of a k×k filter as shifts along the pixels of a bordered grid."""

    def __init__(self, kernel: int, width: int) -> None:
        reach = kernel // 2
        line = width + 2 * reach
        self.kernel = kernel
        self.offsets = [dy * line + dx for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
        self.margin = reach * line + reach
        """Pixels at either end that lie in the border, and from which a tap would reach beyond the end."""

    def apply(self, pixels: Tensor, filters: Tensor) -> Tensor:
        """T(x), `[F, n·P]`, of pixels `[n·P, C]`."""
        rows = filters[0].permute(2, 3, 0, 1).reshape(-1, filters.shape[2])
        columns = (rows @ pixels.T).view(len(self.offsets), -1, len(pixels))
        scores = pixels.new_zeros(columns.shape[1:])
        inside = scores[:, self.margin : -self.margin]
        for column, offset in zip(columns, self.offsets, strict=True):
            inside += column[:, self.margin + offset : len(pixels) - self.margin + offset]
        return scores

    def adjoint(self, pixels: Tensor, residuals: Tensor) -> Tensor:
        """Xᵀ r, `[1, F, C, k, k]`, of pixels `[n·P, C]` and residuals `[F, n·P]`, which are zero in the border."""
        columns = residuals.new_zeros((len(self.offsets), *residuals.shape))
        inside = residuals[:, self.margin : -self.margin]
        for column, offset in zip(columns, self.offsets, strict=True):
            column[:, self.margin + offset : len(pixels) - self.margin + offset] = inside
        gradient = columns.flatten(0, 1) @ pixels
        return gradient.view(self.kernel, self.kernel, len(residuals), -1).permute(2, 3, 0, 1)[None]
