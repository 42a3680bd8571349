"""Ctrl-C and SIGTERM while a run is under way."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Have SIGTERM end what is under way as Ctrl-C does, by KeyboardInterrupt; for the time before there is a pool."""
    earlier = signal.signal(signal.SIGTERM, _Interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


class _Interrupt:
    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


class Interruptions:
    """Ctrl-C once: finish what is in hand; twice, or SIGTERM: stop now, with checkpoints; once more: without."""

    def __init__(self) -> None:
        self.finish = False
        self.now = False
        self.at_once = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Interruptions]:
        earlier = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        terminate = earlier[signal.SIGTERM]
        if isinstance(terminate, _Interrupt) and terminate.came:
            # Compiled modules, of which Ray imports many, swallow what is raised while they are imported.
            self.finish = self.now = True
        try:
            yield self
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Only flags: what a handler interrupts may hold any lock.
        self.at_once = self.now
        self.now = self.finish or number == signal.SIGTERM
        self.finish = True
