"""What a training step of `rts-mini` costs on the CPU, stage by stage of the recipe, and where it goes.

    python -m benchmarks.training_step STILLS_INDEX --out benchmarks/results/training_step.json

The first steps of a process are slow, since its memory is touched for the first time; they are not counted. Clips are
made before the steps, in the same process, and timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cpu_tracker import processor
from rts_batch.training.loop import Trainer
from rts_batch.training.mini.make import fetch_imagenet_features, initial_network, training_clips
from rts_batch.training.mini.stages import stages
from rts_batch.training.settings import TrainSettings

KINDS = {
    "convolutions, forward": ("mkldnn_convolution", "_slow_conv2d_forward"),
    "convolutions, backward": ("convolution_backward", "_slow_conv2d_backward"),
    "matrix products": ("bmm", "mm", "addmm", "baddbmm", "im2col", "col2im"),
    "copies": ("copy_", "cat", "fill_", "zero_", "flip"),
    "activations": (
        "clamp",
        "clamp_min",
        "hardtanh",
        "hardtanh_backward",
        "threshold_backward",
        "sigmoid",
        "sigmoid_backward",
        "log_sigmoid_forward",
        "log_sigmoid_backward",
        "leaky_relu",
        "leaky_relu_backward",
    ),
    "upsampling and pooling": (
        "upsample_bilinear2d",
        "upsample_bilinear2d_backward",
        "upsample_bicubic2d",
        "upsample_bicubic2d_backward",
        "max_pool2d_with_indices",
        "max_pool2d_with_indices_backward",
        "mean",
    ),
}
"""PyTorch's operators, without `aten::`, whose own time counts for each kind; whatever is left is `other`."""


def measure(settings: TrainSettings, stills: list[Path], features: Path, *, warm_up: int, steps: int) -> dict[str, Any]:
    """Returns seconds a step and a batch of clips, and the shares of a step's time, of one stage."""
    clips = training_clips(settings, stills, loaders=0).batches(0)
    seconds_of_clips, batches = timed(lambda: list(islice(clips, 4)))
    trainer = Trainer(initial_network(settings, features), settings)
    again = cycle(batches)
    for _ in range(warm_up):
        trainer.step(next(again))
    seconds = [timed(lambda: trainer.step(next(again)))[0] for _ in range(steps)]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            trainer.step(next(again))
    return {
        "clips_a_step": settings.batch,
        "seconds_a_step": round(statistics.median(seconds), 3),
        "seconds_to_make_its_clips": round(seconds_of_clips / len(batches), 3),
        "share_of_a_step": shares({event.key: event.self_cpu_time_total for event in profiler.key_averages()}),
    }


def shares(times: dict[str, float]) -> dict[str, float]:
    """Returns the share of each of `KINDS`, the largest first, and of the rest, from the operators' own times."""
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    sums: dict[str, float] = defaultdict(float)
    for name, spent in times.items():
        sums[kind_of.get(name, "other")] += spent
    total = sum(sums.values())
    return {kind: round(spent / total, 3) for kind, spent in sorted(sums.items(), key=lambda item: -item[1])}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, nargs="+", help="index of the stills, and of footage")
    parser.add_argument(
        "--features",
        type=Path,
        default=Path("build/imagenet"),
        help="folder that the ImageNet features are loaded into",
    )
    parser.add_argument("--warm-up", type=int, default=8, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(0)
    features = fetch_imagenet_features(options.features)
    results = {}
    for settings in stages():
        results[settings.name] = measure(
            settings, options.stills, features, warm_up=options.warm_up, steps=options.steps
        )
        print(settings.name, json.dumps(results[settings.name]), flush=True)
    if options.out:
        content = {
            "what": "a training step of rts-mini on one thread; shares by PyTorch's profiler, over as many steps",
            "machine": {"processor": processor(), "threads": 1, "torch": torch.__version__},
            "load_at_end": round(os.getloadavg()[0], 2),
            "command": f"python -m benchmarks.training_step STILLS --steps {options.steps} --warm-up {options.warm_up}",
            "stages": results,
        }
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
