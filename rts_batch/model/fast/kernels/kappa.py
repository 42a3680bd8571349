"""The learner of κ in Triton kernels: the steps of `InstanceModel.learn` in six launches each, however many samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rts_batch.model.fast.kernels import hinge
from rts_batch.model.fast.kernels.filter_steps import FilterSteps, filled_of
from rts_batch.model.fast.kernels.sizes import blocks, precision

KERNEL = 4
COLUMNS = {"KERNEL": KERNEL, "BLOCK_PIXELS": 64, "BLOCK_CHANNELS": 32}
CORRELATE = {"KERNEL": KERNEL, "BLOCK_PIXELS": 32, "BLOCK_CHANNELS": 64}
PIXELS = 128
"""A block of a score map."""


class Constants(NamedTuple):
    """Of an `InstanceModel`."""

    threshold: float
    """Where the target begins, in a label."""
    leak: float
    """What the rest counts."""
    reg: float
    """λ."""


def takes(filters: Tensor, features: Tensor) -> bool:
    """Whether the kernels are for a filter `[1, 1, C, k, k]` and features `[n, C, h, w]`."""
    small = features.numel() < 1 << 31 and len(features) < 1 << 16
    one_type = features.dtype == filters.dtype == torch.float32
    return (
        small and one_type and features.is_contiguous() and filters.shape[:2] == (1, 1) and filters.shape[-1] == KERNEL
    )


def try_launch(device: torch.device) -> None:
    """Build and run the kernels on a few numbers; raise whatever keeps them from that."""
    features, filters = torch.zeros(1, 16, 4, 4, device=device), torch.ones(1, 1, 16, 4, 4, device=device)
    labels, weights = torch.zeros(1, 5, 5, device=device), torch.ones(1, device=device)
    # Where there are no features, the first step takes all that λ dislikes.
    left = learn(filters, features, labels, weights, Constants(0.05, 0.1, 1.0), iterations=1).abs().max().item()
    if left != 0:
        raise RuntimeError(f"kernels ran and left {left} of a filter that should be gone")


def learn(
    filters: Tensor,
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    constants: Constants,
    *,
    filled: Tensor | None = None,
    iterations: int,
) -> Tensor:
    """Return the last iterate of `InstanceModel.learn`, `[1, 1, C, 4, 4]`.

    Args:
        filters: κ⁰, `[1, 1, C, 4, 4]`.
        features: x_c, `[n, C, h, w]`.
        labels: `[n, h + 1, w + 1]`.
        weights: of the samples, `[n]`.
        constants: of the model.
        filled: how many of the samples there are, `[1] int64`; the others are not read. All where absent.
        iterations: how many steps.
    """
    rows = filters[0, 0].permute(1, 2, 0).reshape(KERNEL**2, -1).clone(memory_format=torch.contiguous_format)
    filled = filled_of(features, filled)
    fit = _Fit(features, labels.contiguous(), weights, filled, features.new_full((1,), constants.reg))
    fit.apply(rows, fit.scores)
    for iteration in range(iterations):
        fit.residuals(constants.threshold, constants.leak, moves=iteration > 0)
        fit.steps.gradient(fit.correlate(), rows, filled)
        fit.apply(fit.steps.slope, fit.change, measured=True)
        fit.steps.descend(rows)
    return rows.view(KERNEL, KERNEL, -1).permute(2, 0, 1).contiguous()[None, None]


class _Fit:
    """What the steps compute, and where."""

    def __init__(self, features: Tensor, labels: Tensor, weights: Tensor, filled: Tensor, reg: Tensor) -> None:
        self.features, self.labels, self.weights, self.filled = features, labels, weights, filled
        self.count, self.channels, self.height, self.width = features.shape
        self.size = (self.height + 1) * (self.width + 1)
        self.scores, self.change, self.slopes, self.residual = (torch.empty_like(labels) for _ in range(4))
        self.parts = (blocks(self.size, PIXELS), self.count)
        self.steps = FilterSteps((KERNEL**2, self.channels), reg, self.parts[0] * self.count)

    def apply(self, rows: Tensor, out: Tensor, *, measured: bool = False) -> None:
        """Write T(x), and with `measured` the blocks' sums for the curvature along it."""
        area = self.height * self.width
        columns = rows.new_empty(self.count, KERNEL**2, area)
        hinge.columns[(blocks(area, COLUMNS["BLOCK_PIXELS"]), self.count)](
            *(self.features, rows, columns, self.filled, area, self.channels), **precision(), **COLUMNS
        )
        hinge.gather[self.parts](
            *(columns, self.slopes, out, self.steps.curvatures, self.filled, self.height, self.width),
            KERNEL=KERNEL,
            MEASURED=measured,
            BLOCK=PIXELS,
            enable_fp_fusion=True,
        )

    def residuals(self, threshold: float, leak: float, *, moves: bool) -> None:
        """Find what is left of the scores, after the last step where there was one, and its slope."""
        steps = self.steps
        hinge.residuals[self.parts](
            *(self.scores, self.change, self.labels, self.weights, steps.norms, steps.curvatures, steps.reg),
            *(self.slopes, self.residual, self.filled, self.size, threshold, leak, *steps.counts),
            **steps.sums,
            MOVES=moves,
            BLOCK=PIXELS,
            enable_fp_fusion=True,
        )

    def correlate(self) -> Tensor:
        """Return what the residuals say of the slope, sample by sample, `[n, 16, C]`."""
        partial = self.features.new_empty(self.count, KERNEL**2, self.channels)
        hinge.correlate[(blocks(self.channels, CORRELATE["BLOCK_CHANNELS"]), self.count)](
            *(self.features, self.residual, partial, self.filled, self.height, self.width, self.channels),
            **precision(),
            **CORRELATE,
        )
        return partial
