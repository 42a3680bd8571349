"""The stages that make the embedded weights: their settings, what they end with, and the weights file of it all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rts_batch.config import TRACKER_RTS_MINI
from rts_batch.errors import TrainingError
from rts_batch.model.fast.networks import fold_batchnorm
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.mini.recipe import (
    MINI,
    MINI_HEADS,
    MINI_LONG,
    MINI_RUNS,
    MINI_STA,
    MINI_WIDE,
    unfolded_state,
)
from rts_batch.training.mini.runs import long_objective, run_objective, wide_objective
from rts_batch.training.objectives import build_network, register
from rts_batch.training.settings import TrainSettings
from rts_batch.weights.registry import StaWeights, load_weights, make_weights, save_weights

BEST = "best.pt"
PROVENANCE = "rts-batch `make train-mini`: ImageNet MobileNetV2, COCO 2017, Open Images, Intel sample videos"
LICENCE = "Apache-2.0; trained on pictures under CC BY 2.0 and CC BY-SA 2.0, footage and masks CC BY 4.0: see the card"

register(MINI_RUNS.objective, run_objective)
register(MINI_WIDE.objective, wide_objective)
register(MINI_LONG.objective, long_objective)


class Stages(NamedTuple):
    """The settings of every stage, in the order of training."""

    heads: TrainSettings
    crops: TrainSettings
    runs: TrainSettings
    wide: TrainSettings
    long: TrainSettings
    box: TrainSettings


def stages(*, seed: int = 0, steps_scale: float = 1.0) -> Stages:
    """Return the settings of the heads, the tracker on crops, on runs, wide runs and long ones, and the box head.

    They have `steps_scale` times the recipe's steps. Every stage sees clips of its own, and so does every seed.
    """
    recipe = (MINI_HEADS, MINI, MINI_RUNS, MINI_WIDE, MINI_LONG, MINI_STA)
    return Stages(
        *(
            dataclasses.replace(_scaled(stage, steps_scale), seed=1000 * seed + place)
            for place, stage in enumerate(recipe)
        )
    )


def best_network(settings: TrainSettings, folder: Path) -> RTS | STA:
    """Return the network of a stage's `best.pt`, on the CPU, with BatchNorm folded."""
    network = build_network(settings)
    fold_batchnorm(network.feature_extractor)
    network.load_state_dict(torch.load(folder / BEST, map_location="cpu", weights_only=True))
    return network


def _scaled(stage: TrainSettings, steps_scale: float) -> TrainSettings:
    if stage.epochs > 1:
        steps = tuple(round(steps_scale * epoch) for epoch in stage.step_epochs)
        return dataclasses.replace(stage, epochs=max(1, round(steps_scale * stage.epochs)), step_epochs=steps)
    return dataclasses.replace(stage, iterations_per_epoch=max(1, round(steps_scale * stage.iterations_per_epoch)))


def folded_states(weights: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tracker and the box head of a weights file with BatchNorm folded, as a stage starts from them.

    Raises:
        TrainingError: where it holds no box head, or networks of other shapes.
    """
    loaded = load_weights(weights)
    if loaded.sta is None or (loaded.config, loaded.sta.config) != (MINI.model, MINI_STA.model):
        raise TrainingError(f"{weights}: not the weights of an rts-mini with its box head")
    states = []
    for settings, state in ((MINI, loaded.state), (MINI_STA, loaded.sta.state)):
        network = build_network(settings)
        network.load_state_dict(dict(state))
        fold_batchnorm(network.feature_extractor)
        states.append(network.state_dict())
    return states[0], states[1]


def export(out: Path, *, seed: int = 0, steps_scale: float = 1.0, start: Path | None = None) -> Path:
    """Write the best networks of the stages in `out`, finished or not, as one weights file in float16.

    The tracker is that of the last stage that has been evaluated. Without a box head's stage the file has the head that
    `start` has, on the tracker's backbone, or none.

    Raises:
        TrainingError: no stage has been evaluated yet.
    """
    *trackers, box = stages(seed=seed, steps_scale=steps_scale)
    reached = [settings for settings in trackers if (out / settings.name / BEST).exists()]
    if not reached:
        raise TrainingError(f"{out}: no stage has a {BEST} yet; wait for its first evaluation")
    tracker = best_network(reached[-1], out / reached[-1].name)
    assert isinstance(tracker, RTS)
    head = None
    if start is not None or (out / box.name / BEST).exists():
        sta = _box_head(box, tracker, out / box.name, start)
        head = StaWeights(sta.config, unfolded_state(sta))
    begun = "" if start is None else f", from the weights {load_weights(start).fingerprint[:12]}"
    weights = make_weights(
        tracker.config,
        TRACKER_RTS_MINI,
        unfolded_state(tracker),
        sta=head,
        provenance=f"{PROVENANCE}; seed {seed}, {steps_scale:g} times the recipe's steps{begun}",
        licence=LICENCE,
    )
    path = out / "rts-mini.safetensors"
    save_weights(weights, path, half=True)
    return path


def _box_head(settings: TrainSettings, tracker: RTS, folder: Path, start: Path | None) -> STA:
    """Return the box head that its stage in `folder` has got to, or else that of `start` on the tracker's backbone."""
    if (folder / BEST).exists():
        sta = best_network(settings, folder)
    else:
        assert start is not None
        sta = build_network(settings)
        fold_batchnorm(sta.feature_extractor)
        sta.load_state_dict({**folded_states(start)[1], **backbone_of(tracker)})
    assert isinstance(sta, STA)
    return sta


def backbone_of(network: RTS | STA) -> dict[str, Tensor]:
    """Return the tensors of a network's backbone under their full names."""
    return {key: value for key, value in network.state_dict().items() if key.startswith("feature_extractor.")}
