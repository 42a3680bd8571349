"""Which video runs next, and what a failure costs. Pure Python: it knows no Ray and can be tested without one.

Videos wait in a heap, longest first, and are handed out only when a worker is free. The next video of a busy worker may
be reserved for it, so that it can be fetched meanwhile; a worker that has nothing else to do takes it over.

A video that failed comes back according to the kind of its failure, each kind with a budget of its own, so that a video
pays only for what it did itself:

- `permanent`: final at once.
- `transient`: tried again after a pause.
- `crash`: there is evidence against the video (the worker's process died of a signal of its own or ended itself, ran
  out of memory, made no progress, or raised an unexpected error). It is a suspect from then on: it waits until no
  other video does, runs on a fresh process without any other video in it (after lack of memory alone in the whole
  pool), and is given up the third time.
- `suspected`: there is such evidence, but it may as well speak against another video that was in the same process.
  Costs nothing, and makes it a suspect: what it does alone will show.
- `killed`: the worker was taken away from outside, and nobody knows why. Tried again at once, many times.
- `displaced`: its process had to be closed because of another video in it. Costs nothing.
- `preempted`: the node was lost, drained or preempted. Costs nothing; only a hundred of them mean that it cannot work.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import OUT_OF_MEMORY, FailureKind


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """Why one attempt at one video failed; `frame` is the last one that was reported."""

    kind: FailureKind
    error: str
    """Name of the error's class."""
    message: str
    worker: str = ""
    frame: int | None = None


FREE: Final = 100
BUDGETS: Final[Mapping[FailureKind, int]] = {
    "permanent": 1,
    "transient": 5,
    "crash": 3,
    "suspected": FREE,
    "killed": 20,
    "displaced": FREE,
    "preempted": FREE,
}
"""How many failures of each kind a video may have; `FREE` of each kind that costs nothing."""

PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds after a transient failure; the pause doubles each time."""


@dataclass(order=True)
class _Queued:
    """A video that waits or runs: longest first, and among equals in the manifest's order."""

    priority: tuple[int, int]
    task: VideoTask = field(compare=False)
    failures: list[FailedAttempt] = field(compare=False, default_factory=list)

    @property
    def is_suspect(self) -> bool:
        return any(failure.kind in ("crash", "suspected") for failure in self.failures)

    @property
    def must_be_alone(self) -> bool:
        """Whoever shares a machine with it may be the one that is killed for lack of memory."""
        return any(failure.error in OUT_OF_MEMORY for failure in self.failures)


class Coordinator:
    """The queue of one run.

    `lengths` gives the expected number of frames by task key (0 where it is unknown); `clock` returns seconds, of which
    a pause has `longest_pause` at most.
    """

    def __init__(
        self,
        tasks: Iterable[VideoTask],
        *,
        lengths: Mapping[str, int] | None = None,
        longest_pause: float = LONGEST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest_pause = longest_pause
        self._clock = clock
        lengths = lengths or {}
        self._ready = [
            _Queued((-lengths.get(task.key, task.frames or 0), order), task) for order, task in enumerate(tasks)
        ]
        heapq.heapify(self._ready)
        self._reserved: dict[str, _Queued] = {}
        self._suspects: list[_Queued] = []
        self._pausing: list[tuple[float, _Queued]] = []
        self._running: dict[str, _Queued] = {}
        self.stopped = False

    def take(self, worker: str = "", *, empty: bool = True) -> VideoTask | None:
        """Hand out the worker's next video, or None where there is none for it now.

        A suspect goes only to a worker that is `empty`, and nothing must be taken for that worker beside it.
        """
        self._end_pauses()
        queued = None if self.stopped else self._next(worker, empty)
        if queued is None:
            return None
        self._running[queued.task.key] = queued
        return queued.task

    def _next(self, worker: str, empty: bool) -> _Queued | None:
        if worker in self._reserved:
            return self._reserved.pop(worker)
        if self._ready:
            return heapq.heappop(self._ready)
        if self._reserved:  # better fetched twice than waited for
            longest = min(self._reserved, key=lambda other: self._reserved[other])
            return self._reserved.pop(longest)
        if not self._suspects or not empty or any(queued.must_be_alone for queued in self._running.values()):
            return None
        return None if self._suspects[0].must_be_alone and self._running else heapq.heappop(self._suspects)

    def reserve(self, worker: str) -> VideoTask | None:
        """Set a video aside for a busy worker that has none yet and return it, or None where there is none."""
        self._end_pauses()
        # With fewer videos than workers the next one is better left to whoever is free first.
        if self.stopped or worker in self._reserved or len(self._ready) <= len(self._running):
            return None
        queued = heapq.heappop(self._ready)
        self._reserved[worker] = queued
        return queued.task

    def release(self, worker: str) -> None:
        """Put back what is reserved for a worker that is gone."""
        queued = self._reserved.pop(worker, None)
        if queued is not None:
            heapq.heappush(self._ready, queued)

    def succeeded(self, key: str) -> tuple[FailedAttempt, ...]:
        """Take a video off the books; return the failures that went before."""
        return tuple(self._running.pop(key).failures)

    def failed(self, key: str, failure: FailedAttempt) -> tuple[FailedAttempt, ...] | None:
        """Book a failed attempt; return every failure of the video if it is given up, None if it will run again."""
        queued = self._running.pop(key)
        queued.failures.append(failure)
        spent = sum(earlier.kind == failure.kind for earlier in queued.failures)
        if spent >= BUDGETS[failure.kind]:
            return tuple(queued.failures)
        if failure.kind == "transient":
            pause = min(PAUSE * 2 ** (spent - 1), self._longest_pause)
            heapq.heappush(self._pausing, (self._clock() + pause, queued))
        else:
            self._queue(queued)
        return None

    def stop(self) -> None:
        """Hand out nothing more; what is running may finish."""
        self.stopped = True

    def attempt(self, key: str) -> int:
        """Number of the running attempt at this video, from 1."""
        return len(self._running[key].failures) + 1

    def is_suspect(self, key: str) -> bool:
        """Whether a running video must have a process that no other video has used or uses beside it."""
        return self._running[key].is_suspect

    def _end_pauses(self) -> None:
        while self._pausing and self._pausing[0][0] <= self._clock():
            self._queue(heapq.heappop(self._pausing)[1])

    def _queue(self, queued: _Queued) -> None:
        heapq.heappush(self._suspects if queued.is_suspect else self._ready, queued)

    @property
    def queued(self) -> int:
        """Videos that wait, be it for a worker or for the end of a pause."""
        return len(self._ready) + len(self._reserved) + len(self._suspects) + len(self._pausing)

    @property
    def to_hand_out(self) -> int:
        """Videos that wait and will be handed out: none after a stop."""
        return 0 if self.stopped else self.queued

    @property
    def suspects(self) -> int:
        """Those among them that need a worker of their own."""
        return 0 if self.stopped else len(self._suspects)

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
        return not self._running and not self.to_hand_out
