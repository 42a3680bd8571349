"""From a batch to a loss: forward pass and weighted sum, by name.

An objective is any function `(model, batch, settings, workers) -> Loss`; `register` makes a recipe's own one known to
configuration files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor, nn

from rts_batch.config import ModelConfig
from rts_batch.errors import SettingsError
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.clips.batches import Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.forward import Prediction, rts_forward, sta_forward
from rts_batch.training.losses import localisation_loss, lovasz_sigmoid, mask_jaccard, peak_accuracy
from rts_batch.training.settings import TrainSettings


@dataclass(frozen=True)
class Loss:
    total: Tensor
    """What is differentiated, a scalar."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Unweighted terms and measures for the curves, scalars."""


Objective = Callable[[nn.Module, Batch, TrainSettings, Workers], Loss]


def rts_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """10·L_seg + 100·Σ_i L_c(κⁱ) (spec rts-training §6.4); without localisation L_seg alone (LWL)."""
    prediction = rts_forward(
        cast(RTS, model),
        batch,
        rules=settings.rules,
        localisation=settings.localisation,
        iterations=settings.iterations,
        refinement_iterations=settings.refinement_iterations,
        sigma_factor=settings.label_sigma_factor,
    )
    return rts_loss(prediction, batch.masks[batch.train_frames :], settings, workers)


def rts_loss(prediction: Prediction, masks: Tensor, settings: TrainSettings, workers: Workers) -> Loss:
    """Return the weighted loss of a forward pass; `masks` are the test frames', `[N, S, H, W]`."""
    segmentation = lovasz_over_workers(prediction.logits, masks, workers)
    total = settings.segmentation_weight * segmentation
    parts = {"lovasz": segmentation, "jaccard": mask_jaccard(prediction.logits, masks)}
    if prediction.labels is not None:
        localisation = localisation_loss(prediction.scores, prediction.labels)
        total = total + settings.localisation_weight * localisation
        parts |= {"localisation": localisation, "peak": peak_accuracy(prediction.scores[-1], prediction.labels)}
    return Loss(total, parts)


def sta_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """100·L_seg of STA's first and of its refined masks, over all frames (§10)."""
    first, refined = sta_forward(cast(STA, model), batch)
    terms = [lovasz_over_workers(logits, batch.masks, workers) for logits in (first, refined)]
    parts = {"lovasz_first": terms[0], "lovasz_refined": terms[1], "jaccard": mask_jaccard(refined, batch.masks)}
    return Loss(settings.segmentation_weight * (terms[0] + terms[1]), parts)


def lovasz_over_workers(logits: Tensor, masks: Tensor, workers: Workers) -> Tensor:
    """Return the Lovász term of the global batch, `[N, S, H, W]` on each worker."""
    return lovasz_sigmoid(workers.gather(logits, dim=1), workers.gather(masks, dim=1))


OBJECTIVES: dict[str, Objective] = {"rts": rts_objective, "sta": sta_objective}


def register(name: str, objective: Objective) -> None:
    OBJECTIVES[name] = objective


def objective_of(settings: TrainSettings) -> Objective:
    if settings.objective not in OBJECTIVES:
        raise SettingsError(f"objective is {settings.objective!r}; valid are {', '.join(sorted(OBJECTIVES))}")
    return OBJECTIVES[settings.objective]


def build_network(settings: TrainSettings) -> RTS | STA:
    """Return the network of `settings.model`, freshly initialised from PyTorch's random state."""
    return RTS(settings.model) if isinstance(settings.model, ModelConfig) else STA(settings.model)
