"""ADAM with a rate per part of the network, its schedule, mixed precision and the moving average of the weights."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from rts_batch.errors import SettingsError
from rts_batch.model.backbones import Backbone, Neck
from rts_batch.model.decoder import Decoder
from rts_batch.model.fast.networks import multiplies_bfloat16
from rts_batch.model.layers import FeatureBranch
from rts_batch.training.settings import TrainSettings

log = logging.getLogger(__name__)


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Freeze what has no learning rate and return ADAM over the rest, one parameter group per prefix.

    Raises:
        SettingsError: a prefix of `settings.learning_rates` matches no parameter.
    """
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in settings.learning_rates}
    unused = set(groups)
    for name, parameter in model.named_parameters():
        matching = [prefix for prefix in groups if covers(prefix, name)]
        unused.difference_update(matching)
        prefix = max(matching, key=len, default=None)
        trained = prefix is not None and settings.learning_rates[prefix] > 0
        parameter.requires_grad_(trained)
        if prefix is not None and trained:
            groups[prefix].append(parameter)
    if unused:
        raise SettingsError(f"learning_rates names {sorted(unused)[0]!r}, but no parameter's name begins so")
    rated: list[dict[str, Any]] = [
        {"params": parameters, "initial_lr": settings.learning_rates[prefix], "prefix": prefix}
        for prefix, parameters in groups.items()
        if parameters
    ]
    adam = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return adam(rated, lr=0.0, betas=settings.betas, eps=1e-8, weight_decay=settings.weight_decay)


def covers(prefix: str, name: str) -> bool:
    """Whether a parameter's name lies under a dotted prefix; the empty prefix covers all."""
    return not prefix or name == prefix or name.startswith(prefix + ".")


def set_rates(optimizer: torch.optim.Optimizer, settings: TrainSettings, iteration: int) -> None:
    factor = rate_factor(settings, iteration)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rate_factor(settings: TrainSettings, iteration: int) -> float:
    """Return what the initial rates are multiplied by in `iteration` (counted from 0)."""
    if iteration < settings.warmup_iterations:
        return (iteration + 1) / settings.warmup_iterations
    if settings.schedule == "cosine":
        length = max(1, settings.total_iterations - settings.warmup_iterations)
        return 0.5 * (1 + math.cos(math.pi * (iteration - settings.warmup_iterations) / length))
    finished = iteration // settings.iterations_per_epoch
    return settings.step_factor ** sum(finished >= epoch for epoch in settings.step_epochs)


def use_precision(model: nn.Module, settings: TrainSettings, device: torch.device) -> None:
    """Set the precision that `settings` asks for.

    In `bf16` the backbone, the feature branches and the decoder compute in bfloat16. What they hand to the learners and
    to the losses is float32 again, so those never see a rounded sum. A processor without bfloat16 computes in float32:
    without AVX-512 the same step would take ten times as long.
    """
    torch.backends.cudnn.benchmark = True  # every batch has the same shapes
    torch.backends.cuda.matmul.allow_tf32 = settings.precision != "float32"
    torch.backends.cudnn.allow_tf32 = settings.precision != "float32"
    if settings.precision != "bf16":
        return
    if not multiplies_bfloat16(device):
        log.warning("this %s has no bfloat16: the training computes in float32", device.type)
        return
    for module in model.modules():
        if isinstance(module, (Backbone, Neck, FeatureBranch, Decoder)):
            forward = torch.autocast(device.type, dtype=torch.bfloat16)(module.forward)
            # Backbone maps and the neck's stay in bfloat16: only the branches and the decoder read them.
            module.forward = forward if isinstance(module, (Backbone, Neck)) else _float32_result(forward)  # type: ignore[method-assign]


def _float32_result(forward: Any) -> Any:
    def call(*inputs: Any) -> Tensor:
        result: Tensor = forward(*inputs).float()
        return result

    return call


class MovingAverage:
    """An exponential moving average of the trained parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter, 1 - self.decay)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Swap the averages with the model's parameters; a second call swaps them back."""
        for name, parameter in model.named_parameters():
            if name in self.values:
                kept = parameter.detach().clone()
                parameter.copy_(self.values[name])
                self.values[name].copy_(kept)
