"""The learner of τ in Triton kernels: the steps of `learner.fit`, with six launches where that has some forty.

An application is one product with the features as they lie, `columns`, and one pass that sums the taps where they
belong, `gather`; its adjoint is one product with shifts in it, `correlate`, over shares of the pixels, which `gradient`
adds up. Nothing is copied once for each tap but the columns. Whether products may be rounded to TensorFloat-32 is
PyTorch's setting for matrix products; where they may not, each is three of rounded parts (`tf32x3`), as exact as
float32 is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import descent, products
from rts_batch.model.fast.kernels.filter_steps import FilterSteps, filled_of
from rts_batch.model.fast.kernels.sizes import blocks, power, precision
from rts_batch.model.fast.learner import Samples

COLUMNS = {"BLOCK_PIXELS": 64, "BLOCK_CHANNELS": 32}
CORRELATE = {"BLOCK_PIXELS": 32, "BLOCK_CHANNELS": 64}
"""Of the products' blocks that keep their sums in registers, with eight warps."""
PIXELS = 128
"""A block of the pixels of maps."""
PROGRAMS = 264
"""Of `correlate`: two for each multiprocessor of an H100; more shares are more to add up."""
ROWS = 144
"""Taps of all filters, at most: nine of sixteen."""


def takes(filters: Tensor, features: Tensor) -> bool:
    """Whether the kernels are for a filter `[1, F, C, k, k]` and features `[n, P, C]`."""
    rows = filters.shape[1] * filters.shape[-1] ** 2
    small = max(features.shape[-1], rows) * features.shape[0] * features.shape[1] < 1 << 31
    one_type = features.dtype == filters.dtype == torch.float32
    return small and one_type and features.is_contiguous() and filters.shape[-1] == 3 and 16 < rows <= ROWS


def try_launch(device: torch.device) -> None:
    """Build and run the kernels, with as many filters as they are for; raise whatever keeps them from that."""
    filters, features = torch.ones(1, 16, 16, 3, 3, device=device), torch.ones(1, 25, 16, device=device)
    found = scores_of(features, filters, 3)[0, 0, 12].item()
    # Where there are no features, the first step takes all that λ dislikes.
    maps = [torch.zeros(1, 16, 25, device=device)] * 3
    samples = Samples(torch.zeros_like(features), *maps)
    left = fit(filters, samples, width=3, reg=1.0, iterations=1)[0].abs().max().item()
    if (found, left) != (144, 0):
        raise RuntimeError(f"kernels ran and found {found} and {left} where it should be 144 and 0")


def scores_of(features: Tensor, filters: Tensor, width: int, filled: Tensor | None = None) -> Tensor:
    """`learner.scores_of`."""
    model = Shifts(features, filters, width, filled)
    scores = features.new_empty(len(features), model.filters, model.area)
    model.apply(model.rows_of(filters), scores)
    return scores


def fit(
    filters: Tensor, samples: Samples, *, width: int, reg: Tensor | float, iterations: int
) -> tuple[Tensor, Tensor]:
    """`learner.fit`."""
    features, labels, weights, scores, filled = samples
    if not iterations:
        return filters, scores
    model = Shifts(features, filters, width, filled)
    rows = model.rows_of(filters)
    factor = reg.reshape(1) if isinstance(reg, Tensor) else features.new_full((1,), reg)
    left = _Fit(model, labels.contiguous(), weights.contiguous(), factor)
    scores, steps = scores.contiguous(), left.steps
    for iteration in range(iterations):
        scores = left.residuals(scores, moves=iteration > 0)
        steps.gradient(model.correlate(left.residual), rows)
        model.apply(steps.slope, left.change, left.weights, steps.curvatures)
        steps.descend(rows)
    return model.filter_of(rows), left.residuals(scores, moves=True, left=False)


