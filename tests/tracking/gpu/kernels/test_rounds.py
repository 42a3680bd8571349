"""Rounds that fail, rounds of fewer places than targets, and a slot that goes on with other images, interpreted."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch

from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker
from tests.support.interpreter import few_programs, interpreted
from tests.support.parity_data import synthetic_frame
from tests.support.trackers import SMALL, as_on_a_gpu

SIZES = [(96, 128), (120, 90)]


@pytest.mark.networks
@pytest.mark.long
def test_a_round_that_fails_is_done_target_by_target_and_nothing_twice() -> None:
    interpreted("tests.tracking.gpu.kernels.test_rounds")


def started(size: tuple[int, int], network: BatchedNetwork) -> GpuTracker:
    tracker = GpuTracker(network.model, SMALL, network=network)
    frame, mask = synthetic_frame(*size, 0)
    tracker.start(frame, mask=mask)
    return tracker


def stepped(trackers: list[GpuTracker], index: int) -> list[np.ndarray]:
    """Masks of a frame that all bring before the engine looks."""
    held = threading.Event()
    trackers[0].network.engine.post(lambda: held.wait(60) and None)
    late = [tracker.step_late(synthetic_frame(*size, index)[0]) for tracker, size in zip(trackers, SIZES, strict=False)]
    held.set()
    return [one.read().mask for one in late]


def compare() -> None:
    import rts_batch.tracking.gpu.tracker as gpu
    from rts_batch.tracking.gpu.kernels import rounds
    from rts_batch.tracking.gpu.kernels.steps import KernelSteps

    few_programs(rounds)
    rounds.can_liken = lambda device: False  # then the slots measure, by tensor operations
    gpu.steps_class = lambda device: KernelSteps
    model = as_on_a_gpu()
    together = BatchedNetwork(model, SMALL, places=2)
    in_turns = BatchedNetwork(model, SMALL, places=2, at_once=1)
    ours, theirs = ([started(size, network) for size in SIZES] for network in (together, in_turns))
    whole, failures = together.stage, [RuntimeError("out of memory")]

    def fails_once() -> None:
        if failures:
            raise failures.pop()
        whole()

    together.stage = fails_once  # type: ignore[assignment]
    measure, troubles = KernelSteps.measure, [RuntimeError("out of memory"), None, None, None]

    def fails_second(steps: KernelSteps) -> None:
        if steps.network is together and troubles and (trouble := troubles.pop()):
            raise trouble
        measure(steps)

    KernelSteps.measure = fails_second  # type: ignore[method-assign]
    for index in (1, 2):
        for found, expected in zip(*map(partial(stepped, index=index), (ours, theirs)), strict=True):
            assert np.array_equal(found, expected)
    assert not failures
    assert not troubles
    for one, other in zip(ours, theirs, strict=True):
        mine, its = one._steps, other._steps
        assert mine is not None
        assert its is not None
        assert torch.equal(mine.segmentation.counters, its.segmentation.counters)
        assert torch.equal(mine.localisation.counters, its.localisation.counters)
        assert torch.equal(mine.localisation.age, its.localisation.age)
        assert torch.allclose(mine.tau, its.tau, atol=1e-5)
    slot = ours[0]._slot
    ours[0].close()
    smaller, alone = (started((64, 100), network) for network in (together, in_turns))
    frame = synthetic_frame(64, 100, 1)[0]
    assert np.array_equal(smaller.step(frame).mask, alone.step(frame).mask)
    assert smaller._slot is slot


if __name__ == "__main__":
    compare()
