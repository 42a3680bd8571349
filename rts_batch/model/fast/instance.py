"""The learner P_θ arranged for speed: κ's steps by Triton kernels on a GPU that runs them, else as they are."""

from __future__ import annotations

from torch import Tensor

from rts_batch.model.fast.launchable import kernels_for
from rts_batch.model.instance_model import InstanceModel


def fit(
    model: InstanceModel,
    filters: Tensor,
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    filled: Tensor | None = None,
    iterations: int,
) -> Tensor:
    """Return the last iterate of `InstanceModel.learn` for one target, `[1, 1, C, k, k]`.

    Args:
        model: whose constants count.
        filters: κ⁰.
        features: x_c, `[n, C, h, w]`.
        labels: Gaussian labels, `[n, h', w']`.
        weights: of the samples, `[n]`.
        filled: how many samples there are, `[1] int64`; the others have the weight zero, and kernels do not read them.
        iterations: steepest-descent steps.
    """
    kernels = kernels_for("kappa", features.device)
    if kernels is None or not kernels.takes(filters, features):
        found = model.learn(filters, features[:, None], labels[:, None], iterations=iterations, sample_weights=weights)
        return found[-1]
    constants = kernels.Constants(model.hinge_threshold, model.activation_leak, model.reg)
    return kernels.learn(filters, features, labels, weights, constants, filled=filled, iterations=iterations)
