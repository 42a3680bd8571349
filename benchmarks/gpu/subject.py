"""What the parts measure: networks, synthetic frames in memory, and what they all are told."""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_tracker import processor
from benchmarks.gpu.notes import Notes
from rts_batch.config import MODELS, Profile, TrackerConfig
from rts_batch.model.fast.networks import fast, set_precision
from rts_batch.model.rts import RTS
from rts_batch.weights.layout import network_layout
from rts_batch.weights.registry import BUILT_IN, build_model, load_weights
from rts_batch.weights.untrained import untrained_state
from tests.support.parity_data import synthetic_frame

SMALL: dict[str, Any] = {
    "crop_size": (96, 160),
    "init_iterations": 3,
    "memory_size": 12,
    "localisation_memory_size": 8,
    "initial_warps": (),
    "dense_frames": 4,
}
"""A procedure that a CPU does in no time, to see that a part runs."""


class Subject:
    """The options of a part, and what they mean.

    Args:
        options: of `parser`, read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.device: str = options.device
        self.small: bool = options.small
        self.profiles: list[str] = options.profiles
        self.size: tuple[int, int] = (96, 128) if options.small else tuple(options.size)
        self._name: str = options.network
        self.plain, self.config = network(options.network)
        if options.small:
            self.config = replace(self.config, **SMALL)
        self.plain = self.plain.to(self.device)
        self.frames = Frames(self.size)

    def model(self, profile: str) -> RTS:
        """Return the network as it is in a profile; `plain` is the one that was trained.

        What was made of one before goes first, if nobody has it any more: its parts know each other, and the memory of
        their graphs would count as that of the step to come.
        """
        gc.collect()
        precision: Profile = "exact" if profile == "plain" else profile  # type: ignore[assignment]
        set_precision(self.device, precision)
        return self.plain if profile == "plain" else fast(self.plain, profile=precision)

    def notes(self, path: Path | None, **about: Any) -> Notes:
        """Return where to write, with the conditions."""
        name = processor() if self.device == "cpu" else torch.cuda.get_device_name()
        conditions = {
            "network": self._name,
            "frames": f"{self.size[1]}×{self.size[0]}" + (", a small procedure" if self.small else ""),
            "device": name,
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        }
        return Notes(path, {**conditions, **about})

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def milliseconds(self, action: Callable[[], object], count: int = 30) -> float:
        """Return the median of so many calls, each with the device's own work."""
        seconds = []
        for _ in range(3 if self.small else count):
            self.wait()
            began = time.perf_counter()
            action()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return 1e3 * statistics.median(seconds)


class Frames:
    """Synthetic frames in memory, the same eight over and over."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.pairs = [synthetic_frame(*size, index) for index in range(8)]

    def image(self, number: int) -> Any:
        return self.pairs[number % len(self.pairs)][0]


def network(name: str) -> tuple[RTS, TrackerConfig]:
    """Return the network of weights that the package has, or of the paper's shape; untrained weights cost the same."""
    if name in BUILT_IN:
        weights = load_weights(name)
        return build_model(weights, "cpu"), weights.tracker_config
    config, tracker_config = MODELS[name]
    model = RTS(config)
    model.load_state_dict(untrained_state(network_layout(config)), strict=False)
    return model.requires_grad_(False), tracker_config


def parser(description: str | None, *, profiles: Sequence[str] = ("bf16",)) -> argparse.ArgumentParser:
    """Return a parser of the options that all parts have."""
    made = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    made.add_argument("--device", default="cuda")
    made.add_argument("--network", default="rts50", choices=["rts50", *BUILT_IN])
    made.add_argument("--profiles", nargs="+", default=list(profiles))
    made.add_argument("--size", type=int, nargs=2, default=(480, 854), metavar=("HEIGHT", "WIDTH"))
    made.add_argument("--small", action="store_true", help="few tiny frames, to see that it runs")
    made.add_argument("--out", type=Path, help="the JSON file, written after each step")
    return made
