"""The tracker of CUDA devices: nothing that a step decides has to be known by the host before the next one.

State lies in tensors (`device_state.py`, `device_memory.py`), the search region is looked up rather than cut out
(`device_crop.py`), and the network runs for all lanes of a worker together (`lanes.py`). What the host reads is one
packed result a frame, when somebody looks at it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
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
from rts_batch.tracking.fast import FastSegmentationBranch, FastTracker
from rts_batch.tracking.gpu.batch import Lane, LaneNetwork, Stage
from rts_batch.tracking.gpu.steps import LaneSteps, Reading
from rts_batch.tracking.state import TrackerState
from rts_batch.tracking.tracker import StepResult, Tracker, check_frame


def supports(config: TrackerConfig) -> bool:
    """Whether a procedure can run without the host: with the released rules, and where a second peak never counts.

    The paper's schedule depends on what was stored, and a distractor's on what was seen.
    """
    return config.rules == "code" and min(config.distractor_threshold, config.hard_negative_threshold) >= 1


class DeviceTracker(FastTracker):
    """Identical to the fast tracker but for rounding and for when a result can be read.

    `start` and `correct` are the fast tracker's own; before them the state is taken back to the host.

    Args:
        network: the lanes to run in; one of its own where absent.
    """

    def __init__(
        self, model: RTS, config: TrackerConfig, *, sta: STA | None = None, network: LaneNetwork | None = None
    ) -> None:
        if not supports(config):
            raise SettingsError("these tracker settings need the host between frames; use FastTracker")
        super().__init__(model, config, sta=sta)
        self.segmentation = DeviceSegmentationBranch(model, config)
        self.network = network or LaneNetwork(model, config)
        self._steps: LaneSteps | None = None
        """Where the state is, unless the host has it."""

    @property
    def state(self) -> TrackerState:
        """The state as the host has it, and with it both branches; waits for the device."""
        self._save()
        return super().state

    def step(self, frame: NDArray[np.uint8]) -> TrackedFrame:
        """`Tracker.step`; the result is waited for when its first field is read."""
        return PendingFrame(_advance([(self, frame, None)])[0].frame)

    def step_scores(self, frame: NDArray[np.uint8], previous: Tensor | None = None) -> StepResult:
        """`Tracker.step_scores`; the scores are valid until the next step."""
        return _advance([(self, frame, previous)])[0].scores()

    @staticmethod
    def step_together(steps: Sequence[tuple[Tracker, NDArray[np.uint8], Tensor]]) -> list[StepResult]:
        """`Tracker.step_together`, as many at once as their network has lanes."""
        lanes = _lanes_of(steps[0][0])
        if len(steps) <= lanes:
            return [reading.scores() for reading in _advance(steps)]
        results: list[StepResult] = []
        for begin in range(0, len(steps), lanes):
            # The next ones need the lanes that these are in.
            found = (reading.scores() for reading in _advance(steps[begin : begin + lanes]))
            results += [dataclasses.replace(result, scores=result.scores.clone()) for result in found]
        return results

    @staticmethod
    def step_apart(trackers: Sequence[Tracker], frame: NDArray[np.uint8]) -> list[TrackedFrame]:
        """`Tracker.step_apart`, as many at once as their network has lanes; the results are waited for when read."""
        lanes = _lanes_of(trackers[0])
        if len(trackers) <= lanes:
            return [PendingFrame(reading.frame) for reading in _advance([(one, frame, None) for one in trackers])]
        found: list[TrackedFrame] = []
        for begin in range(0, len(trackers), lanes):
            # The next ones need the lanes that these are in.
            part = _advance([(tracker, frame, None) for tracker in trackers[begin : begin + lanes]])
            found += [reading.frame() for reading in part]
        return found

    @staticmethod
    def advance(trackers: Sequence[DeviceTracker], frames: Sequence[NDArray[np.uint8]]) -> list[TrackedFrame]:
        """`step` of trackers of one network, each alone in its video, in one run of the network."""
        readings = _advance([(tracker, frame, None) for tracker, frame in zip(trackers, frames, strict=True)])
        return [PendingFrame(reading.frame) for reading in readings]

    @property
    def stages(self) -> Mapping[str, Stage]:
        """What of its lane's work was done so far, by name; for measurements."""
        return {} if self._steps is None else self._steps.stages

    def start_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        self._steps = None
        return super().start_scores(frame, mask=mask, box=box)

    def correct_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        self._leave_device()
        return super().correct_scores(frame, mask=mask, box=box)

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._steps = None
        super().restore(snapshot)

    @torch.inference_mode()
    def leave_lane(self) -> None:
        """Takes everything back to the host's objects, so that another target may have the lane."""
        self._leave_device()
        for branch in (self.segmentation, self.localisation):
            branch.memory.slots = {name: values.clone() for name, values in branch.memory.slots.items()}

    def enter(self, lane: Lane, frame: NDArray[np.uint8]) -> LaneSteps:
        """Puts the state into a lane, unless it is there."""
        if self._steps is not None:
            check_frame(frame, self._steps.image_size)
            return self._steps
        state = super().state
        check_frame(frame, state.probabilities.shape)
        size = (frame.shape[0], frame.shape[1])
        self._steps = lane.steps_for(size, lambda: _steps_class(lane.network.device)(lane, self, size))
        self._steps.load(self, state)
        return self._steps

    @torch.inference_mode()
    def _leave_device(self) -> None:
        self._save()
        self._steps = None

    @torch.inference_mode()
    def _save(self) -> None:
        if self._steps is not None:
            self._steps.save(self, super().state)


@torch.inference_mode()
def _advance(steps: Sequence[tuple[Tracker, NDArray[np.uint8], Tensor | None]]) -> list[Reading]:
    """Takes the next frame of trackers of one `LaneNetwork`, no more of them than it has lanes."""
    held = []
    network = None
    for tracker, frame, previous in steps:
        assert isinstance(tracker, DeviceTracker)
        network = tracker.network
        lane = network.lane_of(tracker)
        held.append((lane, tracker.enter(lane, frame)))
        held[-1][1].prepare(frame, previous)
    assert network is not None
    with network.results_of([lane for lane, _ in held]):
        return [stages.finish() for _, stages in held]


def _steps_class(device: torch.device) -> type[LaneSteps]:
    """Triton kernels on CUDA; PyTorch operations elsewhere and where Triton is missing."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from rts_batch.tracking.gpu.kernels.steps import KernelSteps

        return KernelSteps
    return LaneSteps


def _lanes_of(tracker: Tracker) -> int:
    assert isinstance(tracker, DeviceTracker)
    return len(tracker.network.lanes)


class DeviceSegmentationBranch(FastSegmentationBranch):
    """Identical to the fast branch, but the scores are computed afresh whenever the learner runs."""

    refresh = 1


class PendingFrame(TrackedFrame):
    """A tracked frame that is read from the device when its first field is asked for."""

    def __init__(self, read: Callable[[], TrackedFrame]) -> None:
        object.__setattr__(self, "_read", read)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for key, value in vars(self._read()).items():
            object.__setattr__(self, key, value)
        return object.__getattribute__(self, name)
