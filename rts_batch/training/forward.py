"""The network in training: both learners unrolled on the train frames, judged on the test frames (spec §12.2, §7).

The steps are functions of their own, so that another recipe can put an auxiliary loss or a further input between them.
Gradients flow through every step of both learners into everything but what `rules="paper"` says it cuts off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rts_batch.config import Rules
from rts_batch.model.instance_model import labels_in_crop
from rts_batch.model.rts import RTS, Features
from rts_batch.model.sta import STA
from rts_batch.training.clips.batches import Batch
from rts_batch.training.settings import Localisation


@dataclass(frozen=True)
class Encoded:
    """What the backbone and both feature branches see of a batch, split into train and test frames."""

    train: Features
    test: Features
    sequences: int

    def x_s(self, part: Features) -> Tensor:
        """`[N, S, C, h, w]`."""
        return part.segmentation.unflatten(0, (-1, self.sequences))

    def x_c(self, part: Features) -> Tensor:
        """`[N, S, C, h', w']`."""
        return part.localisation.unflatten(0, (-1, self.sequences))


@dataclass(frozen=True)
class Prediction:
    logits: Tensor
    """Mask logits of the test frames, `[N, S, H, W]`."""
    scores: list[Tensor]
    """Score maps of the test frames under κ⁰ … κⁿ, each `[N, S, h', w']`; empty without localisation."""
    labels: Tensor | None
    """The score maps' Gaussian labels, `[N, S, h', w']`; None without localisation."""


def rts_forward(
    model: RTS,
    batch: Batch,
    *,
    rules: Rules = "code",
    localisation: Localisation = "fused",
    iterations: int = 5,
    refinement_iterations: int = 2,
    sigma_factor: float = 0.05,
) -> Prediction:
    """Run the training forward pass of RTS, or of LWL with `localisation="off"`.

    Args:
        model: the network.
        batch: train and test frames.
        rules: `code`: every test frame is segmented with the first frame's filter, as in the released training, which
            computes a refined filter and never applies it; `paper`: τ is refined between frames (eq. 3–5).
        localisation: `fused`: the decoder sees the scores; `beside`: trained, but the decoder does not see them
            (Table 1); `off`: left out.
        iterations: steepest-descent steps of both learners on the train frames.
        refinement_iterations: steps of A_θ after each test frame (`rules="paper"`).
        sigma_factor: of the Gaussian labels, see `score_labels`.
    """
    encoded = encode(model, batch)
    scores: list[Tensor] = []
    labels = None
    if localisation != "off":
        labels = score_labels(model, batch, encoded, sigma_factor=sigma_factor)
        scores = locate(model, batch, encoded, labels, iterations=iterations)
        labels = labels[batch.train_frames :]
    score_map = scores[-1] if localisation == "fused" else None
    memory = target_memory(model, batch, encoded)
    tau = model.target_model.learn(*memory, iterations=iterations)[-1]
    previous = None if batch.previous is None else batch.previous[batch.train_frames :]
    if rules == "code":
        logits = model.segment(encoded.x_s(encoded.test), encoded.test.maps, tau, score_map, previous_mask=previous)
    else:
        logits = segment_refining(
            model, encoded, memory, tau, score_map, iterations=refinement_iterations, previous=previous
        )
    return Prediction(logits, scores, labels)


def encode(model: RTS, batch: Batch) -> Encoded:
    """Run B_θ, F_θ and G_θ on all frames at once."""
    features = model.extract(batch.images.flatten(0, 1))
    count = batch.train_frames * batch.sequences

    def part(place: slice) -> Features:
        maps = {layer: values[place] for layer, values in features.maps.items()}
        return Features(maps, features.segmentation[place], features.localisation[place])

    return Encoded(part(slice(count)), part(slice(count, None)), batch.sequences)


def score_labels(model: RTS, batch: Batch, encoded: Encoded, *, sigma_factor: float) -> Tensor:
    """Return the Gaussian labels of all frames, `[N, S, h', w']`, centred on the boxes (spec rts-training §6.1).

    σ = `sigma_factor`·√(h·w) cells of x_c. Zero everywhere for a box of negative extent (target absent).
    """
    crop_size = (batch.images.shape[-2], batch.images.shape[-1])
    return score_labels_in(model, batch.boxes, encoded.test.localisation, crop_size, sigma_factor=sigma_factor)


