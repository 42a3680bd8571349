"""The Triton kernels against the same steps as tensor operations, on the CPU under Triton's interpreter.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rts_batch.config import TrackerConfig
from rts_batch.tracking.gpu.engine import Step
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.steps import SlotSteps
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.tracker import Tracker
from tests.support.interpreter import few_programs, interpreted
from tests.support.parity_data import synthetic_frame
from tests.support.trackers import SMALL, as_on_a_gpu

pytestmark = pytest.mark.networks

CASES = {
    # Frame 3 loses the target.
    "lost and found": replace(SMALL, not_found_threshold=0.35, localisation_memory_size=7, memory_size=22),
    "no fallback": replace(SMALL, not_found_threshold=5.0, localisation_fallback=False, dense_frames=2),
}


@pytest.mark.slow  # the test of a round is the same of several
@pytest.mark.parametrize("case", CASES)
def test_kernels_do_what_the_tensor_operations_do(case: str) -> None:
    interpreted("tests.tracking.gpu.kernels.test_steps", case)


def compare(config: TrackerConfig) -> None:
    """Step the same frames both ways and hold every tensor of the state to the other's."""
    import rts_batch.tracking.gpu.tracker as gpu
    from rts_batch.tracking.gpu.kernels import rounds
    from rts_batch.tracking.gpu.kernels.steps import KernelSteps, try_launch

    few_programs(rounds)
    try_launch(torch.device("cpu"))
    network = as_on_a_gpu()
    gpu.steps_class = lambda device: SlotSteps
    tensors = GpuTracker(network, config)
    gpu.steps_class = lambda device: KernelSteps
    kernels = GpuTracker(network, config)
    frame, mask = synthetic_frame(96, 128, 0)
    for tracker in (tensors, kernels):
        tracker.start(frame, mask=mask)
    for number in range(2, 6):
        frame = synthetic_frame(96, 128, number - 1)[0]
        if number == 3:
            frame = np.full_like(frame, 90)
        expected = tensors.step(frame)
        found = kernels.step(frame)
        assert (found.state, found.region, found.area) == (expected.state, expected.region, expected.area), number
        assert np.array_equal(found.mask, expected.mask), number
        alike(kernels._steps, tensors._steps, number)


def alike(ours: Any, theirs: Any, number: object) -> None:
    """Hold every tensor of a target's state to that of the tensor operations."""
    assert type(theirs) is SlotSteps
    assert type(ours) is not SlotSteps
    pairs = [
        (ours.network.inputs[0][ours.place], theirs.crop),
        (ours.network.inputs[1][ours.place], theirs.previous_mask),
        (ours.scores, theirs.scores),
        (ours.numbers, theirs.numbers),
        (ours.state.values, theirs.state.values),
        (ours.label, theirs.label),
        (ours.signals, theirs.signals),
        (ours.tau, theirs.tau),
        (ours.kappa, theirs.kappa),
    ]
    for mine, other in ((ours.segmentation, theirs.segmentation), (ours.localisation, theirs.localisation)):
        pairs += [(mine.weights, other.weights), *zip(mine.slots.values(), other.slots.values(), strict=True)]
        assert torch.equal(mine.age, other.age), number
        assert torch.equal(mine.counters, other.counters), number
    for place, (mine, other) in enumerate(pairs):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-3, equal_nan=True), (number, place)
    assert torch.equal(ours.state.flags, theirs.state.flags)
    assert torch.equal(ours.state.places, theirs.state.places)


SIZES = {"dense": (96, 128), "settled": (120, 90), "lost": (70, 200)}
"""Targets of a round, each with images of its own size: one that learns on each frame, one that no longer does, and
one that is lost on its second frame and found again."""


ALONE = "settled"
"""Who is stepped by itself as well: in the round it is the second, or the first where another has no frame."""


@pytest.mark.long
def test_a_round_of_unlike_targets_is_what_each_is_alone() -> None:
    interpreted("tests.tracking.gpu.kernels.test_steps", "round")


