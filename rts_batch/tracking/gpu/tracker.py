"""The tracker of CUDA devices: nothing that a step decides has to be known by the host before the next one.

State lies in tensors (`state.py`, `memory.py`), the search region is looked up rather than cut out
(`region.py`), and the network runs for all slots of a worker together (`batch.py`). What the host reads is one
packed result a frame, when somebody looks at it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.errors import SettingsError
from rts_batch.masks import Box, TrackedFrame
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.fast import FastSegmentationBranch
from rts_batch.tracking.gpu.batch import BatchedNetwork, Slot
from rts_batch.tracking.gpu.result import Reading
from rts_batch.tracking.gpu.steps import Branches, SlotSteps
from rts_batch.tracking.result import Pending, StepResult
from rts_batch.tracking.state import TrackerState
from rts_batch.tracking.tracker import Tracker, check_frame

log = logging.getLogger(__name__)


def supports(config: TrackerConfig) -> bool:
    """Whether a procedure can run without the host: with the released rules, and where a second peak never counts.

    The paper's schedule depends on what was stored, and a distractor's on what was seen.
    """
    return config.rules == "code" and min(config.distractor_threshold, config.hard_negative_threshold) >= 1


class GpuTracker(Tracker):
    """Identical to the fast tracker but for rounding and for when a result can be read.

    `start` and `correct` are the fast tracker's own; before them the state is taken back to the host.

    Args:
        network: the slots to run in; one of its own where absent.
    """

    def __init__(
        self, model: RTS, config: TrackerConfig, *, sta: STA | None = None, network: BatchedNetwork | None = None
    ) -> None:
        if not supports(config):
            raise SettingsError("these tracker settings need the host between frames; use fast_tracker")
        super().__init__(model, config, sta=sta, segmentation=GpuSegmentationBranch)
        self.network = network or BatchedNetwork(model, config)
        self._steps: SlotSteps | None = None
        """Where the state is, unless the host has it."""

    @property
    def state(self) -> TrackerState:
        """The state as the host has it, and with it both branches; waits for the device."""
        self._save()
        return super().state

    def step(self, frame: NDArray[np.uint8]) -> TrackedFrame:
        """`Tracker.step`; waits for the device."""
        return self.step_late(frame).read()

    def step_late(self, frame: NDArray[np.uint8]) -> Pending:
        """`Tracker.step_late`."""
        return Pending(advance([(self, frame, None)])[0].frame)

    def step_scores(self, frame: NDArray[np.uint8], previous: Tensor | None = None) -> StepResult:
        """`Tracker.step_scores`; the scores are valid until the next step."""
        return advance([(self, frame, previous)])[0].scores()

    @staticmethod
    def step_together(steps: Sequence[tuple[Tracker, NDArray[np.uint8], Tensor]]) -> list[StepResult]:
        """`Tracker.step_together`, as many at once as their network has slots."""
        slots = len(_network_of(steps[0][0]).slots)
        if len(steps) <= slots:
            return [reading.scores() for reading in advance(steps)]
        results: list[StepResult] = []
        for begin in range(0, len(steps), slots):
            # The next ones need the slots that these are in.
            found = (reading.scores() for reading in advance(steps[begin : begin + slots]))
            results += [dataclasses.replace(result, scores=result.scores.clone()) for result in found]
        return results

    @staticmethod
    def step_apart(trackers: Sequence[Tracker], frame: NDArray[np.uint8]) -> list[Pending]:
        """`Tracker.step_apart`, as many at once as their network has slots."""
        slots = len(_network_of(trackers[0]).slots)
        if len(trackers) <= slots:
            return [Pending(reading.frame) for reading in advance([(tracker, frame, None) for tracker in trackers])]
        found: list[Pending] = []
        for begin in range(0, len(trackers), slots):
            found += GpuTracker.step_apart(trackers[begin : begin + slots], frame)
            for pending in found[begin:]:
                pending.read()  # the next ones need the slots that these are in
        return found

    def start_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        with self.network.undisturbed(self):
            self._steps = None
            return super().start_scores(frame, mask=mask, box=box)

    def correct_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        with self.network.undisturbed(self):
            self._leave_device()
            return super().correct_scores(frame, mask=mask, box=box)

    def snapshot(self) -> dict[str, Any]:
        with self.network.undisturbed(self):
            return super().snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        with self.network.undisturbed(self):
            self._steps = None
            super().restore(snapshot)

    @torch.inference_mode()
    def leave(self) -> None:
        """Take everything back to the host's objects, so that another target may have the slot."""
        self._leave_device()
        for branch in (self.segmentation, self.localisation):
            branch.memory.slots = {name: values.clone() for name, values in branch.memory.slots.items()}

    def enter(self, slot: Slot, frame: NDArray[np.uint8]) -> SlotSteps:
        """Put the state into a slot, unless it is there."""
        if self._steps is not None:
            check_frame(frame, self._steps.image_size)
            return self._steps
        state = super().state
        check_frame(frame, state.probabilities.shape)
        size = (frame.shape[0], frame.shape[1])
        self._steps = slot.steps_for(size, lambda: steps_class(slot.network.device)(slot, self._branches, size))
        self._steps.load(self._branches, state)
        return self._steps

    @property
    def _branches(self) -> Branches:
        return Branches(self.segmentation, self.localisation)

    @torch.inference_mode()
    def _leave_device(self) -> None:
        self._save()
        self._steps = None

    @torch.inference_mode()
    def _save(self) -> None:
        if self._steps is not None:
            self._steps.save(self._branches, super().state)


@torch.inference_mode()
def advance(steps: Sequence[tuple[Tracker, NDArray[np.uint8], Tensor | None]]) -> list[Reading]:
    """Take the next frame of trackers of one `BatchedNetwork`, no more of them than it has slots."""
    network = _network_of(steps[0][0])
    with contextlib.ExitStack() as holding:
        held = []
        for tracker, frame, previous in steps:
            assert isinstance(tracker, GpuTracker)
            slot = holding.enter_context(network.holding(tracker))
            held.append((slot, tracker.enter(slot, frame)))
            held[-1][1].prepare(frame, previous)
        with network.results_of([slot for slot, _ in held]):
            return [stages.finish() for _, stages in held]


@functools.cache
def steps_class(device: torch.device) -> type[SlotSteps]:
    """Triton kernels on CUDA; PyTorch operations elsewhere, and where a kernel cannot be built and launched.

    Triton builds its driver with a C compiler when the first kernel is launched, so that being installed says nothing.
    """
    if device.type == "cuda":
        try:
            from rts_batch.tracking.gpu.kernels.steps import KernelSteps, try_launch

            try_launch(device)
        except Exception as error:  # whatever a missing compiler, driver or Triton raises
            log.warning("Triton kernels cannot run here, so a frame takes longer: %s", error)
        else:
            return KernelSteps
    return SlotSteps


def _network_of(tracker: Tracker) -> BatchedNetwork:
    assert isinstance(tracker, GpuTracker)
    return tracker.network


class GpuSegmentationBranch(FastSegmentationBranch):
    """Identical to the fast branch, but the scores are computed afresh whenever the learner runs, and kept nowhere."""

    refresh = 1

    def snapshot(self) -> dict[str, Any]:
        snapshot = super().snapshot()
        snapshot["memory"]["slots"].pop("scores", None)
        return snapshot
