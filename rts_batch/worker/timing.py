"""How long a worker spends on each step of a video, so that a run can say what its time went to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Literal, TypeVar

Step = Literal["fetch", "decode", "track", "encode", "write"]
Item = TypeVar("Item")


class Timing:
    """Seconds by step of one video, as its worker's main thread waits for them: what overlaps does not show."""

    def __init__(self) -> None:
        self.started = datetime.now(timezone.utc)
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {"fetch": 0.0, "decode": 0.0, "track": 0.0, "encode": 0.0, "write": 0.0}

    @contextlib.contextmanager
    def __call__(self, step: Step) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - started

    def waiting(self, step: Step, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; the time until each arrives counts for the step."""
        source = iter(items)
        while True:
            with self(step):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    @property
    def total(self) -> float:
        """Seconds since it was made, whatever the machine's clock has been set to meanwhile."""
        return time.perf_counter() - self._began

    def rounded(self) -> dict[str, float]:
        return {step: round(seconds, 3) for step, seconds in self.seconds.items()}


def efficiency(seconds: Mapping[str, float], total: float) -> float | None:
    """The pipeline's speed over the bare tracker's: the share of the workers' time that went into tracking."""
    return round(seconds.get("track", 0.0) / total, 3) if total else None