def score_labels_in(
    model: RTS, boxes: Tensor, x_c: Tensor, crop_size: tuple[int, int], *, sigma_factor: float
) -> Tensor:
    """`score_labels` of boxes `[N, S, 4]` in crops of `crop_size`, for feature maps of the size of `x_c`'s."""
    flat = boxes.flatten(0, 1)
    middle = (flat[:, :2] + 0.5 * flat[:, 2:]).flip(-1)
    offsets = torch.stack(
        [place - 0.5 * pixels for pixels, place in zip(crop_size, middle.unbind(-1), strict=True)], dim=-1
    )
    feature_size = (x_c.shape[-2], x_c.shape[-1])
    filter_size = model.config.localisation_filter_size
    labels = labels_in_crop(offsets, crop_size, feature_size, filter_size, sigma_factor=sigma_factor)
    present = (flat[:, 2:] >= 0).all(-1)
    return (labels * present[:, None, None]).unflatten(0, (-1, boxes.shape[1]))


def locate(model: RTS, batch: Batch, encoded: Encoded, labels: Tensor, *, iterations: int) -> list[Tensor]:
    """Fit κ to the train frames (P_θ) and return the test frames' score maps under every iterate κ⁰ … κⁿ.

    `labels` are those of all frames, as from `score_labels`.
    """
    x_c = encoded.x_c(encoded.train)
    start = model.classifier.filter_initializer(x_c, batch.boxes[: batch.train_frames])
    kappas = model.classifier.learn(start, x_c, labels[: batch.train_frames], iterations=iterations)
    return [model.localise(encoded.x_c(encoded.test), kappa) for kappa in kappas]


Memory = tuple[Tensor, Tensor, Tensor]
"""x_s `[N, S, C, h, w]`, labels E_θ(y) and weights W_θ(y) `[N, S, F, h, w]`: what A_θ fits τ to."""


def target_memory(model: RTS, batch: Batch, encoded: Encoded) -> Memory:
    """Encode the train frames' masks."""
    labels, weights = model.label_encoder(batch.masks[: batch.train_frames])
    return encoded.x_s(encoded.train), labels, weights


def segment_refining(
    model: RTS,
    encoded: Encoded,
    memory: Memory,
    tau: Tensor,
    score_map: Tensor | None,
    *,
    iterations: int,
    previous: Tensor | None = None,
) -> Tensor:
    """Segment the test frames in order and refine τ between them (paper eq. 3–5); return the logits `[N, S, H, W]`.

    Frame j is segmented with τ^{j−1}; its probabilities, cut off from the gradient, join the memory, and A_θ goes on
    from τ^{j−1} to τ^j. `previous` are the previous frames' masks, `[N, S, H, W]`, for networks that read them.
    """

    def of_frame(values: Tensor | None, j: int) -> Tensor | None:
        return None if values is None else values[j : j + 1]

    x_s = encoded.x_s(encoded.test)
    size = encoded.sequences
    logits = []
    for j in range(x_s.shape[0]):
        maps = {layer: values[j * size : (j + 1) * size] for layer, values in encoded.test.maps.items()}
        frame = x_s[j : j + 1]
        logits.append(model.segment(frame, maps, tau, of_frame(score_map, j), previous_mask=of_frame(previous, j)))
        if j + 1 < x_s.shape[0]:
            labels, weights = model.label_encoder(torch.sigmoid(logits[-1]).detach())
            memory = tuple(torch.cat(pair) for pair in zip(memory, (frame, labels, weights), strict=True))  # type: ignore[assignment]
            tau = model.target_model.learn(*memory, iterations=iterations, start=tau)[-1]
    return torch.cat(logits)


def sta_forward(model: STA, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return STA's first and refined logits of all frames, `[N, S, H, W]` each, from the boxes alone (§10)."""
    images = model.feature_extractor.normalise(batch.images)
    first, refined = model(images, batch.boxes)
    return first, refined
