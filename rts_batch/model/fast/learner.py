"""The few-shot learner A_θ arranged for speed: the same steps as `learner.steepest_descent`, for one target.

Samples lie on a grid with a border of zeros as wide as the filter reaches, pixel by pixel with a pixel's channels side
by side. On a CPU an application and its adjoint are oneDNN's convolutions of these maps as they lie (`Convolution`).
On a GPU a tap of the filter is a shift along one long row of pixels (`Taps`), whatever row, column or sample it
crosses: into the border go only values that the border's zero weight removes. An application is one matrix product with
all taps and nine shifted sums, its adjoint nine shifted copies and one matrix product; where Triton's kernels can run,
they do the same without the copies (`kernels/tau.py`).

The scores of the memory's samples are handed in and out, so that the learner need not compute them afresh: they follow
the filter in every step as it is.

Shapes, with n samples, C channels, F filters and P pixels of the bordered grid:

* features `[n, P, C]`
* labels, weights and scores `[n, F, P]`
* filter `[1, F, C, k, k]`, k odd
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from rts_batch.model.fast.launchable import kernels_for
from rts_batch.model.learner import MINIMUM_CURVATURE


class Samples(NamedTuple):
    """What the learner learns from."""

    features: Tensor
    """x, zero in the border."""
    labels: Tensor
    """E_θ(y)."""
    weights: Tensor
    """ω, zero in the border."""
    scores: Tensor
    """T(x) under the filter that the learner begins with."""
    filled: Tensor | None = None
    """How many of the samples there are, `[1] int64`, where those after them have the weight zero; all where absent.

    Kernels neither read nor write those after them, so an empty memory takes less time, and the host need not know.
    """


def border(values: Tensor, kernel: int) -> Tensor:
    """Return a map on the bordered grid, `[…, h, w]` → `[…, P]`."""
    reach = kernel // 2
    return functional.pad(values, (reach, reach, reach, reach)).flatten(-2)


def scores_of(features: Tensor, filters: Tensor, width: int, filled: Tensor | None = None) -> Tensor:
    """Return T(x), `[n, F, P]`, of features `[n, P, C]` on a grid `width` wide without its border.

    What it says of the border means nothing, nor what it says of samples after those that are `filled` (`Samples`).
    """
    kernels = _kernels_for(filters, features)
    if kernels is not None:
        return kernels.scores_of(features, filters, width, filled)
    model = _arranged(features, filters, width)
    return model.on_grid(model.apply(filters))


def fit(
    filters: Tensor, samples: Samples, *, width: int, reg: Tensor | float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Take steepest-descent steps on ½‖ω(T(x) − E)‖² + ½λ²‖filter‖² and return the filter and the scores under it.

    Args:
        filters: where to begin.
        samples: as they are.
        width: of the grid without its border, in pixels.
        reg: λ.
        iterations: how many steps.
    """
    kernels = _kernels_for(filters, samples.features)
    if kernels is not None:
        return kernels.fit(filters, samples, width=width, reg=reg, iterations=iterations)
    model = _arranged(samples.features, filters, width)
    labels, weights, scores = (model.laid_out(values) for values in samples[1:4])
    squared = weights.square()
    for _ in range(iterations):
        gradient = model.adjoint(squared * (scores - labels)) + reg**2 * filters
        change = model.apply(gradient)
        gradient_norm = gradient.square().sum()
        curvature = (squared * change.square()).sum() + reg**2 * gradient_norm
        step = gradient_norm / curvature.clamp(min=MINIMUM_CURVATURE)
        filters = filters - step * gradient
        scores = torch.addcmul(scores, step, change, value=-1)
    return filters, model.on_grid(scores)


def _kernels_for(filters: Tensor, features: Tensor) -> ModuleType | None:
    """The Triton kernels, where features are on a GPU that runs them and they are for such shapes."""
    kernels = kernels_for("tau", features.device)
    return kernels if kernels is not None and kernels.takes(filters, features) else None


def _arranged(features: Tensor, filters: Tensor, width: int) -> Convolution | Taps:
    """T of these features, by what is fastest on their device (`benchmarks/learner.py`)."""
    return (Taps if features.is_cuda else Convolution)(features, filters.shape[-1], width)


class Convolution:
    """T as a convolution; maps are `[n, F, h, w]`, without the border, channels last."""

    def __init__(self, features: Tensor, kernel: int, width: int) -> None:
        self.reach = kernel // 2
        self.line = width + 2 * self.reach
        self.kernel = kernel
        self.images = features.transpose(1, 2).unflatten(-1, (-1, self.line))
        """The features, border included, `[n, C, H, W]`: channels last as they lie."""

    def laid_out(self, values: Tensor) -> Tensor:
        """Return a map of the bordered grid as the steps want it."""
        r = self.reach
        inside = values.unflatten(-1, (-1, self.line))[..., r : -r or None, r : -r or None]
        return inside.contiguous(memory_format=torch.channels_last)

    def on_grid(self, values: Tensor) -> Tensor:
        """Return such a map on the bordered grid."""
        return border(values, self.kernel)

    def apply(self, filters: Tensor) -> Tensor:
        """T(x)."""
        return functional.conv2d(self.images, filters[0])

    def adjoint(self, residuals: Tensor) -> Tensor:
        """Xᵀ r, shaped like the filter."""
        shape = (residuals.shape[1], self.images.shape[1], self.kernel, self.kernel)
        return conv2d_weight(self.images, shape, residuals)[None]


class Taps:
    """T by the taps of the filter, as shifts along the pixels of the bordered grid; maps are `[F, n·P]`."""

    def __init__(self, features: Tensor, kernel: int, width: int) -> None:
        reach = kernel // 2
        line = width + 2 * reach
        self.samples = len(features)
        self.pixels = features.flatten(0, 1)
        """`[n·P, C]`."""
        self.kernel = kernel
        self.offsets = [dy * line + dx for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
        self.margin = reach * line + reach
        """Pixels at either end that lie in the border, and from which a tap would reach beyond the end."""

    def laid_out(self, values: Tensor) -> Tensor:
        """Return a map of the bordered grid as the steps want it."""
        return values.transpose(0, 1).flatten(1)

    def on_grid(self, values: Tensor) -> Tensor:
        """Return such a map on the bordered grid."""
        return values.view(len(values), self.samples, -1).transpose(0, 1)

    def apply(self, filters: Tensor) -> Tensor:
        """T(x)."""
        pixels = self.pixels
        rows = filters[0].permute(2, 3, 0, 1).reshape(-1, filters.shape[2])
        columns = (rows @ pixels.T).view(len(self.offsets), -1, len(pixels))
        scores = pixels.new_zeros(columns.shape[1:])
        inside = scores[:, self.margin : -self.margin]
        for column, offset in zip(columns, self.offsets, strict=True):
            inside += column[:, self.margin + offset : len(pixels) - self.margin + offset]
        return scores

    def adjoint(self, residuals: Tensor) -> Tensor:
        """Xᵀ r, shaped like the filter; the residuals are zero in the border."""
        pixels = self.pixels
        columns = residuals.new_zeros((len(self.offsets), *residuals.shape))
        inside = residuals[:, self.margin : -self.margin]
        for column, offset in zip(columns, self.offsets, strict=True):
            column[:, self.margin + offset : len(pixels) - self.margin + offset] = inside
        gradient = columns.flatten(0, 1) @ pixels
        return gradient.view(self.kernel, self.kernel, len(residuals), -1).permute(2, 3, 0, 1)[None]
