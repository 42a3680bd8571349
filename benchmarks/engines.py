"""What runs the network's convolutions on a CPU: PyTorch's packed layers against parts compiled by OpenVINO.

Both run the same part in turns in one process, so that a machine whose speed drifts moves both; the medians and the
ratios of medians count. Beside the times stands how far each is from the plain network.

    python -m benchmarks.engines --out benchmarks/results/engines.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_tracker import processor
from rts_batch.config import RTS50, TRACKER_RTS50
from rts_batch.model.fast.compiled import engine_name
from rts_batch.model.fast.networks import fast
from rts_batch.model.rts import RTS
from rts_batch.weights.registry import build_model, load_weights


def plain_network(name: str) -> tuple[RTS, tuple[int, int]]:
    """The network and its crop's size; rts50's weights are drawn, which changes neither its time nor its rounding."""
    if name == "rts50":
        torch.manual_seed(0)
        return RTS(RTS50).requires_grad_(False), TRACKER_RTS50.crop_size
    weights = load_weights(name)
    return build_model(weights, "cpu"), weights.tracker_config.crop_size


def variants(plain: RTS) -> dict[str, RTS]:
    found = {}
    for engine in ("packed", "openvino"):
        os.environ["RTS_BATCH_CPU_ENGINE"] = engine
        for profile in ("exact", "bf16"):
            found[f"{engine} {profile}"] = fast(plain, profile=profile)
    return found


def in_turns(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, the median of `rounds`, one after the other in every round; the first round is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: round(1000 * statistics.median(each), 2) for name, each in seconds.items()}


def measure(name: str, threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    plain, crop_size = plain_network(name)
    networks = variants(plain)
    torch.manual_seed(1)
    crop = 255 * torch.rand(1, 3, *crop_size)
    mask = (torch.rand(1, 1, *crop_size) > 0.5).float()
    tau = 0.05 * torch.randn(1, *plain.target_model.filter_shape)
    expected = plain.extract(crop)
    scores = torch.rand(1, 1, *(length + 1 for length in expected.localisation.shape[-2:]))
    logits = plain.segment(expected.segmentation[:, None], expected.maps, tau, scores)
    found = {key: network.extract(crop) for key, network in networks.items()}

    def segment(key: str) -> torch.Tensor:
        return networks[key].segment(found[key].segmentation[:, None], found[key].maps, tau, scores)

    def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
        return float(f"{float((ours.float() - theirs).norm() / theirs.norm()):.1e}")

    parts: dict[str, Callable[[str], Any]] = {
        "backbone and features": lambda key: networks[key].extract(crop),
        "mask from score maps": segment,
        "mask encoding": lambda key: networks[key].label_encoder(mask),
    }
    return {
        "network": name,
        "crop": list(crop_size),
        "threads": threads,
        "milliseconds": {
            part: in_turns({key: lambda key=key, run=run: run(key) for key in networks}, rounds)
            for part, run in parts.items()
        },
        "relative error": {
            key: {
                "features": error(found[key].segmentation, expected.segmentation),
                "logits": error(segment(key), logits),
            }
            for key in networks
        },
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["rts-mini", "rts50"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    given = parser.parse_args()
    rows = [measure(name, threads, given.rounds) for name in given.networks for threads in given.threads]
    result = {"machine": processor(), "torch": torch.__version__, "engine": engine_name(), "rows": rows}
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
