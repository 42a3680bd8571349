"""Captured work: a function of tensors that keep their places, as a CUDA graph. Nothing here knows of tracking."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch


class Pool(NamedTuple):
    """What graphs share that are captured by one thread."""

    memory: Any
    """PyTorch's handle of it."""
    stream: Any
    """Which is for captures alone."""

    @classmethod
    def on(cls, device: torch.device) -> Pool | None:
        """Make one; there is none on the CPU."""
        return cls(torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)) if device.type == "cuda" else None


class Stage:
    """A function of tensors that keep their places; on CUDA the second call captures it, later ones replay it.

    The first call runs it as it is: libraries set themselves up outside the capture. All calls come from one thread,
    with one stream, as libraries keep a workspace for each stream and cuDNN what it found for each thread.

    It is captured through a stream that nothing else uses. Where another thread lets pinned memory go meanwhile,
    PyTorch records an event on the stream that copied it, and one that is captured cannot be asked any more. And when
    a graph goes, PyTorch (2.13) lets cuBLAS's workspace of its stream go, which others go on using: that of this stream
    is memory of the pool, where all that might be given it is as short-lived.

    Args:
        function: what to do.
        pool: shared with graphs that never run beside this one; None on the CPU.
    """

    def __init__(self, function: Callable[[], None], pool: Pool | None) -> None:
        self._function = function
        self._pool = pool
        self._has_run = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is None and self._has_run and self._pool is not None:
            self._graph = self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._function()
            self._has_run = True

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        assert self._pool is not None
        # Other threads may pin memory and look at events meanwhile.
        capturing = torch.cuda.graph(graph, *self._pool, capture_error_mode="thread_local")
        # PyTorch (2.13) leaves the thread with the stream for captures where one cannot be begun or made a graph.
        with torch.cuda.stream(torch.cuda.current_stream()), _no_collection(), capturing:
            self._function()
        return graph


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting garbage: an old graph that is destroyed during a capture would break it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
