"""The tracker of CUDA devices: nothing that a step decides has to be known by the host before the next one.

State lies in tensors (`state.py`, `memory.py`), the search region is looked up rather than cut out (`region.py`), and
one thread does all that is done on the device (`engine.py`), for several targets at once (`network.py`). What the host
reads is one packed result a frame, when somebody looks at it.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

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
from rts_batch.tracking.gpu.engine import Step
from rts_batch.tracking.gpu.network import BatchedNetwork, Slot
from rts_batch.tracking.gpu.result import Reading
from rts_batch.tracking.gpu.steps import Branches, SlotSteps
from rts_batch.tracking.merging import LateResult
from rts_batch.tracking.result import Pending, StepResult
from rts_batch.tracking.state import TrackerState
from rts_batch.tracking.tracker import Tracker, check_frame

log = logging.getLogger(__name__)


def supports(config: TrackerConfig) -> bool:
    """Whether a procedure can run without the host: with the released rules, and where a second peak never counts.

    The paper's schedule depends on what was stored, and a distractor's on what was seen.
    """
    return config.rules == "code" and min(config.distractor_threshold, config.hard_negative_threshold) >= 1


_T = TypeVar("_T")


def _in_engine(method: Callable[..., _T]) -> Callable[..., _T]:
    """Have a method of the tracker run in the engine's thread, after the frames that it has been brought."""

    @functools.wraps(method)
    def call(self: GpuTracker, *args: Any, **options: Any) -> _T:
        return self.on_device(lambda: method(self, *args, **options))

    return call


class GpuTracker(Tracker):
    """Identical to the fast tracker but for rounding and for when a result can be read.

    `start` and `correct` are the fast tracker's own; before them the state is taken back to the host. From its first
    step until it is closed, or garbage, it has a slot of its network. It is for one thread at a time.

    Args:
        network: shared with other trackers; one of its own where absent.
    """

    def __init__(
        self, model: RTS, config: TrackerConfig, *, sta: STA | None = None, network: BatchedNetwork | None = None
    ) -> None:
        if not supports(config):
            raise SettingsError("these tracker settings need the host between frames; use fast_tracker")
        super().__init__(model, config, sta=sta, segmentation=GpuSegmentationBranch)
        self.network = network or BatchedNetwork(model, config)
        self._kind = ready_steps(self.network)
        self._slot: Slot | None = None
        self._give_back: Callable[[], object] = _nothing
        """Lets others have the slot; once, at the latest when the tracker is garbage."""
        self._steps: SlotSteps | None = None
        """Where the state is, unless the host has it."""
        self._latest: Future[Reading] | None = None

    # What a lane asks for

    def step(self, frame: NDArray[np.uint8]) -> TrackedFrame:
        """`Tracker.step`; waits for the device."""
        return self.step_late(frame).read()

    def step_late(self, frame: NDArray[np.uint8]) -> Pending:
        """`Tracker.step_late`."""
        coming = self._bring(frame)
        return Pending(lambda: coming.result().frame())

    def step_scores(self, frame: NDArray[np.uint8], previous: Tensor | None = None) -> StepResult:
        """`Tracker.step_scores`; the scores are valid until the next step."""
        return self._bring(frame, previous).result().scores()

    @staticmethod
    def step_together(steps: Sequence[tuple[Tracker, NDArray[np.uint8], Tensor]]) -> list[LateResult]:
        """`Tracker.step_together`."""
        coming = []
        for tracker, frame, previous in steps:
            assert isinstance(tracker, GpuTracker)
            coming.append(tracker._bring(frame, previous))
        return [reading.result().late() for reading in coming]

    def _bring(self, frame: NDArray[np.uint8], previous: Tensor | None = None) -> Future[Reading]:
        """Hand the engine a copy of the next frame."""
        check_frame(frame, super().state.probabilities.shape)
        pixels = torch.from_numpy(np.ascontiguousarray(frame))
        step = Step(self, pixels.pin_memory() if self.device.type == "cuda" else pixels.clone(), previous)
        self._latest = step.reading
        self.network.engine.post(step)
        return step.reading

    def on_device(self, function: Callable[[], _T]) -> _T:
        """`Tracker.on_device`."""
        if not self.network.engine.here and self._latest is not None:
            self._latest.result()
            self._latest = None
        return self.network.engine.call(function)

    def close(self) -> None:
        """`Tracker.close`."""
        if self._latest is not None and not self.network.engine.here:
            wait([self._latest])  # the engine serves messages before frames that wait for the network
        self._latest = self._slot = self._steps = None
        self._give_back()

    # In the engine's thread

    start = _in_engine(Tracker.start)
    correct = _in_engine(Tracker.correct)
    annotate_scores = _in_engine(Tracker.annotate_scores)
    snapshot = _in_engine(Tracker.snapshot)

    @property
    def state(self) -> TrackerState:
        """The state as the host has it, and with it both branches; waits for the device."""
        self.on_device(self._save)
        return super().state

    @_in_engine
    def start_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        self._steps = None
        return super().start_scores(frame, mask=mask, box=box)

    @_in_engine
    def correct_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        self._save()
        self._steps = None
        return super().correct_scores(frame, mask=mask, box=box)

    @_in_engine
    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._steps = None
        super().restore(snapshot)

    def prepare(self, frame: Tensor, previous: Tensor | None) -> Slot:
        """See `engine.Target`."""
        if self._slot is None:
            self._slot = self.network.lease()
            back = functools.partial(self.network.give_back, self._slot)
            self._give_back = weakref.finalize(self, self.network.engine.post, back)
        if self._steps is None:
            state = super().state
            size = (frame.shape[0], frame.shape[1])
            if self._slot.steps is None:
                self._slot.steps = self._kind(self._slot, self._branches, size)
            elif self._slot.steps.image_size != size:
                self._slot.steps.resize(size)
            self._steps = self._slot.steps
            self._steps.load(self._branches, state)
        self._steps.prepare(frame, previous)
        return self._slot

    def finish(self) -> Reading:
        """See `engine.Target`."""
        assert self._steps is not None
        return self._steps.finish()

    @property
    def _branches(self) -> Branches:
        return Branches(self.segmentation, self.localisation)

    def _save(self) -> None:
        if self._steps is not None:
            self._steps.save(self._branches, super().state)


def _nothing() -> None:
    pass


def ready_steps(network: BatchedNetwork) -> type[SlotSteps]:
    """Have a network ready for targets and return the kind of steps that they take there."""
    kind: type[SlotSteps] = network.be_ready_for(steps_class(network.device), SlotSteps)
    return kind


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


class GpuSegmentationBranch(FastSegmentationBranch):
    """Identical to the fast branch, but the scores are computed afresh whenever the learner runs, and kept nowhere."""

    refresh = 1

    def snapshot(self) -> dict[str, Any]:
        snapshot = super().snapshot()
        snapshot["memory"]["slots"].pop("scores", None)
        return snapshot
