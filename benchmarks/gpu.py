"""Times the trackers on a GPU: plain against the device's own, the precision profiles, lanes, targets, memory, stages.

Frames are in memory; the paper's network has untrained weights, which cost what trained ones cost. A result is read
one frame late, as a worker with something else to do reads it. Beside each rate stands which share of the machine's own
convolution rate, measured here, the arithmetic of a frame reaches.

    python -m benchmarks.gpu --out benchmarks/results/gpu.json
    python -m benchmarks.gpu --device cpu --network rts-mini --frames 30 --lanes 1 2      # a dry run
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cpu_tracker import processor
from rts_batch.config import MODELS, Profile, TrackerConfig
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.masks import Marking
from rts_batch.model.fast.networks import fast, set_precision
from rts_batch.model.rts import RTS
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.opener import MOST_PLACES, SceneOpener
from rts_batch.tracking.result import Pending
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.layout import network_layout
from rts_batch.weights.registry import BUILT_IN, build_model, load_weights
from rts_batch.weights.untrained import untrained_state
from tests.support.parity_data import synthetic_frame

CALIBRATION_FLOP = 2 * 9 * 256 * 256 * 120 * 208
DENSE = 101
"""The last frame of the phase in which the models learn on every frame."""

WARM = 48
"""Frames after which every stage has been captured, in a procedure whose dense phase is over after six."""


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@torch.inference_mode()
def convolution_rate(device: str, dtype: torch.dtype) -> float:
    """Returns FLOP/s of a 3×3 convolution 256 → 256 on 8 maps of 120×208 (1 on the CPU)."""
    batch = 1 if device == "cpu" else 8
    image = torch.randn(batch, 256, 120, 208, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(8):
        wait(device)
        start = time.perf_counter()
        functional.conv2d(image, weight, padding=1)
        wait(device)
        seconds.append(time.perf_counter() - start)
    return batch * CALIBRATION_FLOP / min(seconds[2:])


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


class Frames:
    """Synthetic frames in memory, the same eight over and over."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.pairs = [synthetic_frame(*size, index) for index in range(8)]

    def image(self, number: int) -> Any:
        return self.pairs[number % len(self.pairs)][0]


def read(found: Pending | None) -> None:
    if found is not None:
        found.read()


def follow(tracker: Tracker, frames: Frames, count: int, marks: tuple[int, ...], device: str) -> list[float]:
    """Tracks a video and returns when it began, when the first frame and each of `marks` was done."""
    image, mask = frames.pairs[0]
    wait(device)
    times = [time.perf_counter()]
    tracker.start(image, mask=mask)
    wait(device)
    times.append(time.perf_counter())
    late = None
    for number in range(2, count + 1):
        found = tracker.step_late(frames.image(number))
        read(late)
        late = found
        if number in marks:
            read(found)
            wait(device)
            times.append(time.perf_counter())
    return times


