"""What the tracker's time on the CPU goes into, stage by stage.

Each stage is timed from outside, on the trackers that workers run; what no stage names is `other`. Beside the times
stands the rate of a calibration convolution measured in the same process, so that results of two machines compare.

    python -m benchmarks.cpu_profile --shared ../shared --out benchmarks/results/cpu_profile.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.cpu_tracker import CALIBRATION_GFLOP, calibration, processor
from rts_batch.config import TRACKER_RTS50
from rts_batch.model.fast.networks import fast
from rts_batch.tracking import tracker as tracker_module
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.registry import build_model, load_weights
from tests.support.parity_data import parity_model, read_davis, read_davis_mask

SIZES = {"rts-mini": (640, 272), "rts50": (854, 480)}
"""Width and height of the frames that each network is measured on."""

PHASES = {"2–10": (2, 10), "11–33": (11, 33), "34–99": (34, 99), "after 101, without an update": (102, 10**9)}


class Stages:
    """Seconds spent in named stages; a stage inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Counts every call of `owner.name` under `stage`."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(stage):
                return inner(*arguments, **named)

        object.__setattr__(owner, name, timed) if isinstance(owner, torch.nn.Module) else setattr(owner, name, timed)

    def take(self) -> dict[str, float]:
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


def watched(tracker: Tracker, stages: Stages) -> None:
    """Puts a clock around the tracker's stages."""
    model = tracker.model
    stages.wrap(model.feature_extractor, "forward", "backbone")
    stages.wrap(model.feature_extractor, "normalise", "normalise")
    stages.wrap(model.target_model.feature_extractor, "forward", "features x_s")
    stages.wrap(model.classifier.feature_extractor, "forward", "features x_c")
    stages.wrap(model.label_encoder, "forward", "mask encoding E, W")
    stages.wrap(model, "localise", "localisation scores")
    stages.wrap(model, "encode_scores", "localisation encoding H")
    stages.wrap(model, "segment", "target model and joining")
    stages.wrap(model.decoder, "forward", "decoder")
    stages.wrap(tracker.segmentation, "_learn", "learn τ")
    stages.wrap(tracker.segmentation.memory, "insert", "store a sample")
    stages.wrap(tracker.localisation, "update", "localisation's place and store")
    stages.wrap(tracker.localisation, "_learn", "learn κ")


@contextmanager
def watched_functions(stages: Stages) -> Iterator[None]:
    names = {
        "sample_image": "crop",
        "paste_scores": "paste back",
        "update_search_state": "moments",
        "tight_box": "box",
        "tracked_frame": "read back",
    }
    kept = {name: getattr(tracker_module, name) for name in names}
    for name, stage in names.items():
        stages.wrap(tracker_module, name, stage)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(tracker_module, name, function)


def measure(shared: Path, network: str, frames: int) -> dict[str, Any]:
    """Returns milliseconds a frame for each phase and stage."""
    if network == "rts50":
        model, config = parity_model(shared / "parity"), replace(TRACKER_RTS50, not_found_threshold=0.12)
    else:
        weights = load_weights(network)
        model, config = build_model(weights, "cpu"), weights.tracker_config
    davis, size = shared / "data/davis-dev", SIZES[network]
    order = [*range(60), *range(58, 0, -1)][:frames]
    images = {index: cv2.resize(read_davis(davis, "dog", index), size) for index in set(order)}
    mask = cv2.resize(read_davis_mask(davis, "dog", 0).astype(np.uint8), size) > 0
    tracker, stages, unit = fast_tracker(fast(model), config), Stages(), calibration()
    watched(tracker, stages)
    rate = CALIBRATION_GFLOP / unit()
    rows: dict[int, dict[str, float]] = {}
    with watched_functions(stages):
        for number, index in enumerate(order, start=1):
            with stages.stage("other"):
                tracker.step(images[index]) if number > 1 else tracker.start(images[index], mask=mask)
            rows[number] = stages.take()
    phases = {"start": [rows[1]]}
    for name, (first, last) in PHASES.items():
        phases[name] = [
            row for number, row in rows.items() if first <= number <= last and (number < 100 or (number - 1) % 20)
        ]
    return {
        "network": network,
        "frame": f"{size[0]}×{size[1]}",
        "calibration_gflop_per_s": round(rate, 1),
        "milliseconds": {name: summary(each) for name, each in phases.items() if each},
    }


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians over frames, the largest first, and of their sum."""
    names = {name for row in rows for name in row}
    medians = {name: 1e3 * statistics.median(row.get(name, 0.0) for row in rows) for name in names}
    whole = 1e3 * statistics.median(sum(row.values()) for row in rows)
    ordered = sorted(medians.items(), key=lambda item: -item[1])
    return {"frame": round(whole, 2)} | {name: round(value, 2) for name, value in ordered}


def show(result: dict[str, Any]) -> None:
    phases: dict[str, dict[str, float]] = result["milliseconds"]
    print(
        f"{result['network']}, {result['frame']}, calibration {result['calibration_gflop_per_s']} GFLOP/s; ms a frame"
    )
    names = list(dict.fromkeys(name for phase in phases.values() for name in phase))
    print(f"{'':32}" + "".join(f"{name.split(',')[0]:>12}" for name in phases))
    for name in names:
        print(f"{name:32}" + "".join(f"{phase.get(name, 0):12.1f}" for phase in phases.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with parity/ and data/davis-dev")
    parser.add_argument("--networks", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--frames", type=int, default=118)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [measure(arguments.shared, network, arguments.frames) for network in arguments.networks]
    for result in results:
        show(result)
    if arguments.out:
        machine = {"processor": processor(), "threads": arguments.threads, "torch": torch.__version__}
        content = {
            "what": "milliseconds of the fast tracker's stages, medians over frames",
            "machine": machine,
            "load_at_end": os.getloadavg()[0],
            "command": f"python -m benchmarks.cpu_profile --frames {arguments.frames} --threads {arguments.threads} "
            f"--networks {' '.join(arguments.networks)}",
            "results": results,
        }
        arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
