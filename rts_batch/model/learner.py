"""Applying a target model to features, and fitting it by steepest descent: what both branches share.

A target model is one convolution whose filter is learned for one target. Shapes, with N frames (samples of the memory),
S sequences (targets fitted side by side; 1 in the tracker, the batch in training), F filters of k×k over C channels:

* features x `[N, S, C, h, w]`
* filter `[S, F, C, k, k]`
* scores `[N, S, F, h', w']`, with h' = h for odd k and h + 1 for even k (zero padding ⌊k/2⌋ on all sides, spec
  rts-network §5)

The convolution is computed as one matrix product with all taps of the filter followed by `fold`, its adjoint (the
filter's gradient) as `unfold` followed by one matrix product: with F as small as 16 or 1 that is faster than a
convolution routine, and both are plain differentiable tensor operations, which training unrolls.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Linearise = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps scores to (data residual, its derivative by the scores), both shaped like the scores."""

MINIMUM_CURVATURE = 1e-8


def apply_filter(features: Tensor, filters: Tensor) -> Tensor:
    """Return the scores T(x): cross-correlation of `features` with `filters`, without bias (spec §5)."""
    frames, sequences, channels, height, width = features.shape
    count, kernel = filters.shape[1], filters.shape[-1]
    # `fold` lets tap t add to the output t places further, so the taps are laid out in reverse.
    taps = filters.flip(-2, -1).permute(0, 1, 3, 4, 2).reshape(sequences, count * kernel * kernel, channels)
    columns = taps @ features.flatten(-2)
    even = 1 - kernel % 2
    scores = functional.fold(columns.flatten(0, 1), (height + even, width + even), kernel, padding=(kernel - 1) // 2)
    return scores.unflatten(0, (frames, sequences))


def apply_adjoint(features: Tensor, residuals: Tensor, kernel: int) -> Tensor:
    """Return Xᵀ r, `[S, F, C, k, k]`: the gradient of ⟨r, T(x)⟩ by the filter. Adjoint of `apply_filter`."""
    sequences, count = residuals.shape[1:3]
    maps = residuals.flatten(0, 1)
    # On CUDA `unfold` launches a kernel for each sample.
    columns = windows(maps, kernel) if maps.is_cuda else functional.unfold(maps, kernel, padding=(kernel - 1) // 2)
    columns = columns.unflatten(0, residuals.shape[:2])
    gradient = (columns @ features.flatten(-2).transpose(-1, -2)).sum(0)
    return gradient.view(sequences, count, kernel, kernel, -1).flip(2, 3).permute(0, 1, 4, 2, 3)


def windows(maps: Tensor, kernel: int) -> Tensor:
    """Return what `functional.unfold` does of maps `[B, F, h', w']`, padded as in `apply_adjoint`, by two copies."""
    padding = (kernel - 1) // 2
    padded = functional.pad(maps, (padding, padding, padding, padding))
    views = padded.unfold(2, kernel, 1).unfold(3, kernel, 1)
    return views.permute(0, 1, 4, 5, 2, 3).flatten(-2).flatten(1, 3)


def steepest_descent(
    filters: Tensor, features: Tensor, linearise: Linearise, *, reg: Tensor | float, iterations: int
) -> list[Tensor]:
    """Minimise ½‖r(T(x))‖² + ½λ²‖filter‖² with Gauss-Newton steepest descent (paper eq. 4–5; spec rts-network §7.3).

    The step length is the exact minimum of the Gauss-Newton model along the negative gradient. T is linear, so the
    scores follow the filter (s ← s − α·T(g)) and one application and one adjoint an iteration are enough.

    Args:
        filters: θ⁰, `[S, F, C, k, k]`.
        features: x, `[N, S, C, h, w]`.
        linearise: the data residual and its slope at given scores.
        reg: λ, the weight of the regularisation residual λθ.
        iterations: how many steps.

    Returns:
        All iterates θ⁰ … θⁿ.
    """
    kernel = filters.shape[-1]
    iterates = [filters]
    scores = apply_filter(features, filters)
    for _ in range(iterations):
        residual, slope = linearise(scores)
        gradient = apply_adjoint(features, slope * residual, kernel) + reg**2 * filters
        change = apply_filter(features, gradient)
        gradient_norm = gradient.square().flatten(1).sum(1)
        curvature = (slope * change).square().transpose(0, 1).flatten(1).sum(1) + reg**2 * gradient_norm
        step = (gradient_norm / curvature.clamp(min=MINIMUM_CURVATURE)).view(-1, 1, 1, 1, 1)
        filters = filters - step * gradient
        scores = scores - step.transpose(0, 1) * change
        iterates.append(filters)
    return iterates
