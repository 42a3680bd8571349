"""Captured work: a function of tensors that keep their places, as a CUDA graph. Nothing here knows of tracking."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch


class Stage:
    """A function of tensors that keep their places; on CUDA the second call captures it, later ones replay it.

    The first call runs it as it is: libraries set themselves up outside the capture. All calls come from one thread,
    with one stream, as libraries keep a workspace for each stream and cuDNN what it found for each thread.

    Args:
        function: what to do.
        pool: memory shared with graphs that never run beside this one; None on the CPU.
    """

    def __init__(self, function: Callable[[], None], pool: Any) -> None:
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
        # Other threads may pin memory and look at events meanwhile.
        capturing = torch.cuda.graph(graph, self._pool, torch.cuda.current_stream(), capture_error_mode="thread_local")
        with _no_collection(), capturing:
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
