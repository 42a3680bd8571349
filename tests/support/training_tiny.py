"""A training that takes a tenth of a second an iteration: a small network on small clips from a miniature data set."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import torch

from rts_batch.config import ModelConfig, StaConfig
from rts_batch.training.clips.batches import ClipStream
from rts_batch.training.clips.datasets import youtube_vos
from rts_batch.training.clips.sampling import VideoClips
from rts_batch.training.loop import Trainer
from rts_batch.training.objectives import build_network
from rts_batch.training.settings import PAPER, ClipSettings, TrainSettings
from tests.support.training_layouts import write_youtube_vos

TINY = ModelConfig(
    name="tiny",
    backbone="mobilenetv2",
    feature_dim=8,
    num_filters=4,
    label_encoder_dims=(4, 4, 4),
    decoder_dims=(8, 8, 8, 8),
)
TINY_STA = StaConfig(
    backbone="mobilenetv2", feature_dim=8, num_filters=4, label_encoder_dims=(4, 4, 4, 4), decoder_dims=(8, 8, 8, 8)
)
SETTINGS = dataclasses.replace(
    PAPER,
    name="tiny",
    model=TINY,
    clips=ClipSettings(crop_size=(48, 64)),
    learning_rates={"": 1e-3, "feature_extractor": 0.0},
    batch=2,
    epochs=3,
    iterations_per_epoch=2,
    step_epochs=(2,),
    checkpoint_every=2,
    log_every=1,
    evaluate_every=0,
)
RECIPE = """
base = "paper"
{top}
[settings]
name = "tiny"
batch = 2
epochs = 3
iterations_per_epoch = 2
step_epochs = [2]
checkpoint_every = 2
evaluate_every = 0
log_every = 1
{settings}
[settings.model]
name = "tiny"
backbone = "mobilenetv2"
feature_dim = 8
num_filters = 4
label_encoder_dims = [4, 4, 4]
decoder_dims = [8, 8, 8, 8]
[settings.clips]
crop_size = [48, 64]
[settings.learning_rates]
"" = 1e-3
"feature_extractor" = 0.0
[[data]]
kind = "youtube-vos"
root = "$TINY_DATA/vos"
"""


def stream(folder: Path, settings: TrainSettings = SETTINGS, **options: Any) -> ClipStream:
    """The clips of the miniature data set in `folder`, which is made on the first call."""
    if not (folder / "meta.json").exists():
        write_youtube_vos(folder, ("v1",))
    make = VideoClips(youtube_vos(folder), settings.clips)
    return ClipStream(make, batch=settings.batch, seed=settings.seed, **options)


def trainer(settings: TrainSettings = SETTINGS, **options: Any) -> Trainer:
    torch.manual_seed(settings.seed)
    return Trainer(build_network(settings), settings, **options)


def losses_of(folder: Path) -> list[tuple[str, str]]:
    """The iterations of a training, each with its loss, as its curves have them."""
    with (folder / "curves.csv").open(newline="") as file:
        return [(row["iteration"], row["loss"]) for row in csv.DictReader(file)]
