"""Runs a recipe: network, initial weights, data and validation put together; and takes the weights out at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rts_batch.config import MODELS, TRACKER_RTS50, ModelConfig, StaConfig, TrackerConfig
from rts_batch.errors import TrainingError
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.checkpoints import load_best, load_state, only_training, plain, state_files
from rts_batch.training.clips.batches import ClipStream
from rts_batch.training.distributed import Workers
from rts_batch.training.initial import load_backbone, load_network
from rts_batch.training.loop import Evaluate, Outcome, Trainer, train
from rts_batch.training.objectives import build_network, objective_of
from rts_batch.training.recipe import Recipe
from rts_batch.training.settings import TrainSettings
from rts_batch.weights.registry import StaWeights, Weights, make_weights

VALIDATION_SEED = 1_000_003
"""Added to the seed, so that validation clips are not those of the training."""

RESTART_SECONDS = 60.0
"""How long a group of workers waits for the folder that the group before it has held."""


def run_recipe(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    loaders: int = 0,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Outcome:
    """Train as `recipe` says, on from where `folder` has got to; see `loop.train` for what it leaves there.

    Within a process group each worker calls this with its own device.

    Args:
        recipe: as from `read_recipe`.
        folder: of the run, seen by all workers.
        device: of this worker.
        loaders: processes that make clips, for each worker.
        stop: asked after every iteration.
        report: told the newest row of the curves (leading worker).

    Raises:
        SettingsError, TrainingError, WeightsError: what is wrong with the recipe, its data or its files.
    """
    folder, settings, workers = Path(folder), recipe.settings, Workers.current()
    # Opened before the folder is claimed, which what is wrong with the data shall not be written into.
    clips, validation = recipe.clips(), recipe.validation_clips()
    stream = ClipStream(
        clips, batch=settings.batch, seed=settings.seed, loaders=loaders, rank=workers.rank, workers=workers.count
    )
    evaluate = None
    if validation is not None:
        held_out = ClipStream(validation, batch=settings.batch, seed=settings.seed + VALIDATION_SEED, loaders=loaders)
        evaluate = validation_losses(held_out, settings, batches=recipe.validation_batches, device=device)
    # Several start again when one is lost, and the leading one of before may take a moment to end.
    patience = RESTART_SECONDS if workers.count > 1 else 0.0
    with only_training(folder, patience=patience) if workers.leads else nullcontext():
        if workers.leads:
            recipe.claim(folder)
        workers.wait()
        torch.manual_seed(settings.seed)
        model = build_network(settings)
        if recipe.initial and not state_files(folder):
            load_initial(model, recipe.initial)
        trainer = Trainer(model, settings, workers=workers, device=device, validation=_measured_on(recipe))
        return train(trainer, stream, folder, evaluate=evaluate, stop=stop, report=report)


def _measured_on(recipe: Recipe) -> Any:
    """Return what decides the validation clips, in plain values; None without any."""
    return plain({"data": recipe.validation, "batches": recipe.validation_batches}) if recipe.validation else None


def load_initial(model: RTS | STA, initial: Mapping[str, str]) -> None:
    """Fill a fresh network: a whole `network` first, then a `backbone`."""
    if "network" in initial:
        load_network(model, initial["network"])
    if "backbone" in initial:
        load_backbone(model, initial["backbone"])


def validation_losses(
    stream: ClipStream, settings: TrainSettings, *, batches: int, device: torch.device | str = "cpu"
) -> Evaluate:
    """Return an evaluation: the training's terms, averaged over the first batches of a stream, always the same."""
    objective = objective_of(settings)

    def evaluate(model: nn.Module) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch in islice(stream.batches(0), batches):
            loss = objective(model, batch.to(device), settings, Workers())
            for key, value in {"loss": loss.total, **loss.parts}.items():
                sums[key] = sums.get(key, 0.0) + float(value)
        return {key: value / batches for key, value in sums.items()}

    return evaluate


def trained_weights(folder: str | Path, *, sta: str | Path | None = None, licence: str = "not stated") -> Weights:
    """Return the weights that a training run in `folder` ended with, and those of the run in `sta` for boxes.

    `best.pt` is taken where the newest checkpoint has a best value, else that checkpoint.

    Raises:
        TrainingError: a folder holds no trained network of its kind.
    """
    settings, state = _trained(folder)
    if not isinstance(settings.model, ModelConfig):
        raise TrainingError(f"{folder} trained a box-to-mask network; name the tracker's run, and this one as --sta")
    box_network = None
    if sta is not None:
        sta_settings, sta_state = _trained(sta)
        if not isinstance(sta_settings.model, StaConfig):
            raise TrainingError(f"{sta} trained a tracker, expected a box-to-mask network")
        box_network = StaWeights(sta_settings.model, sta_state)
    return make_weights(
        settings.model,
        tracker_config(settings),
        state,
        sta=box_network,
        provenance=f"trained by rts-batch as {settings.name!r}",
        licence=licence,
    )


def tracker_config(settings: TrainSettings) -> TrackerConfig:
    """Return the tracking settings that belong to a network trained so."""
    model = settings.model
    assert isinstance(model, ModelConfig)
    # A network of another name is a known one all the same where it has its settings.
    same = (name for name, (known, _) in MODELS.items() if replace(known, name=model.name) == model)
    known = model.name if model.name in MODELS else next(same, None)
    config = MODELS[known][1] if known else TRACKER_RTS50
    crop_size = config.crop_size if known else settings.clips.crop_size
    return replace(config, crop_size=crop_size, localisation_conditioning=settings.localisation == "fused")


def _trained(folder: str | Path) -> tuple[TrainSettings, dict[str, Tensor]]:
    folder = Path(folder)
    files = state_files(folder)
    if not files:
        raise TrainingError(f"{folder} holds no checkpoint of a training")
    state = load_state(files[-1])
    best = folder / "best.pt"
    # One that is left from another measure, or from when there was one, is not what the newest checkpoint calls best.
    if state.best is None or not best.exists():
        return settings_of(state.settings), state.weights()
    return settings_of(state.settings), load_best(best)


def settings_of(values: Mapping[str, Any]) -> TrainSettings:
    """Return the settings that a checkpoint has written down."""
    model = dict(values["model"])
    kind = "sta" if len(model["label_encoder_dims"]) == 4 else "rts"
    return TrainSettings.from_dict({**values, "model": {**model, "kind": kind}})
