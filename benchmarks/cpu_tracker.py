"""Times the tracker on the CPU as multiples of a calibration convolution timed in the same process.

The published implementation was timed the same way (`parity/README.md` beside the repository), so the multiples compare
where seconds would not. The calibration is one 3×3 convolution 256 → 256 on 1×256×120×208 (29.4 GFLOP), float32; its
median is taken every five frames. The plain network and tracker, the oracle of the tests, and the fast ones of the
workers take turns, run by run.

    python -m benchmarks.cpu_tracker --shared ../shared --out benchmarks/results/cpu_tracker.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from rts_batch.config import TRACKER_RTS50, Profile
from rts_batch.model.fast.networks import fast
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.inference import compile_ahead
from tests.support.parity_data import parity_model, read_davis, read_davis_mask

CALIBRATION_GFLOP = 29.4
NETWORKS = ("plain", "fast", "bf16")
"""`fast` in float32, and the same with the profile `bf16`."""
PUBLISHED = {
    "start": 42.6,
    "2–10": 9.5,
    "11–33": 17.0,
    "34–99": 22.0,
    "after 101, without an update": 7.4,
    "mean of 2–100": 19.4,
}
"""Multiples of the calibration, published implementation, from the parity README."""


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def calibration() -> Callable[[], float]:
    image, weight = torch.randn(1, 256, 120, 208), torch.randn(256, 256, 3, 3)

    def measure() -> float:
        with torch.inference_mode():
            return statistics.median(seconds(lambda: functional.conv2d(image, weight, padding=1)) for _ in range(3))

    measure()
    return measure


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def phase(frame: int) -> str | None:
    """Names the phase of a 1-based frame number, as the published table does."""
    if frame <= 10:
        return "2–10"
    if frame <= 33:
        return "11–33"
    if frame <= 99:
        return "34–99"
    if frame > 101 and (frame - 1) % 20:
        return "after 101, without an update"
    return None


def run(shared: Path, frames: int, network: str) -> dict[str, float]:
    """Returns multiples of the calibration for each phase of one run over `frames` frames."""
    model, kind = parity_model(shared / "parity"), Tracker
    if network != "plain":
        profile: Profile = "bf16" if network == "bf16" else "exact"
        model, kind = fast(model, profile=profile), fast_tracker
        compile_ahead(model, TRACKER_RTS50.crop_size)  # as a worker does
    davis = shared / "data/davis-dev"
    order = [*range(60), *range(58, 0, -1)][:frames]
    images = {index: read_davis(davis, "dog", index) for index in set(order)}
    tracker = kind(model, replace(TRACKER_RTS50, not_found_threshold=0.12))
    measure = calibration()
    unit = measure()
    multiples: dict[str, list[float]] = {"start": [], "mean of 2–100": []}
    first = seconds(lambda: tracker.start(images[0], mask=read_davis_mask(davis, "dog", 0)))
    multiples["start"].append(first / unit)
    for number, index in enumerate(order[1:], start=2):
        if number % 5 == 0:
            unit = measure()
        multiple = seconds(lambda index=index: tracker.step(images[index])) / unit
        name = phase(number)
        if name is not None:
            multiples.setdefault(name, []).append(multiple)
        if number <= 100:
            multiples["mean of 2–100"].append(multiple)
    result = {
        name: statistics.fmean(values) if name.startswith("mean") else statistics.median(values)
        for name, values in multiples.items()
        if values
    }
    return result | {"calibration_gflop_per_s": CALIBRATION_GFLOP / unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with parity/ and data/davis-dev")
    parser.add_argument("--frames", type=int, default=118)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.networks}
    for _ in range(arguments.runs):
        for network, results in runs.items():
            results.append(run(arguments.shared, arguments.frames, network))
    ours = {
        network: {name: statistics.median(each[name] for each in results if name in each) for name in results[0]}
        for network, results in runs.items()
    }
    print(f"{'network':9}{'frames':32}{'ours':>8}{'published':>11}{'ratio':>8}   (multiples of the calibration)")
    for network, medians in ours.items():
        for name, published in PUBLISHED.items():
            if name in medians:
                ratio = published / medians[name]
                print(f"{network:9}{name:32}{medians[name]:8.1f}{published:11.1f}{ratio:7.2f}×")
    if arguments.out:
        arguments.out.write_text(
            json.dumps(
                {
                    "what": "tracker, rts50 layout, parity weights, dog 480×832, t_sc 0.12",
                    "machine": {"processor": processor(), "threads": arguments.threads, "torch": torch.__version__},
                    "command": "python -m benchmarks.cpu_tracker "
                    f"--frames {arguments.frames} --runs {arguments.runs} --threads {arguments.threads} "
                    f"--networks {' '.join(arguments.networks)}",
                    "load_at_end": os.getloadavg()[0],
                    "published": PUBLISHED,
                    "ours": ours,
                    "runs": runs,
                },
                indent=1,
                ensure_ascii=False,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
