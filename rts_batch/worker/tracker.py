"""What a worker asks of a tracker, and the RTS tracker as it is asked for.

A run names its tracker by import path (`module:object`). The object is a `TrackerFactory`: the driver has it describe
what the weights are before anything starts, each worker has it load them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rts_batch.config import Overlap, Profile, QualityMap
from rts_batch.errors import SettingsError
from rts_batch.manifest import VideoTask
from rts_batch.masks import Marking, TrackedFrame
from rts_batch.runs.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class TrackerDescription:
    """Everything about a run's tracker that the driver records and the workers need."""

    weights: str
    """Name or location of the weights."""
    fingerprint: str
    device: Literal["cpu", "cuda"]
    boxes: bool
    """Whether a target can be started from a box."""
    settings: Mapping[str, Any]
    """What decides the masks beside weights and profile: the tracker's configuration, as plain values."""
    environment: Mapping[str, Any]
    """What may change the last bits: the device and its instruction set."""
    profile: Profile = "exact"
    """The precision that it computes with."""
    threads: int = 4
    """CPU threads that a worker gains from."""
    worker_bytes: int = 1 << 30
    """Memory that a worker takes at its peak, its decoding process included."""
    overlap: Overlap = "merge"
    """Whether it merges the targets of a video."""
    quality: QualityMap | None = None
    """How the quality of a mask is estimated; None: it is not."""
    warning: str | None = None
    """What the user must know before relying on the masks."""

    @property
    def quality_about(self) -> dict[str, Any] | None:
        """What files say of the estimate: which map, what it was fitted on, and its thresholds."""
        quality = self.quality
        if quality is None:
            return None
        about = {"map": quality.fingerprint, "origin": quality.origin, "threshold": quality.threshold}
        return {**about, "lost_below": quality.lost_below} if quality.lost_below else about


class OpenScene(Protocol):
    """The tracker's state in one video."""

    @property
    def divided(self) -> Mapping[int, int]:
        """Object id → pixels of its prompt's mask, on the frame stepped into last, that smaller targets on top have."""

    def step(self, image: NDArray[np.uint8], prompts: Mapping[int, Marking]) -> Mapping[int, TrackedFrame]:
        """Start or correct the targets that are prompted on this frame [H, W, 3] RGB and track the others.

        The image is lent: its memory will hold another frame.
        """

    def annotate(self, image: NDArray[np.uint8], prompts: Mapping[int, Marking]) -> Mapping[int, TrackedFrame]:
        """Make the prompts' masks on this frame and track nothing; what is said to be absent is `lost`."""

    def snapshot(self) -> bytes:
        """The whole state, for `LoadedTracker.open_scene` on another worker."""

    def close(self) -> None:
        """No frame follows, and no snapshot: others may have what the scene holds of the device."""


class LoadedTracker(Protocol):
    """A model in memory, ready for one video after another, and for several at the same time: each lane of a worker is
    a thread with a scene of its own, whose results must not depend on what the others do."""

    def open_scene(self, task: VideoTask, state: bytes | None = None) -> OpenScene:
        """A new scene, or one with a `snapshot`'s state, which goes on bit for bit on the same kind of device.

        Raises:
            CheckpointError: The state cannot be put back.
        """


class TrackerFactory(Protocol):
    def describe(self, settings: RunSettings) -> TrackerDescription: ...
    def load(self, description: TrackerDescription, *, threads: int, lanes: int) -> LoadedTracker:
        """Load it for so many CPU threads, and so many videos at the same time."""


@runtime_checkable
class ForkableFactory(Protocol):
    """A `TrackerFactory` whose loading has a first part that can be done before a process divides itself."""

    def read(self, description: TrackerDescription, *, threads: int, lanes: int) -> Callable[[], LoadedTracker]:
        """Do of `load` what leaves no thread behind, and return the rest, which is called at most once a process."""


FORMER_FACTORIES: Final = {"rts_batch.actors.rts:RtsFactory": "rts_batch.worker.rts:RtsFactory"}
"""Names that stand in `run.json` of runs begun by an earlier version, and where they are now."""


def find_factory(path: str) -> TrackerFactory:
    """Import a factory from `module:object`."""
    module, _, name = FORMER_FACTORIES.get(path, path).partition(":")
    try:
        return cast(TrackerFactory, getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"tracker {path!r} cannot be imported: {error}") from error
