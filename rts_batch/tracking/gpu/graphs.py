"""Captured work: a function of tensors that keep their places, as a CUDA graph. Nothing here knows of tracking."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

_CAPTURING = threading.Lock()


class Stage:
    """A function of tensors that keep their places; on CUDA a thread's second call captures it, later ones replay it.

    A thread's first call runs it as it is: libraries set themselves up outside the capture, and cuDNN keeps what its
    autotuning found for each thread apart.

    Args:
        function: what to do.
        stream: where its calls are issued; None on the CPU. Libraries keep a workspace for each stream, so graphs that
            may run side by side must have been captured on streams of their own.
        pool: memory shared with graphs that never run beside this one.
    """

    def __init__(self, function: Callable[[], None], stream: torch.cuda.Stream | None, pool: Any) -> None:
        self._function = function
        self._stream = stream
        self._pool = pool
        self._warm_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        thread = threading.current_thread()
        if self._graph is None and thread in self._warm_threads and self._stream is not None:
            self._graph = self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._function()
            self._warm_threads.add(thread)

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads go on working meanwhile.
        capturing = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
        with _CAPTURING, _no_collection(), capturing:
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


POOL = 32
"""Streams that PyTorch has for each device and priority; it hands them out in turn, used or not."""

_LENT: set[int] = set()
_LENDING = threading.Lock()


def stream_of(device: torch.device, *, urgent: bool = False) -> torch.cuda.Stream | None:
    """A CUDA stream that nobody else draws here until it is garbage; None on the CPU.

    What another thread issued on a stream that is being captured would be recorded instead of done.

    Args:
        device: where.
        urgent: its work goes first, and it comes from a pool of its own.

    Raises:
        RuntimeError: all streams are in use.
    """
    if device.type != "cuda":
        return None
    with _LENDING:
        for _ in range(POOL):
            stream = torch.cuda.Stream(device, priority=-1 if urgent else 0)
            if stream.cuda_stream not in _LENT:
                _LENT.add(stream.cuda_stream)
                weakref.finalize(stream, _LENT.discard, stream.cuda_stream)
                return stream
    raise RuntimeError(f"all {POOL} CUDA streams are in use; give the worker fewer lanes")


def graph_pool(stream: torch.cuda.Stream | None) -> Any:
    """Memory that graphs of one stream, which never run at once, share; None on the CPU."""
    return None if stream is None else torch.cuda.graph_pool_handle()
