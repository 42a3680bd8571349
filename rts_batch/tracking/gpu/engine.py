"""The engine: the one thread of a process that uses the device.

Lanes (threads that decode, encode and write) only exchange messages with it: a frame to be tracked, whose result is
read later, or a function to be called. It takes whoever has a frame waiting, as many as the network has places, when
the device has nearly nothing left to do: before that nobody loses by waiting, and after it nobody is waited for. So
whoever has no frame, or is done, costs the others nothing.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from rts_batch.tracking.gpu.graphs import Pool
from rts_batch.tracking.gpu.result import Reading

POLL_SECONDS = 0.0005
"""Between two looks at whether the device has run the network, while nobody brings a frame."""

END_SECONDS = 5.0
"""For the engine's thread to end; longer it is not waited for, as a call may hang."""

T = TypeVar("T")


class Network(Protocol):
    """Places that a batch of the network has, and the batch."""

    @property
    def places(self) -> int: ...

    def run(self, slots: Sequence[Any]) -> Callable[[], bool]:
        """Have the device run it for slots that are prepared; return what says whether that is done."""


class Target(Protocol):
    """What is tracked: a frame is `prepare`, the network, `finish`, all given to the device without waiting for it."""

    @property
    def network(self) -> Network: ...

    def prepare(self, frame: Tensor, previous: Tensor | None) -> Any:
        """Learn from the last frame and cut the crop out of the next, `[H, W, 3] uint8` of the host."""

    def finish(self) -> Reading:
        """Read what the network found, and learn to localise from it."""


@dataclass(frozen=True, eq=False)
class Step:
    """A frame that a target has been brought."""

    target: Target
    frame: Tensor
    """`[H, W, 3] uint8`, not written to any more."""
    previous: Tensor | None = None
    reading: Future[Reading] = field(default_factory=Future)


class Engine:
    """Runs until it is garbage.

    Args:
        device: where its thread works, on a CUDA stream of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.pool = Pool.on(device)
        """Of all graphs: as they run on one stream, no two of them do at once."""
        self._messages: SimpleQueue[Step | Callable[[], None] | None] = SimpleQueue()
        self.ended = False
        """It has been told to end, maybe while frames were waiting."""
        self._waiting: deque[Step] = deque()
        self._runs: deque[Callable[[], bool]] = deque()
        """Of the network, that may not be done; each says whether it is."""
        # Which must not keep the engine alive.
        arguments = (weakref.ref(self), self._messages, device)
        self._thread = threading.Thread(target=_work, args=arguments, name="engine", daemon=True)
        self._thread.start()
        weakref.finalize(self, _end, self._messages, self._thread)  # also when the process ends

    @property
    def here(self) -> bool:
        """Whether the caller is the engine's thread."""
        return threading.current_thread() is self._thread

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the engine's thread and wait for what it returns or raises."""
        if self.here:
            return function()
        answer: Future[T] = Future()
        self.post(partial(_answer, answer, function))
        return answer.result()

    def post(self, message: Step | Callable[[], None]) -> None:
        """Hand over a frame, or a function that raises nothing, without waiting."""
        self._messages.put(message)

    def serve(self, message: Step | Callable[[], None]) -> None:
        """Do what a message says, and what comes meanwhile, until no frame waits."""
        self._take(message)
        while self._waiting:
            with contextlib.suppress(Empty):
                while True:
                    self._take(self._messages.get_nowait())
            try:
                chosen = self._choose()
            except Exception as error:  # the device is lost
                chosen = []
                while self._waiting:
                    self._waiting.popleft().reading.set_exception(error)
            if chosen:
                self._advance(chosen)
            elif self._waiting:
                with contextlib.suppress(Empty):
                    self._take(self._messages.get(timeout=POLL_SECONDS))

    def _take(self, message: Step | Callable[[], None] | None) -> None:
        if isinstance(message, Step):
            self._waiting.append(message)
        elif message is None:
            self.ended = True
        else:
            message()

    def _choose(self) -> list[Step]:
        """Take frames that are next for the network, one of each target, or none while it is better to wait.

        A full batch may be queued behind the one that runs; another is begun only when there is none.
        """
        while self._runs and self._runs[0]():
            self._runs.popleft()
        if not self._waiting or len(self._runs) > 1:
            return []
        network = self._waiting[0].target.network
        first: dict[int, Step] = {}
        for step in self._waiting:
            if step.target.network is network and len(first) < network.places:
                first.setdefault(id(step.target), step)
        chosen = list(first.values())
        if self._runs and len(chosen) < network.places:
            return []
        for step in chosen:
            self._waiting.remove(step)
        return chosen

    def _advance(self, steps: Sequence[Step]) -> None:
        """Have the device do all that a frame is; an exception is that of the step in which it was raised."""
        tried = [(step, self._prepare(step)) for step in steps]
        prepared = [(step, slot) for step, slot in tried if slot is not None]
        if prepared:
            self._run(prepared)

    def _prepare(self, step: Step) -> Any:
        try:
            return step.target.prepare(step.frame, step.previous)
        except Exception as error:
            step.reading.set_exception(error)
            return None

    def _run(self, prepared: Sequence[tuple[Step, Any]]) -> None:
        try:
            self._runs.append(prepared[0][0].target.network.run([slot for _, slot in prepared]))
        except Exception as error:
            if len(prepared) == 1:
                prepared[0][0].reading.set_exception(error)
            else:
                for one in prepared:
                    self._run([one])
            return
        for step, _ in prepared:
            _answer(step.reading, step.target.finish)


def _answer(answer: Future[T], function: Callable[[], T]) -> None:
    try:
        result = function()
    except BaseException as error:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def _end(messages: SimpleQueue[Step | Callable[[], None] | None], thread: threading.Thread) -> None:
    """Stop the thread and wait for it: one that still ends while the interpreter is taken down can crash it."""
    messages.put(None)
    if thread is not threading.current_thread():
        thread.join(END_SECONDS)


def _work(
    engine: weakref.ref[Engine], messages: SimpleQueue[Step | Callable[[], None] | None], device: torch.device
) -> None:
    """The thread: serve messages until the engine is gone."""
    with contextlib.ExitStack() as whole:
        whole.enter_context(torch.inference_mode())
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.default_stream(device))  # where the model was loaded
            whole.enter_context(torch.cuda.stream(stream))
        while (message := messages.get()) is not None:
            alive = engine()
            if alive is None:
                return
            alive.serve(message)
            if alive.ended:
                return
            del alive, message  # nothing is held while it waits
