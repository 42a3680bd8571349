"""What TensorFloat-32 in matrix products does to masks, tried on a CPU: the gates of `benchmarks/profiles.py`.

A GPU's matrix units read eleven bits of a float32 number's mantissa and sum in float32. Here each operand of a matrix
product in float32 loses the others before it is multiplied: cut off, which is the coarsest that a unit might do. That
is both learners (with the arithmetic that they have on CUDA), both target models and whatever else is a product;
convolutions stay as they are. Networks are the CPU's, so that `exact` with such products can be held to what a GPU
measured for `tf32` (`benchmarks/results/profiles.json`).

    python -m benchmarks.tf32 ../shared/data/davis-dev --out benchmarks/results/tf32.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cpu_tracker import processor
from benchmarks.profiles import FREE_RUN, GATES, free_run, same_state
from rts_batch.config import Profile
from rts_batch.model.fast import learner
from rts_batch.tracking.fast import FastTracker
from rts_batch.tracking.gpu.tracker import GpuSegmentationBranch
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import load_weights

PRODUCTS = (torch.ops.aten.matmul, torch.ops.aten.mm, torch.ops.aten.bmm)
DROPPED = 13
"""Bits of the mantissa that TensorFloat-32 lacks."""
VARIANTS: dict[str, tuple[Profile, bool, Profile]] = {
    "exact, products in TF32": ("exact", True, "tf32"),
    "bf16": ("bf16", False, "bf16"),
    "bf16, products in TF32": ("bf16", True, "bf16"),
}
"""By name: the network's profile, whether products are rounded, and the profile whose gate counts."""


class RoundedProducts(TorchDispatchMode):
    """Cuts the operands of float32 matrix products."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in PRODUCTS:
            args = [cut(operand) for operand in args]
        return function(*args, **(kwargs or {}))


def cut(values: Tensor) -> Tensor:
    if values.dtype != torch.float32:
        return values
    return (values.view(torch.int32) & -(1 << DROPPED)).view(torch.float32)


class RoundedTracker(FastTracker):
    """The fast tracker with such products."""

    def start(self, *args: Any, **options: Any) -> Any:
        with RoundedProducts():
            return super().start(*args, **options)

    def step(self, *args: Any, **options: Any) -> Any:
        with RoundedProducts():
            return super().step(*args, **options)


def tracker_of(profile: Profile, rounded: bool) -> FastTracker:
    loaded = load_weights("rts-mini")
    model, _ = fast_networks(loaded, "cpu", profile=profile)
    kind = RoundedTracker if rounded else FastTracker
    return kind(model, loaded.tracker_config, segmentation=GpuSegmentationBranch)


def measure(davis: Path, sequence: str, frames: int) -> dict[str, Any]:
    count = min(len(list((davis / "JPEGImages/480p" / sequence).glob("*.jpg"))), frames)
    row: dict[str, Any] = {"J exact": free_run(davis, sequence, tracker_of("exact", False), count)}
    for name, (profile, rounded, _) in VARIANTS.items():
        pair = (tracker_of("exact", False), tracker_of(profile, rounded))
        overlap = statistics.fmean(same_state(davis, sequence, pair, count, "cpu", profile))
        row[name] = {"same state": overlap, "J": free_run(davis, sequence, tracker_of(profile, rounded), count)}
    return row


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    exact = statistics.fmean(row["J exact"] for row in rows.values())
    found: dict[str, Any] = {"J exact": exact}
    for name, (_, _, gate) in VARIANTS.items():
        overlap, j = (statistics.fmean(row[name][key] for row in rows.values()) for key in ("same state", "J"))
        passed = overlap >= GATES[gate] and abs(j - exact) <= FREE_RUN
        found[name] = {"same state": overlap, "J": j, "passed": passed}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path, help="folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--clips", type=int, default=1000, help="the first so many clips only")
    parser.add_argument("--frames", type=int, default=36, help="of each clip, as on the GPU")
    parser.add_argument("--out", type=Path, help="write the result as JSON, after each clip")
    given = parser.parse_args()
    learner._arranged = lambda features, filters, width: learner.Taps(features, filters.shape[-1], width)
    rows: dict[str, Any] = {}
    about = {"weights": "rts-mini", "device": processor(), "torch": torch.__version__, "frames": given.frames}
    for folder in sorted((given.davis / "JPEGImages/480p").iterdir())[: given.clips]:
        rows[folder.name] = measure(given.davis, folder.name, given.frames)
        print(folder.name, json.dumps(rows[folder.name]), flush=True)
        if given.out:
            content = {**about, "mean": summary(rows), "clips": rows}
            given.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(summary(rows), indent=1))
    return 0 if all(row["passed"] for name, row in summary(rows).items() if name in VARIANTS) else 1


if __name__ == "__main__":
    sys.exit(main())
