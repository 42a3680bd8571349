"""The Triton kernels against the same steps as tensor operations, on the CPU under Triton's interpreter.

The interpreter is chosen when Triton is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from rts_batch.config import TrackerConfig
from rts_batch.model.fast.networks import fast
from rts_batch.tracking.gpu.steps import SlotSteps
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.weights.registry import build_model, load_weights
from tests.support.interpreter import interpreted
from tests.support.parity_data import synthetic_frame
from tests.support.trackers import SMALL

pytestmark = pytest.mark.networks

CASES = {
    # Frame 3 loses the target.
    "lost and found": replace(SMALL, not_found_threshold=0.35, localisation_memory_size=7, memory_size=22),
    "no fallback": replace(SMALL, not_found_threshold=5.0, localisation_fallback=False, dense_frames=2),
}


@pytest.mark.parametrize("case", ["lost and found", pytest.param("no fallback", marks=pytest.mark.slow)])
def test_kernels_do_what_the_tensor_operations_do(case: str) -> None:
    interpreted("tests.tracking.gpu.kernels.test_steps", case)


def compare(config: TrackerConfig) -> None:
    """Step the same frames both ways and hold every tensor of the state to the other's."""
    import rts_batch.tracking.gpu.tracker as gpu
    from rts_batch.tracking.gpu.kernels.steps import KernelSteps, try_launch

    try_launch(torch.device("cpu"))
    network = fast(build_model(load_weights("rts-mini"), "cpu"))
    tensors, kernels = GpuTracker(network, config), GpuTracker(network, config)
    frame, mask = synthetic_frame(96, 128, 0)
    for tracker in (tensors, kernels):
        tracker.start(frame, mask=mask)
    for number in range(2, 6):
        frame = synthetic_frame(96, 128, number - 1)[0]
        if number == 3:
            frame = np.full_like(frame, 90)
        gpu.steps_class = lambda device: SlotSteps
        expected = tensors.step(frame)
        gpu.steps_class = lambda device: KernelSteps
        found = kernels.step(frame)
        assert (found.state, found.region, found.area) == (expected.state, expected.region, expected.area), number
        assert np.array_equal(found.mask, expected.mask), number
        ours, theirs = kernels._steps, tensors._steps
        assert type(ours) is KernelSteps
        assert type(theirs) is SlotSteps
        pairs = [
            (ours.crop, theirs.crop),
            (ours.previous_mask, theirs.previous_mask),
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


if __name__ == "__main__":
    compare(CASES[sys.argv[1]])
