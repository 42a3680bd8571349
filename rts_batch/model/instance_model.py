"""The localisation branch: features G_θ, model predictor P_θ and instance model T_κ (spec rts-network §4.2, §8)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from rts_batch.model.layers import FeatureBranch, init_normal
from rts_batch.model.learner import steepest_descent

FEATURE_STRIDE_OF_POOLING = 16
"""x_c has stride 32, but the released network pools with 1/16; its weights were trained so (§8.1)."""


def prroi_pool(features: Tensor, boxes: Tensor, size: int, *, scale: float) -> Tensor:
    """Precise RoI pooling: the exact mean over each bin of the bilinearly interpolated map (§8.2).

    The integral of a bilinear surface over a rectangle is separable, so pooling is a product with one matrix a side.
    The surface falls to zero within one cell outside the map.

    Corners, the size of a bin and each bin's edge are rounded to float32 in the published operator's order, and only
    the integrals are taken in float64 (§8.2). A first-frame box is centred on the point where the surface reaches zero
    (§8.1), so one unit in the last place of an edge decides whether a bin holds a sliver of the surface or nothing. Of
    a sliver, whose weight of 1e-13 float32 would lose beside 1, κ⁰ has the mean; of nothing it is zero, and so are the
    scores at the map's edge, whose sign the first step on κ uses.

    Args:
        features: `[B, C, H, W]`.
        boxes: `[B, 4]` as x, y, w, h in pixels of the crop; taken as float32.
        size: bins a side.
        scale: features per pixel.

    Returns:
        `[B, C, size, size]`; zero where a box has no area.
    """
    corner, extent = boxes.float().split(2, dim=1)
    start, end = corner * scale, (corner + extent) * scale
    bins = (end - start).clamp(min=0) / size
    edges = start + torch.arange(size + 1, device=boxes.device)[:, None, None] * bins
    across, down = (_bin_weights(edges[..., axis].T, features.shape[-1 - axis]).to(boxes.dtype) for axis in (0, 1))
    integral = down[:, None] @ features @ across[:, None].transpose(-1, -2)
    area = bins.prod(1).to(boxes.dtype).view(-1, 1, 1, 1)
    return torch.where(area > 0, integral / torch.where(area > 0, area, 1.0), 0.0)


def _bin_weights(edges: Tensor, length: int) -> Tensor:
    """`[B, bins, length] float64`: integral over each bin between `edges`, `[B, bins + 1]`, of each point's hat."""
    offset = edges.double()[:, :, None] - torch.arange(length, device=edges.device, dtype=torch.float64)
    inside = offset.clamp(-1, 1)
    integral = torch.where(inside < 0, 0.5 * (inside + 1).square(), 1 - 0.5 * (1 - inside).square())
    return integral[:, 1:] - integral[:, :-1]


def gaussian_labels(centres: Tensor, feature_size: tuple[int, int], filter_size: int, *, sigma_factor: float) -> Tensor:
    """Gaussian score-map labels y_c (spec rts-tracker §5.3).

    Args:
        centres: `[B, 2]` (y, x) in cells from the middle of the feature map; callers add 0.5 for an even filter.
        feature_size: (h, w) of x_c; an even filter makes the label one larger.
        sigma_factor: times √(h·w) is σ in cells (callers fold their search area into it).

    Returns:
        `[B, h', w'] float32`.
    """
    sigma = sigma_factor * (feature_size[0] * feature_size[1]) ** 0.5
    even = 1 - filter_size % 2
    profiles = []
    for axis, length in enumerate(feature_size):
        cells = torch.arange(-(length - 1) / 2, (length + 1) / 2 + even - 0.5, device=centres.device)
        profiles.append(torch.exp(-0.5 * (cells - centres[:, axis : axis + 1]).square() / sigma**2))
    return profiles[0][:, :, None] * profiles[1][:, None, :]


def labels_in_crop(
    offsets: Tensor,
    crop_size: tuple[int, int],
    feature_size: tuple[int, int],
    filter_size: int,
    *,
    sigma_factor: float,
) -> Tensor:
    """`gaussian_labels` for targets whose centres lie `offsets`, `[B, 2]` crop pixels (y, x), off the crop's centre."""
    # Plain numbers, since tensors of them would make a GPU wait for the copy.
    cells = torch.stack(
        [
            length * offset / pixels + (0.5 if filter_size % 2 == 0 else 0.0)
            for length, pixels, offset in zip(feature_size, crop_size, offsets.unbind(-1), strict=True)
        ],
        dim=-1,
    )
    return gaussian_labels(cells, feature_size, filter_size, sigma_factor=sigma_factor)


class FilterInitializer(nn.Module):
    """κ⁰: a convolution of x_c pooled inside the target's box, averaged over the first samples (§8.1)."""

    def __init__(self, feature_dim: int, filter_size: int) -> None:
        super().__init__()
        self.filter_size = filter_size
        self.filter_conv = nn.Conv2d(feature_dim, feature_dim, 3, padding=1)
        init_normal(self)
        nn.init.zeros_(cast(Tensor, self.filter_conv.bias))

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """x_c `[N, S, C, h, w]` and boxes `[N, S, 4]` (x, y, w, h in crop pixels) → `[S, 1, C, k, k]`."""
        convolved = self.filter_conv(features.flatten(0, 1))
        pooled = prroi_pool(convolved, boxes.flatten(0, 1), self.filter_size, scale=1 / FEATURE_STRIDE_OF_POOLING)
        return pooled.unflatten(0, features.shape[:2]).mean(0)[:, None]


class InstanceModel(nn.Module):
    """G_θ and P_θ. The optimiser of P_θ has constants only: hinge threshold, slope of its second half and λ_c."""

    def __init__(
        self,
        in_channels: int,
        feature_dim: int,
        filter_size: int,
        *,
        hinge_threshold: float,
        activation_leak: float,
        reg: float,
    ) -> None:
        super().__init__()
        self.filter_initializer = FilterInitializer(feature_dim, filter_size)
        self.feature_extractor = FeatureBranch(in_channels, feature_dim, stride=2)
        init_normal(self.feature_extractor)
        self.hinge_threshold = hinge_threshold
        self.activation_leak = activation_leak
        self.reg = reg

    def learn(
        self,
        filters: Tensor,
        features: Tensor,
        labels: Tensor,
        *,
        iterations: int,
        sample_weights: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the iterates κ⁰ … κⁿ under the hinge-like residual of eq. 2 (§8.3).

        Args:
            filters: κ⁰, `[S, 1, C, k, k]`.
            features: x_c, `[N, S, C, h, w]`.
            labels: Gaussian labels, `[N, S, h', w']`.
            iterations: steepest-descent steps.
            sample_weights: temporal weights, `[N]`; equal where absent.
        """
        labels = labels[:, :, None]
        target = ((labels > self.hinge_threshold).to(labels.dtype) + self.activation_leak).clamp(max=1)
        if sample_weights is None:
            weight = labels.new_full((), 1 / features.shape[0]).sqrt()
        else:
            weight = sample_weights.sqrt().view(-1, 1, 1, 1, 1)

        def linearise(scores: Tensor) -> tuple[Tensor, Tensor]:
            # Inside the target region the residual is linear, outside negative scores count a tenth.
            slope = 0.5 * (1 - target) * torch.sign(scores) + 0.5 * (1 + target)
            return weight * (slope * scores - target * labels), weight * slope

        return steepest_descent(filters, features, linearise, reg=self.reg, iterations=iterations)
