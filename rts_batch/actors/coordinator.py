"""Which video runs next, and what a failure costs. Pure Python: it knows no Ray and can be tested without one.

Videos wait in a heap, longest first, and are handed out only when a worker is free. A video that failed comes back
according to the kind of its failure, each kind with a budget of its own, so that a video pays only for what it did
itself: `permanent` is final at once, `transient` is tried again after a pause, `crash` (the worker died or broke on
this video) up to three times, and `killed` (the worker was taken away from outside) many times and at once.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rts_batch.manifest import VideoTask

FailureKind = Literal["permanent", "transient", "crash", "killed"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why one attempt at one video failed; `frame` is the last one that was reported."""

    kind: FailureKind
    error: str
    """Name of the error's class."""
    message: str
    worker: str = ""
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """How many failures of each kind a video may have, and the pause in seconds after a transient one.

    The pause doubles each time.
    """

    transient: int = 5
    crash: int = 3
    killed: int = 20
    pause: float = 2.0
    longest_pause: float = 60.0

    def of(self, kind: FailureKind) -> int:
        limits: Mapping[FailureKind, int] = {
            "permanent": 1,
            "transient": self.transient,
            "crash": self.crash,
            "killed": self.killed,
        }
        return limits[kind]


@dataclass(order=True)
class _Queued:
    """A video in the heap: longest first, and among equals in the manifest's order."""

    priority: tuple[int, int]
    task: VideoTask = field(compare=False)
    failures: list[Failure] = field(compare=False, default_factory=list)


class Coordinator:
    """The queue of one run.

    `lengths` gives the expected number of frames by task key (0 where it is unknown); `clock` returns seconds.
    """

    def __init__(
        self,
        tasks: Iterable[VideoTask],
        *,
        lengths: Mapping[str, int] | None = None,
        budgets: Budgets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budgets = budgets or Budgets()
        self._clock = clock
        lengths = lengths or {}
        self._ready = [
            _Queued((-lengths.get(task.key, task.frames or 0), order), task) for order, task in enumerate(tasks)
        ]
        heapq.heapify(self._ready)
        self._pausing: list[tuple[float, _Queued]] = []
        self._running: dict[str, _Queued] = {}
        self._stopped = False

    def take(self) -> VideoTask | None:
        """Hands out the next video, or None where none is ready (see `next_ready_in`)."""
        if self._stopped:
            return None
        while self._pausing and self._pausing[0][0] <= self._clock():
            heapq.heappush(self._ready, heapq.heappop(self._pausing)[1])
        if not self._ready:
            return None
        queued = heapq.heappop(self._ready)
        self._running[queued.task.key] = queued
        return queued.task

    def succeeded(self, key: str) -> tuple[Failure, ...]:
        """Takes a video off the books; returns the failures that went before."""
        return tuple(self._running.pop(key).failures)

    def failed(self, key: str, failure: Failure) -> tuple[Failure, ...] | None:
        """Books a failed attempt; returns every failure of the video if it is given up, None if it will run again."""
        queued = self._running.pop(key)
        queued.failures.append(failure)
        spent = sum(earlier.kind == failure.kind for earlier in queued.failures)
        if spent >= self._budgets.of(failure.kind):
            return tuple(queued.failures)
        if failure.kind == "transient":
            pause = min(self._budgets.pause * 2 ** (spent - 1), self._budgets.longest_pause)
            heapq.heappush(self._pausing, (self._clock() + pause, queued))
        else:
            heapq.heappush(self._ready, queued)
        return None

    def stop(self) -> None:
        """Hands out nothing more; what is running may finish."""
        self._stopped = True

    def attempt(self, key: str) -> int:
        """Number of the running attempt at this video, from 1."""
        return len(self._running[key].failures) + 1

    def next_ready_in(self) -> float | None:
        """Seconds until `take` can hand out a video: 0 where it can now, None where nothing is queued."""
        if self._stopped or not (self._ready or self._pausing):
            return None
        return 0.0 if self._ready else max(0.0, self._pausing[0][0] - self._clock())

    @property
    def queued(self) -> int:
        """Videos that wait, be it for a worker or for the end of a pause."""
        return len(self._ready) + len(self._pausing)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def emptied(self) -> bool:
        """True when every video has succeeded or been given up."""
        return not self._running and not self.queued

    @property
    def finished(self) -> bool:
        """True when nothing runs and nothing will be handed out any more."""
        return not self._running and (self._stopped or not self.queued)
