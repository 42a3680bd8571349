"""How long a worker spends on each step of a video, so that a run can say what its time went to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rts_batch.manifest import VideoTask
from rts_batch.worker.prompts import ReadyPrompt
from rts_batch.worker.tracker import LoadedTracker, OpenScene, TrackedTarget

Step = Literal["fetch", "decode", "track", "encode", "write"]
Item = TypeVar("Item")


class StepTimes:
    """Seconds by step of one video, as its worker's main thread waits for them: what overlaps does not show."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"fetch": 0.0, "decode": 0.0, "track": 0.0, "encode": 0.0, "write": 0.0}

    @contextlib.contextmanager
    def __call__(self, step: Step) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - started

    def waiting(self, step: Step, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time until each arrives counts for the step."""
        source = iter(items)
        while True:
            with self(step):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def of_tracking(self, frames: Iterable[Item]) -> Iterator[Item]:
        """Frames that come out of tracking: what of the wait for each was not the tracker's was the decoder's."""
        before = self.seconds["track"]
        yield from self.waiting("decode", frames)
        self.seconds["decode"] -= self.seconds["track"] - before

    def rounded(self) -> dict[str, float]:
        return {step: round(seconds, 3) for step, seconds in self.seconds.items()}


class TimedTracker:
    """A tracker whose scenes' time is counted."""

    def __init__(self, tracker: LoadedTracker, steps: StepTimes) -> None:
        self._tracker = tracker
        self._steps = steps

    def open_scene(self, task: VideoTask, state: bytes | None = None) -> OpenScene:
        return TimedScene(self._tracker.open_scene(task, state), self._steps)


class TimedScene:
    """See `TimedTracker`."""

    def __init__(self, scene: OpenScene, steps: StepTimes) -> None:
        self._scene = scene
        self._steps = steps

    def step(self, image: NDArray[np.uint8], prompts: Mapping[int, ReadyPrompt]) -> Mapping[int, TrackedTarget]:
        with self._steps("track"):
            return self._scene.step(image, prompts)

    def annotate(self, image: NDArray[np.uint8], prompts: Mapping[int, ReadyPrompt]) -> Mapping[int, TrackedTarget]:
        with self._steps("track"):
            return self._scene.annotate(image, prompts)

    def snapshot(self) -> bytes:
        return self._scene.snapshot()


def efficiency(seconds: Mapping[str, float], total: float) -> float | None:
    """The pipeline's speed over the bare tracker's: the share of the workers' time that went into tracking."""
    return round(seconds.get("track", 0.0) / total, 3) if total else None
