"""The segmentation branch: features F_θ, target model T_τ and few-shot learner A_θ (spec rts-network §4.1, §7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rts_batch.model.layers import FeatureBranch, init_normal
from rts_batch.model.learner import steepest_descent


class SegmentationResidual(nn.Module):
    """ω ⊙ (T_τ(x) − E), regularised by λ_s τ (paper eq. 1).

    λ_s is learned and used as it is; because the residual is squared, the paper's λ is its square.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filter_reg = nn.Parameter(torch.full((1,), 0.01))


class FewShotLearner(nn.Module):
    """A_θ: fits τ to encoded labels. Without parameters but for λ_s."""

    def __init__(self) -> None:
        super().__init__()
        self.residual_module = SegmentationResidual()

    def forward(
        self, filters: Tensor, features: Tensor, labels: Tensor, weights: Tensor, iterations: int
    ) -> list[Tensor]:
        """Return the iterates τ⁰ … τⁿ, each `[S, F, C, k, k]`.

        Args:
            filters: τ⁰.
            features: x_s of the memory, `[N, S, C, h, w]`.
            labels: E_θ(y), `[N, S, F, h, w]`.
            weights: ω = W_θ(y)·w with the temporal weight w (not its root, so it enters the loss squared, §7.1).
            iterations: steepest-descent steps.
        """

        def linearise(scores: Tensor) -> tuple[Tensor, Tensor]:
            return weights * (scores - labels), weights

        reg = self.residual_module.filter_reg
        return steepest_descent(filters, features, linearise, reg=reg, iterations=iterations)


class TargetModel(nn.Module):
    """F_θ, the shape of T_τ, and A_θ.

    Args:
        in_channels: of the backbone map; 0 leaves F_θ out (STA's second learner shares the first one's features).
    """

    def __init__(self, in_channels: int, feature_dim: int, num_filters: int, filter_size: int) -> None:
        super().__init__()
        if in_channels:
            self.feature_extractor = FeatureBranch(in_channels, feature_dim, stride=1)
            init_normal(self.feature_extractor)
        self.filter_optimizer = FewShotLearner()
        self.filter_shape = (num_filters, feature_dim, filter_size, filter_size)

    def learn(
        self, features: Tensor, labels: Tensor, weights: Tensor, *, iterations: int, start: Tensor | None = None
    ) -> list[Tensor]:
        """Return the iterates of τ from `start`, or from zero (§7.2). Shapes as in `FewShotLearner.forward`."""
        if start is None:
            start = features.new_zeros((features.shape[1], *self.filter_shape))
        iterates: list[Tensor] = self.filter_optimizer(start, features, labels, weights, iterations)
        return iterates