def single(tracker: Tracker, frames: Frames, count: int, device: str) -> dict[str, float]:
    """Returns milliseconds of the start, of the frames that learn, and of those after frame 101, updates included.

    The second video is measured, as the first captures the stages.
    """
    if isinstance(tracker, GpuTracker):
        follow(tracker, frames, min(count, DENSE + 42), (), device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    first, dense = min(5, count - 1), min(DENSE, count)
    begun, started, early, *later = follow(tracker, frames, count, (first, dense, count), device)
    result = {"start ms": 1e3 * (started - begun), "dense ms": 1e3 * (later[0] - early) / (dense - first)}
    if count > DENSE:
        after = (later[1] - later[0]) / (count - DENSE)
        result |= {"after 101 ms": 1e3 * after, "frames/s": 1 / after}
    if device != "cpu":
        result["memory MiB"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def settled(config: TrackerConfig) -> TrackerConfig:
    """The procedure as it is after frame 101, from the sixth frame on."""
    return replace(config, dense_frames=6)


def lanes_rate(model: RTS, config: TrackerConfig, frames: Frames, lanes: int, count: int) -> float:
    """Returns frames a second of all lanes together as after frame 101, each a thread, as a worker's are."""
    config = settled(config)
    network = BatchedNetwork(model, config, places=min(lanes, MOST_PLACES))
    meeting = threading.Barrier(lanes + 1)

    def work(number: int) -> None:
        tracker = GpuTracker(model, config, network=network)
        image, mask = frames.pairs[0]
        tracker.start(image, mask=mask)
        late = None
        for frame in range(2, WARM + count + 1):
            found = tracker.step_late(frames.image(frame + number))
            read(late)
            late = found
            if frame == WARM:
                meeting.wait()
        read(late)
        meeting.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    meeting.wait()
    begun = time.perf_counter()
    meeting.wait()
    seconds = time.perf_counter() - begun
    for thread in threads:
        thread.join()
    return lanes * count / seconds


def decoded_rate(model: RTS, config: TrackerConfig, video: Path, lanes: int) -> dict[str, float]:
    """Returns frames a second of as many videos side by side as there are lanes, each in a thread, decoding included.

    Each thread has a decoding process of its own and tracks the video twice; the second time is measured.
    """
    opener = SceneOpener(model, settled(config), lanes=lanes)
    meeting = threading.Barrier(lanes + 1)
    counts: list[int] = []

    def work() -> None:
        decoding = DecodingProcess()
        for _ in range(2):
            scene, count = opener.open(1), 0
            meeting.wait()
            late = None
            with decoding.open(video, decoder="pyav") as source:
                mask = np.zeros((source.info.height, source.info.width), bool)
                mask[180:300, 300:500] = True
                for frame in source:
                    found = scene.step(frame.image, {} if count else {1: Marking(mask=mask)})
                    _ = late and late[1]
                    late = found
                    count += 1
            _ = late and late[1]
            del scene
            counts.append(count)
            meeting.wait()
        decoding.close()

    threads = [threading.Thread(target=work) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    meeting.wait()
    meeting.wait()
    begun = time.perf_counter()
    meeting.wait()
    meeting.wait()
    seconds = time.perf_counter() - begun
    for thread in threads:
        thread.join()
    return {"lanes": lanes, "frames/s with decoding": sum(counts[lanes:]) / seconds}


def targets_rate(model: RTS, config: TrackerConfig, frames: Frames, targets: int, count: int, device: str) -> Any:
    """Returns frames a second and MiB of a video with several targets, as after frame 101."""
    gc.collect()
    scene = SceneOpener(model, settled(config)).open(targets)
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    image, mask = frames.pairs[0]
    apart = mask.shape[1] // targets
    scene.step(image, {key: Marking(mask=np.roll(mask, key * apart, axis=1)) for key in range(targets)})
    begun = time.perf_counter()
    for number in range(2, WARM + count + 1):
        scene.step(frames.image(number))
        if number == WARM:
            begun = time.perf_counter()
    rate = count / (time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else None
    return {"targets": targets, "frames/s": rate, "memory MiB": peak}


def long_run(tracker: Tracker, frames: Frames, count: int, device: str) -> dict[str, float]:
    """Returns how the process's and the device's memory grew between frame 500 and the last."""
    image, mask = frames.pairs[0]
    tracker.start(image, mask=mask)
    before = (0.0, 0.0)
    late = None
    begun = time.perf_counter()
    for number in range(2, count + 1):
        found = tracker.step_late(frames.image(number))
        read(late)
        late = found
        if number == min(500, count - 1):
            before = memory(device)
    read(late)
    grown = [after - first for after, first in zip(memory(device), before, strict=True)]
    rate = (count - 1) / (time.perf_counter() - begun)
    return {"frames": count, "process MiB grown": grown[0], "device MiB grown": grown[1], "frames/s": rate}


def memory(device: str) -> tuple[float, float]:
    """MiB of the process and of the device's allocations."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    allocated = torch.cuda.memory_allocated() / 2**20 if device != "cpu" else 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, allocated


def stages(tracker: GpuTracker, device: str) -> dict[str, float]:
    """Returns the median milliseconds of each stage that the tracker's last frames had."""
    named: dict[str, Callable[[], None]] = {
        "network": tracker.network.stage,
        **(tracker._steps.stages if tracker._steps else {}),
    }
    count = 3 if device == "cpu" else 30
    return tracker.on_device(lambda: {name: milliseconds(stage, count, device) for name, stage in named.items()})


def milliseconds(stage: Callable[[], None], count: int, device: str) -> float:
    """Returns the median of so many calls."""
    seconds = []
    for _ in range(count):
        wait(device)
        begun = time.perf_counter()
        stage()
        wait(device)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds)


def kernels(tracker: Tracker, frames: Frames, device: str) -> str:
    """Returns the profiler's table of five steps."""
    activities = [ProfilerActivity.CPU] + ([] if device == "cpu" else [ProfilerActivity.CUDA])
    with profile(activities=activities) as recorded:
        for index in range(5):
            tracker.step(frames.image(index))
    key = "self_cpu_time_total" if device == "cpu" else "self_cuda_time_total"
    return str(recorded.key_averages().table(sort_by=key, row_limit=18, max_name_column_width=70))


def network(name: str) -> tuple[RTS, TrackerConfig]:
    """Returns the network of weights that the package has, or of the paper's shape with untrained ones."""
    if name in BUILT_IN:
        weights = load_weights(name)
        return build_model(weights, "cpu"), weights.tracker_config
    config, tracker_config = MODELS[name]
    model = RTS(config)
    model.load_state_dict(untrained_state(network_layout(config)), strict=False)
    return model.requires_grad_(False), tracker_config


def show(row: dict[str, Any]) -> dict[str, Any]:
    cells = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    print("  ".join(cells), flush=True)
    return row


def measure(
    name: str, plain: RTS, config: TrackerConfig, arguments: argparse.Namespace, flop: int, *, last: bool
) -> dict[str, Any]:
    """Measures the plain tracker (`plain`) or the device's in a profile; a file and a long run in the last one only."""
    device, frames = arguments.device, Frames(tuple(arguments.size))
    precision: Profile = "exact" if name == "plain" else name  # type: ignore[assignment]
    set_precision(device, precision)
    rate = convolution_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    result: dict[str, Any] = {"name": name, "convolution TFLOP/s": rate / 1e12}
    if name == "plain":
        return show(result | single(Tracker(plain, config), frames, arguments.frames, device))
    model = fast(plain, profile=precision)
    tracker = GpuTracker(model, config)
    result |= single(tracker, frames, arguments.frames, device)
    if "after 101 ms" in result:
        result["share of it"] = flop / (result["after 101 ms"] / 1e3) / rate
    show(result)
    if arguments.table:
        print(kernels(tracker, frames, device), flush=True)
    result["stages ms"] = show(stages(tracker, device))
    del tracker
    count = arguments.frames // 2
    result["lanes"] = {}
    for lanes in arguments.lanes:
        result["lanes"][lanes] = lanes_rate(model, config, frames, lanes, count)
        show({"lanes": lanes, "frames/s": result["lanes"][lanes]})
    result["targets"] = [
        show(targets_rate(model, config, frames, targets, count, device)) for targets in arguments.targets
    ]
    if arguments.video and last:
        result["decoded"] = [show(decoded_rate(model, config, arguments.video, lanes)) for lanes in arguments.lanes]
    if arguments.long and last:
        result["long"] = show(long_run(GpuTracker(model, config), frames, arguments.long, device))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="rts50", choices=["rts50", *BUILT_IN])
    parser.add_argument("--frames", type=int, default=241)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 854), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--profiles", nargs="+", default=None, help="of plain, exact, tf32, bf16; default: all there are"
    )
    parser.add_argument("--lanes", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--targets", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--video", type=Path, help="a video file, to be tracked with decoding as well")
    parser.add_argument("--long", type=int, default=0, help="frames of a run that watches memory; 0 for none")
    parser.add_argument("--table", action="store_true", help="print the profiler's table of each")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    plain, config = network(arguments.network)
    plain = plain.to(arguments.device)
    flop = frame_flop(plain, config)
    names = arguments.profiles or ["plain", "exact", *(["tf32", "bf16"] if arguments.device != "cpu" else ["bf16"])]
    results = []
    for name in names:
        results.append(measure(name, plain, config, arguments, flop, last=name == names[-1]))
        if not arguments.out:
            continue
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
