"""Learners and network with the Triton kernels of `model/fast/kernels/` and without, and how far apart results are.

A step of `benchmarks.gpu.network`. Both ways take turns, each captured as it is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.gpu.subject import Subject
from rts_batch.model.fast import fused, instance, joined, learner, networks
from rts_batch.tracking.gpu.graphs import Stage
from rts_batch.tracking.gpu.network import BatchedNetwork

TURNS = 3


def kernels_apart(subject: Subject, name: str) -> dict[str, float]:
    """Return for each of them the ms with kernels and without, and the relative difference of what comes out."""
    network = BatchedNetwork(subject.model(name), subject.config)
    return network.engine.call(lambda: _measure(subject, network))


def _measure(subject: Subject, network: BatchedNetwork) -> dict[str, float]:
    def run_network() -> Tensor:
        return network._forward()[-1]

    for values in network.inputs:
        values.copy_(torch.rand_like(values) * (255 if values is network.inputs[0] else 0.1))
    found: dict[str, float] = {}
    for part, action in {"tau": tau(network), "kappa": kappa(network), "network": run_network}.items():
        found |= {f"{part} {key}": value for key, value in _both(subject, network, action).items()}
    return found


def _both(subject: Subject, network: BatchedNetwork, action: Callable[[], Tensor]) -> dict[str, float]:
    def act() -> None:
        action()

    results: dict[bool, Tensor] = {}
    stages: dict[bool, Stage] = {}
    for kernels in (True, False):
        with _without_kernels(not kernels):
            results[kernels] = action().clone()
            stages[kernels] = Stage(act, network.engine.pool)
            for _ in range(2):  # the second time it is captured
                stages[kernels]()
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TURNS):
        for kernels, stage in stages.items():
            with _without_kernels(not kernels):
                times[kernels].append(subject.milliseconds(stage))
    difference = float((results[True] - results[False]).norm() / results[False].norm())
    return {"ms": min(times[True]), "without ms": min(times[False]), "difference": difference}


@contextmanager
def _without_kernels(without: bool) -> Iterator[None]:
    modules = (fused, instance, joined, learner, networks)
    usual = fused.kernels_for
    if without:
        for module in modules:
            module.kernels_for = lambda name, device: None
    try:
        yield
    finally:
        for module in modules:
            module.kernels_for = usual


def tau(network: BatchedNetwork) -> Callable[[], Tensor]:
    """What a target learns of τ on a frame, from a full memory."""
    config, device = network.config, network.device
    height, width = (side // 16 for side in config.crop_size)
    _, filters, channels, kernel, _ = network.inputs[2].shape

    def drawn(count: int) -> Tensor:
        return learner.border(torch.rand(config.memory_size, count, height, width, device=device), kernel)

    features = drawn(channels).transpose(1, 2).contiguous()
    labels, weights = drawn(filters), drawn(filters)
    start = 0.01 * torch.randn(1, filters, channels, kernel, kernel, device=device)

    def learn() -> Tensor:
        scores = learner.scores_of(features, start, width)
        iterations = config.update_iterations
        samples = learner.Samples(features, labels, weights, scores)
        return learner.fit(start, samples, width=width, reg=0.1, iterations=iterations)[0]

    return learn


def kappa(network: BatchedNetwork) -> Callable[[], Tensor]:
    """What it learns of κ."""
    config, device = network.config, network.device
    height, width = network.outputs[1].shape[-2:]
    count, (_, _, channels, kernel, _) = config.localisation_memory_size, network.inputs[3].shape
    features = torch.rand(count, channels, height, width, device=device)
    labels = torch.rand(count, *network.outputs[2].shape[-2:], device=device).pow(8)
    start = 0.01 * torch.randn(1, 1, channels, kernel, kernel, device=device)
    given = (network.model.classifier, start, features, labels, torch.rand(count, device=device))
    return lambda: instance.fit(*given, iterations=config.localisation_update_iterations)
