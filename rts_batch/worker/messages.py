"""What goes down to a worker, settings and videos, and what comes up from it about each video.

It is all pickled, between the pool, the Ray actor and the process below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rts_batch.io.video.limits import DecoderName, SpoolLimits
from rts_batch.io.video.spool import Brought
from rts_batch.manifest import VideoTask
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.tracker import TrackerDescription

FailureKind = Literal["permanent", "transient", "crash", "suspected", "killed", "displaced", "preempted"]
"""Why an attempt failed, which decides whether another one is made and at whose cost (`actors/coordinator.py`)."""

OUT_OF_MEMORY: Final = ("MemoryError", "OutOfMemoryError")
"""Names of the errors that tell a lack of memory, in the worker's process or on its GPU."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What every worker of a run is told."""

    out: str
    factory: str
    """Import path of the tracker factory."""
    tracker: TrackerDescription
    decoder: DecoderName
    threads: int
    """CPU threads of the process."""
    extras: Mapping[str, str]
    """The manifest's further columns with their types."""
    lanes: int = 1
    """Videos that a worker tracks at the same time."""
    spool: SpoolLimits = field(default_factory=SpoolLimits)
    strict_video: bool = False
    """Damage in a video makes it fail."""
    results: Mapping[str, Any] | None = None
    """`RunRecord.results` of the run, which its folder must still have when masks are put in place."""
    checkpoint_every: float | None = None
    """Seconds of work on one video between two checkpoints; None writes none."""
    keep_checkpoints: bool = False
    """Whether they stay when the video is done."""
    checkpointed: frozenset[str] = frozenset()
    """Keys of the videos that had checkpoints when the run was submitted."""
    watch_notices: bool = False
    """Whether the machine may be one of a cloud's spot machines (`rts_batch.actors.notices`)."""
    scratch: str | None = None
    """Folder for files under way; None takes the system's."""
    fork_server: str | None = None
    """Address of the process that workers' processes are copies of (`worker/fork_server.py`), where there is one."""

    @classmethod
    def of(
        cls,
        settings: RunSettings,
        tracker: TrackerDescription,
        folder: RunFolder,
        *,
        threads: int,
        lanes: int,
        results: Mapping[str, Any],
        extras: Mapping[str, str],
        scratch: str | None = None,
    ) -> WorkerSettings:
        """What the workers of a run with these settings are told; the rest is as in the fields."""
        return cls(
            out=folder.uri,
            factory=settings.tracker,
            tracker=tracker,
            decoder=settings.decoder,
            threads=threads,
            extras=extras,
            lanes=lanes,
            spool=settings.spool_limits(lanes),
            strict_video=settings.strict_video,
            results=results,
            checkpoint_every=settings.checkpoint_every or None,
            keep_checkpoints=settings.keep_checkpoints,
            checkpointed=folder.checkpointed(),
            watch_notices=settings.address != "local",
            scratch=scratch,
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A video to be tracked. It goes from the pool to the actor and on to the process."""

    task: VideoTask
    attempt: int
    suspect: bool = False
    """It must have a process that no other video has used or uses beside it."""
    fetched: Brought | None = None
    """The video on this machine, if it was fetched ahead."""
    folder: str | None = None
    """Where its files under way are, for whoever must remove them if the process is killed; None takes `scratch`."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What comes up first; a string instead says why the model cannot be loaded."""

    name: str


PhaseName = Literal["fetch", "track", "write"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the worker does with the video from now on."""

    key: str
    phase: PhaseName


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The video is open. `frames` is what its container or the manifest announces."""

    key: str
    frames: int | None
    decoder: str
    earlier: int = 0
    """Frames that earlier attempts have tracked, from which this one goes on."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """`frames` frames of the video have been read and tracked so far."""

    key: str
    frames: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The masks of the video are in place."""

    key: str
    frames: int
    seconds: float
    """Of this attempt."""
    earlier: int = 0
    """Of the frames those that earlier attempts have tracked, which no seconds are counted for."""
    warnings: tuple[str, ...] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the worker spent on each step."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Rows in each state."""
    has_checkpoints: bool = False
    """The run's folder holds checkpoints of it that nobody needs any more."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The attempt failed in a way that the worker itself could tell."""

    key: str
    kind: FailureKind
    error: str
    message: str
    frame: int | None = None


Event = Phase | Opened | Advanced | Finished | Failed
"""What the worker says about a video, which it names by its `key`. `Finished` or `Failed` is the last about it."""