class Shifts:
    """T and its adjoint, of features `[n, P, C]`; a filter is `[taps · F, C]` here."""

    def __init__(self, features: Tensor, filters: Tensor, width: int, filled: Tensor | None) -> None:
        self.features = features
        self.filled = filled_of(features, filled)
        self.filters, self.channels, self.kernel = filters.shape[1:4]
        self.count = self.filters * self.kernel**2
        self.area = features.shape[1]
        self.total = len(features) * self.area
        self.line = width + 2 * (self.kernel // 2)
        large = power(self.count + 1) // 2
        self.product: dict[str, Any] = {
            **precision(),
            "LARGE": large,
            "SMALL": max(16, power(self.count - large)),
            "num_warps": 8,
        }
        self.shape = {"FILTERS": self.filters, "KERNEL": self.kernel}
        self.map = {"ROWS": power(self.filters), "BLOCK": PIXELS, "enable_fp_fusion": True}

    def rows_of(self, filters: Tensor) -> Tensor:
        """Return a copy of a filter `[1, F, C, k, k]`."""
        return (
            filters[0]
            .permute(2, 3, 0, 1)
            .reshape(self.count, self.channels)
            .clone(memory_format=torch.contiguous_format)
        )

    def filter_of(self, rows: Tensor) -> Tensor:
        """Return it as it was."""
        taps = rows.view(self.kernel, self.kernel, self.filters, self.channels)
        return taps.permute(2, 3, 0, 1).contiguous()[None]

    def apply(self, rows: Tensor, out: Tensor, weights: Tensor | None = None, curvatures: Tensor | None = None) -> None:
        """Write T(x), `[n, F, P]`; with weights ω as `[F, n·P]`, and Σ (ω · T(x))² of each block."""
        columns = rows.new_empty(self.count, self.total)
        products.columns[(blocks(self.total, COLUMNS["BLOCK_PIXELS"]),)](
            *(self.features, rows, columns, self.filled, self.total, self.area, self.channels, self.count),
            **self.product,
            **COLUMNS,
        )
        descent.gather[(blocks(self.total, PIXELS),)](
            *(columns, weights, out, curvatures, self.filled, self.total, self.area, self.line),
            **self.shape,
            **self.map,
            MEASURED=weights is not None,
        )

    def correlate(self, maps: Tensor) -> Tensor:
        """Return Xᵀ maps by shares of the pixels, `[shares, taps · F, C]`; maps are `[F, n·P]`, zero in the border."""
        across, step = blocks(self.channels, CORRELATE["BLOCK_CHANNELS"]), CORRELATE["BLOCK_PIXELS"]
        shares = blocks(self.total, step * blocks(self.total, step * blocks(PROGRAMS, across)))
        partial = maps.new_empty(shares, self.count, self.channels)
        products.correlate[(across, shares)](
            *(self.features, maps, partial, self.filled, self.total, self.area, self.channels, self.line, self.count),
            **self.shape,
            **self.product,
            **CORRELATE,
        )
        return partial


class _Fit:
    """What is left of the scores before and after each step; labels and weights are `[n, F, P]`, λ is `[1]`."""

    def __init__(self, model: Shifts, labels: Tensor, weights: Tensor, reg: Tensor) -> None:
        self.model = model
        self.labels, self.weights = labels, weights
        self.moved = torch.empty_like(labels)
        self.residual = labels.new_empty(model.filters, model.total)
        self.change = torch.empty_like(self.residual)
        self.steps = FilterSteps((model.count, model.channels), reg, blocks(model.total, PIXELS))

    def residuals(self, scores: Tensor, *, moves: bool, left: bool = True) -> Tensor:
        """Return the scores, after the last step where there was one, and keep what is left of them."""
        model, steps = self.model, self.steps
        descent.residuals[(blocks(model.total, PIXELS),)](
            *(scores, self.change, self.labels, self.weights, steps.norms, steps.curvatures, steps.reg),
            *(self.moved, self.residual, model.filled, model.total, model.area, *steps.counts),
            FILTERS=model.filters,
            **steps.sums,
            **model.map,
            MOVES=moves,
            LEFT=left,
        )
        return self.moved if moves else scores
