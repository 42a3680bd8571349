"""The losses of RTS (paper eq. 3; spec rts-training §6). Each is a plain function of tensors, differentiable twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HINGE_THRESHOLD = 0.05


def lovasz_sigmoid(logits: Tensor, masks: Tensor) -> Tensor:
    """The Lovász extension of the foreground's Jaccard loss on sigmoid probabilities: one value over all pixels.

    With the errors e = |g − σ(logit)| sorted downwards, each error is weighted by how much the Jaccard loss grows when
    its pixel joins the wrong ones. The growth is written out instead of differencing J, which would cancel: a batch
    of the paper has 18 million pixels. Without a single foreground pixel the loss is the largest error.

    Args:
        logits: any shape.
        masks: the same shape, 1 on the object and 0 elsewhere (anything but 1 counts as background).

    Returns:
        A scalar in 0…1.
    """
    foreground = (masks == 1).flatten()
    errors = (foreground.to(logits.dtype) - torch.sigmoid(logits.flatten())).abs()
    errors, order = errors.sort(descending=True)
    # In float64: in float32 the order of millions of summands moves the sum by 2e-5, from processor to processor.
    return (errors.double() @ _jaccard_growth(foreground[order])).to(errors.dtype)


@torch.no_grad()
def _jaccard_growth(foreground: Tensor) -> Tensor:
    """`[P] bool`, sorted by error → `[P] float64`, the growth of the Jaccard loss at each pixel."""
    total = foreground.sum()
    found = foreground.cumsum(0)
    place = torch.arange(1, foreground.numel() + 1, device=foreground.device)
    intersection = (total - found).double()
    union = (total + place - found).double()
    growth = torch.where(foreground, 1 / union, intersection / (union * (union - 1).clamp(min=1)))
    growth[0] = 1 - intersection[0] / union[0]
    return growth


def hinge_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """L_c, the hinge-like loss of score maps: squared error inside the target, only positive scores count outside.

    Where the label is below `HINGE_THRESHOLD` the goal is 0, not the label. The mean is over all elements (§6.3).

    Args:
        scores: `[N, S, h, w]`.
        labels: Gaussian labels, same shape.
    """
    inside = labels >= HINGE_THRESHOLD
    residual = torch.where(inside, scores - labels, scores.relu())
    return residual.square().mean()


def localisation_loss(iterates: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return the sum of L_c over the score maps of every iterate κ⁰ … κⁿ (§6.4)."""
    return torch.stack([hinge_loss(scores, labels) for scores in iterates]).sum()


@torch.no_grad()
def mask_jaccard(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean Jaccard index of the predicted masks, logged only. Shapes `[N, S, H, W]`; two empty masks: 1."""
    predicted, true = logits > 0, masks == 1
    union = (predicted | true).sum((-2, -1))
    shared = (predicted & true).sum((-2, -1))
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0).mean()


@torch.no_grad()
def peak_accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the share of score maps `[N, S, h, w]` whose peak lies where the label is at least 0.25, logged only."""
    place = scores.flatten(-2).argmax(-1, keepdim=True)
    return (labels.flatten(-2).gather(-1, place) >= 0.25).float().mean()
