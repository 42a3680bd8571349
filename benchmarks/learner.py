"""The learner of τ on a CPU: a filter's taps as shifts along rows of pixels against oneDNN's convolution.

Both take the same steps on the same full memory in turns in one process; the medians and their ratio count.

    python -m benchmarks.learner --out benchmarks/results/learner.json
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_tracker import processor
from benchmarks.engines import in_turns
from rts_batch.config import MODELS, ModelConfig, TrackerConfig
from rts_batch.model.fast import learner


def steps(arranged: Any, model: ModelConfig, tracker: TrackerConfig) -> Callable[[], Any]:
    """What a frame learns from a full memory, with the arithmetic given."""
    torch.manual_seed(0)
    height, width = (side // 16 for side in tracker.crop_size)
    count, filters, kernel = tracker.memory_size, model.num_filters, model.target_filter_size

    def drawn(channels: int) -> torch.Tensor:
        return learner.border(torch.rand(count, channels, height, width), kernel)

    features = drawn(model.feature_dim).transpose(1, 2).contiguous()
    labels, weights = drawn(filters), drawn(filters)
    tau = 0.01 * torch.randn(1, filters, model.feature_dim, kernel, kernel)
    scores = learner.scores_of(features, tau, width).contiguous()

    samples = learner.Samples(features, labels, weights, scores)

    def run() -> None:
        learner._arranged = lambda features, filters, width: arranged(features, filters.shape[-1], width)
        learner.fit(tau, samples, width=width, reg=0.1, iterations=tracker.update_iterations)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    given = parser.parse_args()
    results = []
    for name in ("rts-mini", "rts50"):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            kinds = {"taps": learner.Taps, "convolution": learner.Convolution}
            with torch.inference_mode():
                runs = {kind: steps(arranged, *MODELS[name]) for kind, arranged in kinds.items()}
                times = in_turns(runs, given.rounds)
            ratio = round(times["taps"] / times["convolution"], 2)
            results.append({"network": name, "threads": threads, "milliseconds": times, "ratio": ratio})
            print(json.dumps(results[-1]), flush=True)
    about = {"machine": processor(), "cores": os.cpu_count(), "torch": torch.__version__, "rounds": given.rounds}
    if given.out:
        given.out.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
