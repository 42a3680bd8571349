"""Times the trackers on a GPU: plain against fast, the precision profiles, memory, kernels.

Frames are in memory; the network is the paper's with untrained weights, which cost what trained ones cost. Beside each
rate stands which share of the machine's own convolution rate, measured here, the arithmetic of a frame reaches.

    python -m benchmarks.gpu --out benchmarks/results/gpu.json
    python -m benchmarks.gpu --device cpu --network rts-mini --frames 6      # a dry run
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cpu_tracker import processor
from rts_batch.config import MODELS, Profile, TrackerConfig
from rts_batch.model.fast import fast, set_precision
from rts_batch.model.layout import network_layout
from rts_batch.model.rts import RTS
from rts_batch.model.untrained import untrained_state
from rts_batch.model.weights import BUILT_IN, build_model, load_weights
from rts_batch.tracking.fast import FastTracker
from rts_batch.tracking.tracker import Tracker
from tests.parity_data import synthetic_frame

CALIBRATION_FLOP = 2 * 9 * 256 * 256 * 120 * 208


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@torch.inference_mode()
def convolution_rate(device: str, dtype: torch.dtype) -> float:
    """Returns FLOP/s of a 3×3 convolution 256 → 256 on 8 maps of 120×208 (1 on the CPU)."""
    batch = 1 if device == "cpu" else 8
    image = torch.randn(batch, 256, 120, 208, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    seconds = []
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        functional.conv2d(image, weight, padding=1)
        wait(device)
        seconds.append(time.perf_counter() - start)
    return batch * CALIBRATION_FLOP / min(seconds[1:])


@torch.inference_mode()
def frame_flop(model: RTS, config: TrackerConfig) -> int:
    """Counts the arithmetic of a frame without an update."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter:
        found = model.extract(torch.zeros(1, 3, *config.crop_size, device=device))
        tau = torch.zeros(1, *model.target_model.filter_shape, device=device)
        kernel = model.config.localisation_filter_size
        kappa = torch.zeros(1, 1, model.config.feature_dim, kernel, kernel, device=device)
        scores = model.localise(found.localisation[:, None], kappa)
        model.segment(found.segmentation[:, None], found.maps, tau, scores)
    return counter.get_total_flops()


def run(tracker: Tracker, frames: int, size: tuple[int, int], device: str) -> dict[str, float]:
    """Returns the median milliseconds of a frame with and without updates, and of the start, over one run."""
    images = [synthetic_frame(*size, index) for index in range(8)]
    seconds: list[float] = []
    for number in range(1, frames + 1):
        image, mask = images[(number - 1) % len(images)]
        wait(device)
        start = time.perf_counter()
        tracker.start(image, mask=mask) if number == 1 else tracker.step(image)
        wait(device)
        seconds.append(1e3 * (time.perf_counter() - start))
    result = {"start ms": seconds[0], "dense ms": statistics.median(seconds[1:99])}
    later = [value for number, value in enumerate(seconds, start=1) if number > 101 and (number - 1) % 20]
    if later:
        result |= {"after 101 ms": statistics.median(later), "frames/s": 1e3 / statistics.median(later)}
    if device != "cpu":
        result["memory MiB"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def kernels(tracker: Tracker, size: tuple[int, int], device: str) -> str:
    """Returns the profiler's table of five steps."""
    activities = [ProfilerActivity.CPU] + ([] if device == "cpu" else [ProfilerActivity.CUDA])
    with profile(activities=activities) as recorded:
        for index in range(5):
            tracker.step(synthetic_frame(*size, index)[0])
    key = "self_cpu_time_total" if device == "cpu" else "self_cuda_time_total"
    return str(recorded.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=50))


def network(name: str) -> tuple[RTS, TrackerConfig]:
    """Returns the network of weights that the package has, or of the paper's shape with untrained ones."""
    if name in BUILT_IN:
        weights = load_weights(name)
        return build_model(weights, "cpu"), weights.tracker_config
    config, tracker_config = MODELS[name]
    model = RTS(config)
    model.load_state_dict(untrained_state(network_layout(config)), strict=False)
    return model.requires_grad_(False), tracker_config


def measure(name: str, plain: RTS, config: TrackerConfig, arguments: argparse.Namespace, flop: int) -> dict[str, Any]:
    """Measures the plain tracker (`plain`) or the fast one in a profile."""
    device, size = arguments.device, tuple(arguments.size)
    precision: Profile = "exact" if name == "plain" else name
    set_precision(device, precision)
    model = plain if name == "plain" else fast(plain, profile=precision)
    tracker = (Tracker if name == "plain" else FastTracker)(model, config)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    rate = convolution_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    result: dict[str, Any] = {"name": name} | run(tracker, arguments.frames, size, device)
    frame = result.get("after 101 ms", result["dense ms"])
    result["convolution TFLOP/s"] = rate / 1e12
    result["share of it"] = flop / (frame / 1e3) / rate
    print(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value:6}" for key, value in result.items())
    )
    if arguments.table:
        print(kernels(tracker, size, device))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="rts50", choices=["rts50", *BUILT_IN])
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 854), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--table", action="store_true", help="print the profiler's table of each")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    plain, config = network(arguments.network)
    plain = plain.to(arguments.device)
    flop = frame_flop(plain, config)
    names = ["plain", "exact", *(["tf32", "bf16"] if arguments.device != "cpu" else ["bf16"])]
    results = [measure(name, plain, config, arguments, flop) for name in names]
    if arguments.out:
        device = processor() if arguments.device == "cpu" else torch.cuda.get_device_name()
        content = {
            "what": f"{arguments.network}, frames of {arguments.size[1]}×{arguments.size[0]} in memory, one target",
            "machine": {"device": device, "cores": os.cpu_count(), "torch": torch.__version__},
            "gflop_per_frame": flop / 1e9,
            "results": results,
        }
        arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
