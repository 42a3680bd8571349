"""Times the network by places of a batch, with its kernels, and the stages of a target.

Beside each time stands which share of this device's own convolution rate the arithmetic reaches.

    python3 -m benchmarks.gpu.network --profiles bf16 --places 1 4 8 16 --out network.json
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.apart import kernels_apart
from benchmarks.gpu.subject import Subject, parser
from rts_batch.config import TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker

CALIBRATION_FLOP = 2 * 9 * 256 * 256 * 120 * 208
KERNELS = 25
"""That are listed, those first that take longest."""


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--places", type=int, nargs="+", default=[1, 4, 8, 16])
    options = made.parse_args()
    subject = Subject(options)
    notes = subject.notes(options.out)
    flop = frame_flop(subject.plain, subject.config)
    for name in subject.profiles:
        notes.step(f"{name}, convolution", convolution_rate, subject, name)
        for places in options.places:
            notes.step(f"{name}, {places} places", network_time, subject, name, places, flop)
        notes.step(f"{name}, stages of a target", stages, subject, name)
        notes.step(f"{name}, with kernels and without", kernels_apart, subject, name)
    for name in subject.profiles:  # when all is timed: a device that a profiler has watched stays slower
        for places in options.places:
            notes.step(f"{name}, {places} places, kernels", kernels, subject, name, places)
    return notes.finish()


def network_time(subject: Subject, name: str, places: int, flop: int) -> dict[str, Any]:
    """Return ms of the network for all places."""
    network = BatchedNetwork(subject.model(name), subject.config, places=places)
    runs = places // network.at_once
    milliseconds = runs * network.engine.call(lambda: subject.milliseconds(network.stage))
    rate = flop * places / (milliseconds / 1e3)
    return {
        "runs": runs,
        "ms": milliseconds,
        "ms a place": milliseconds / places,
        "TFLOP/s": rate / 1e12,
    }


def kernels(subject: Subject, name: str, places: int) -> dict[str, Any]:
    """Return how many kernels a run of the network launches, their time, and those that take longest: name, calls, µs.

    Fails where the profiler has seen none, as one may that is not a process's first; the same command again lists them.
    """
    network = BatchedNetwork(subject.model(name), subject.config, places=places)
    if subject.device == "cpu":  # of the CPU only the own thread is recorded

        def recorded() -> profile:
            with profile(activities=[ProfilerActivity.CPU]) as found:
                network.stage()
            return found

        rows = network.engine.call(recorded).key_averages()
        spent = [(row, row.self_cpu_time_total) for row in rows]
    else:  # and the profiler of CUDA wants to be begun in the main thread
        # It would be taken down at a later call of CUDA, maybe in the midst of the next listing, which then sees none.
        os.environ.setdefault("TEARDOWN_CUPTI", "0")
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            network.engine.call(network.stage)
            subject.wait()
        spent = [(row, row.self_device_time_total) for row in found.key_averages()]
    spent = sorted([one for one in spent if one[1] > 0], key=lambda one: -one[1])
    if not spent:
        raise RuntimeError("the profiler has recorded no kernel; in a new process it may")
    return {
        "kernels launched": sum(row.count for row, _ in spent),
        "kernels µs": round(sum(time for _, time in spent)),
        "kernels": [[row.key[:90], row.count, round(time)] for row, time in spent[:KERNELS]],
    }


def stages(subject: Subject, name: str) -> dict[str, float]:
    """Return the median ms of each stage that a target's last frames had, those of its rounds with it alone."""
    tracker = GpuTracker(subject.model(name), subject.config)
    image, mask = subject.frames.pairs[0]
    tracker.start(image, mask=mask)
    for number in range(2, 8 if subject.small else 144):
        tracker.step(subject.frames.image(number))
    assert tracker._steps is not None
    found: dict[str, Callable[[], None]] = {**tracker.network.rounds.stages, **tracker._steps.stages}
    return tracker.on_device(lambda: {key: subject.milliseconds(stage) for key, stage in found.items()})


@torch.inference_mode()
def convolution_rate(subject: Subject, name: str) -> dict[str, float]:
    """Return TFLOP/s of a 3×3 convolution 256 → 256 on 8 maps of 120×208 (1 on the CPU)."""
    subject.model(name)
    batch = 1 if subject.device == "cpu" else 8
    layout = {"device": subject.device, "dtype": torch.bfloat16 if name == "bf16" else torch.float32}
    image = torch.randn(batch, 256, 120, 208, **layout).contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = torch.randn(256, 256, 3, 3, **layout).contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload]
    functional.conv2d(image, weight, padding=1)
    milliseconds = subject.milliseconds(lambda: functional.conv2d(image, weight, padding=1))
    return {"TFLOP/s": batch * CALIBRATION_FLOP / milliseconds / 1e9}


@torch.inference_mode()
def frame_flop(model: RTS, config: TrackerConfig) -> int:
    """Count the arithmetic of a frame without an update."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter:
        found = model.extract(torch.zeros(1, 3, *config.crop_size, device=device))
        tau = torch.zeros(1, *model.target_model.filter_shape, device=device)
        kernel = model.config.localisation_filter_size
        kappa = torch.zeros(1, 1, model.config.feature_dim, kernel, kernel, device=device)
        scores = model.localise(found.localisation[:, None], kappa)
        model.segment(found.segmentation[:, None], found.maps, tau, scores)
    return counter.get_total_flops()


if __name__ == "__main__":
    sys.exit(main())
