"""Compares the precision profiles with `exact` on DAVIS's development half, with the shipped network.

Two measures. *Same state*: on every frame the profile's tracker gets the state of the exact one and both take one step;
the mean IoU of their masks is the gate, 0.995 for `tf32` and 0.99 for `bf16`. *Free run*: both track by themselves; the
means of J against the annotations may differ by 0.005. Ends with 1 where a gate is missed.

    python -m benchmarks.profiles ../shared/data/davis-dev --out benchmarks/results/profiles.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_tracker import processor
from rts_batch.config import Profile
from rts_batch.model.fast.networks import set_precision
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import load_weights
from tests.support.parity_data import iou, read_davis, read_davis_mask

GATES: dict[Profile, float] = {"tf32": 0.995, "bf16": 0.99}
FREE_RUN = 0.005


def tracker_of(profile: Profile, device: str, weights: str) -> Tracker:
    loaded = load_weights(weights)
    model, _ = fast_networks(loaded, device, profile=profile)
    return (GpuTracker if device != "cpu" else fast_tracker)(model, loaded.tracker_config)


def same_state(
    davis: Path, sequence: str, trackers: tuple[Tracker, Tracker], frames: int, device: str, profile: Profile
) -> list[float]:
    """Returns the IoU of both trackers' masks on each frame, each from the first tracker's state before it."""
    exact, other = trackers
    set_precision(device, "exact")  # a setting of the process, so it goes back and forth
    exact.start(read_davis(davis, sequence, 0), mask=read_davis_mask(davis, sequence, 0))
    overlaps = []
    for index in range(1, frames):
        frame, before = read_davis(davis, sequence, index), exact.snapshot()
        set_precision(device, profile)
        other.restore(before)
        found = other.step(frame).mask
        set_precision(device, "exact")
        overlaps.append(iou(exact.step(frame).mask, found))
    return overlaps


def free_run(davis: Path, sequence: str, tracker: Tracker, frames: int) -> float:
    """Returns the mean J of a run that is left to itself."""
    tracker.start(read_davis(davis, sequence, 0), mask=read_davis_mask(davis, sequence, 0))
    return statistics.fmean(
        iou(tracker.step(read_davis(davis, sequence, index)).mask, read_davis_mask(davis, sequence, index))
        for index in range(1, frames)
    )


def measure(davis: Path, profile: Profile, arguments: argparse.Namespace) -> dict[str, Any]:
    sequences = sorted(folder.name for folder in (davis / "JPEGImages/480p").iterdir())[: arguments.clips]
    device, weights = arguments.device, arguments.weights
    result: dict[str, Any] = {"profile": profile, "clips": {}}
    for sequence in sequences:
        count = min(len(list((davis / "JPEGImages/480p" / sequence).glob("*.jpg"))), arguments.frames)
        row: dict[str, float] = {}
        pair = (tracker_of("exact", device, weights), tracker_of(profile, device, weights))
        row["same state"] = statistics.fmean(same_state(davis, sequence, pair, count, device, profile))
        row["J exact"] = free_run(davis, sequence, tracker_of("exact", device, weights), count)
        row["J"] = free_run(davis, sequence, tracker_of(profile, device, weights), count)
        result["clips"][sequence] = row
        print(f"{profile:6}{sequence:22}" + "  ".join(f"{name} {value:.4f}" for name, value in row.items()), flush=True)
    for name in ("same state", "J exact", "J"):
        values = [row[name] for row in result["clips"].values() if name in row]
        if values:
            result[f"mean {name}"] = statistics.fmean(values)
    reached = result.get("mean same state", 1.0) >= GATES[profile]
    result["passed"] = reached and abs(result["mean J"] - result["mean J exact"]) <= FREE_RUN
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("davis", type=Path, help="folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--profiles", nargs="+", choices=list(GATES), help="default: all that the device has")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weights", default="rts-mini")
    parser.add_argument("--clips", type=int, default=1000, help="the first so many clips only")
    parser.add_argument("--frames", type=int, default=60, help="of each clip")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    profiles = arguments.profiles or [name for name in GATES if name != "tf32" or arguments.device != "cpu"]
    results = [measure(arguments.davis, profile, arguments) for profile in profiles]
    for result in results:
        print({name: value for name, value in result.items() if name != "clips"})
    if arguments.out:
        device = torch.cuda.get_device_name() if arguments.device != "cpu" else processor()
        content = {"weights": arguments.weights, "device": device, "torch": torch.__version__, "results": results}
        arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
