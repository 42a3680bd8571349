"""One worker of the pool as the driver knows it, and all that the pool asks of a cluster about it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rts_batch.actors.progress import RunProgress
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Event, FailureKind, Job


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """How many workers, how much each does, and what each takes of the cluster."""

    most: int
    least: int = 1
    """Kept alive as long as any video waits, even if it waits for the end of a pause."""
    lanes: int = 1
    """Videos that each has in hand at the same time."""
    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Welcome:
    """Where a worker that is ready runs."""

    name: str
    """`host:process`."""
    node: str
    """The cluster's id of the node."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A worker has ended, or cannot be reached any more."""

    kind: FailureKind
    error: str
    """Name of the error's class."""
    message: str
    cannot_start: bool = False
    """It raised an error before it was ready, as every other would."""


class Cluster(Protocol):
    """Where the pool's workers run. What `start` returns stands for a worker, can be hashed, and goes into the others.

    `rts_batch.actors.ray_cluster.RayCluster` is the real one. Any method may raise ClusterError.
    """

    def start(self) -> Any:
        """Ask for a worker; the first that it says is its `Welcome`."""

    def ask(self, worker: Any, jobs: Sequence[Job]) -> None:
        """Have a worker begin these videos and go on with those in hand; the next that it says are events."""

    def fetch(self, worker: Any, task: VideoTask) -> None:
        """Have a worker fetch what is probably its next video."""

    def leave(self, worker: Any) -> None:
        """Tell a worker to stop after the frames in hand."""

    def kill(self, worker: Any) -> None:
        """End a worker, or the wish for one."""

    def wait(self, workers: Collection[Any], seconds: float) -> list[tuple[Any, Welcome | list[Event] | Lost]]:
        """What those of the workers have to say that have something to say, after so many seconds at most."""

    def draining(self) -> set[str]:
        """Ids of the nodes that will go away soon."""

    def show(self, progress: RunProgress, *, queued: int, workers: int) -> None:
        """Export the run's progress to whoever watches the cluster."""


@dataclass
class InHand:
    """A video that a member has, and the last frame of it that was reported."""

    task: VideoTask
    frame: int | None = None


@dataclass(kw_only=True, eq=False)
class Member:
    """One worker. It is starting, busy (it has videos) or idle."""

    worker: Any
    """What the cluster knows it by."""
    heard: float
    """When it last said something; before that, when it was asked for."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    starting: bool = True
    asked: bool = False
    """It owes an answer: what has happened to its videos."""
    videos: dict[str, InHand] = field(default_factory=dict)
    """By key; one for each lane that is not free."""
    name: str = ""
    node: str = ""
    sealed: bool = False
    """It gets no further video until it has none: one is a suspect, or something broke in its process."""
    leaving: bool = False
    """It was told to leave and gets no further video."""