def same_bits(mask: np.ndarray, other_mask: np.ndarray, ours: Any, theirs: Any) -> None:
    """Hold what became of a target among others to what becomes of it alone."""
    assert np.array_equal(mask, other_mask)
    for values, same in (
        *((getattr(ours, name), getattr(theirs, name)) for name in ("scores", "signals", "tau", "kappa")),
        (ours.state.values, theirs.state.values),
        *zip(ours.segmentation.slots.values(), theirs.segmentation.slots.values(), strict=True),
    ):
        assert torch.equal(values.nan_to_num(7), same.nan_to_num(7))


class Launches(TorchDispatchMode):
    """Counts kernels that are launched, and operations beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))

    def launch(self, launch: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any, **options: Any) -> None:
            self.kernels += 1
            launch(*args, **options)

        return counted


def frame_of(name: str, number: int) -> np.ndarray:
    frame = synthetic_frame(*SIZES[name], number - 1)[0]
    return np.full_like(frame, 90) if name == "lost" and number == 3 else frame


def compare_round(config: TrackerConfig) -> None:
    """Step targets in one network's rounds, each of them alone in another's, and by tensor operations."""
    import rts_batch.tracking.gpu.tracker as gpu
    from rts_batch.tracking.gpu.kernels import rounds
    from rts_batch.tracking.gpu.kernels.steps import KernelSteps

    few_programs(rounds)
    network = as_on_a_gpu()
    gpu.steps_class = lambda device: KernelSteps
    together = BatchedNetwork(network, config, places=4)
    ours = {name: GpuTracker(network, config, network=together) for name in SIZES}
    by_itself = GpuTracker(network, config, network=BatchedNetwork(network, config, places=4))
    gpu.steps_class = lambda device: SlotSteps
    theirs = {name: GpuTracker(network, config) for name in SIZES}
    for name, size in SIZES.items():
        frame, mask = synthetic_frame(*size, 0)
        for tracker in (ours[name], theirs[name], *([by_itself] if name == ALONE else [])):
            tracker.start(frame, mask=mask)
            tracker._save()
            if name == "settled":
                Tracker.state.fget(tracker).frame_number = config.dense_frames + 1  # type: ignore[attr-defined]
    counts = {}
    for number in range(2, 5):
        names = [name for name in SIZES if (number, name) not in ((3, "dense"),)]  # who has no frame is in no round
        frames = {name: frame_of(name, number) for name in names}
        steps = [Step(ours[name], torch.from_numpy(frames[name])) for name in names]
        counted = Launches()

        def serve(steps: list[Step] = steps, counted: Launches = counted) -> None:
            for step in steps:
                step.target.prepare(step.frame, None)
            usual = rounds.launch
            rounds.launch = counted.launch(usual)
            try:
                with counted:
                    together.rounds.run([step.target._slot for step in steps])  # type: ignore[attr-defined]
            finally:
                rounds.launch = usual
            for step in steps:
                step.reading.set_result(step.target.finish())

        together.engine.call(serve)
        learning = sum(ours[name]._steps.due for name in names)
        counts[number] = (counted.kernels, counted.operations, learning, len(names))
        for step, name in zip(steps, names, strict=True):
            found, expected = step.reading.result().frame(), theirs[name].step(frames[name])
            assert np.array_equal(found.mask, expected.mask), (number, name)
            assert (found.state, found.region, found.area) == (expected.state, expected.region, expected.area)
            alike(ours[name]._steps, theirs[name]._steps, (number, name))
            if name == ALONE:
                same_bits(found.mask, by_itself.step(frames[name]).mask, ours[name]._steps, by_itself._steps)
    (kernels, operations, none, _), (_, more, one, _), _ = counts.values()
    assert (none, one) == (0, 1)
    for found in counts.values():  # three targets, two, and three of which two learn
        assert found[:2] == (kernels, operations + found[2] * (more - operations)), counts


if __name__ == "__main__":
    if sys.argv[1] == "round":
        compare_round(CASES["lost and found"])
    else:
        compare(CASES[sys.argv[1]])
