"""When a stage runs, is captured and is replayed, with a stand-in for CUDA's graphs; a GPU runs the real ones in
`test_tracker.py`."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rts_batch.tracking.gpu.graphs import Stage


class Recorded:
    """Stands for CUDA: notes what is run, captured and replayed, and by which thread."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.capturing = False

    def note(self, what: str) -> None:
        self.log.append((threading.current_thread().name, what))

    def function(self) -> None:
        self.note("captured" if self.capturing else "run")
        assert gc.isenabled() is not self.capturing

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # else what another lane's thread does would end the capture
        self.capturing = True
        yield
        self.capturing = False


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    cuda = Recorded()

    class Graph:
        def replay(self) -> None:
            cuda.note("replayed")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", cuda.graph)
    return cuda


def test_a_thread_captures_a_stage_only_when_it_has_run_it_itself(recorded: Recorded) -> None:
    stage = Stage(recorded.function, stream=object(), pool=None)  # type: ignore[arg-type]
    calls = threading.Semaphore(0), threading.Semaphore(0)

    def worker(mine: threading.Semaphore, other: threading.Semaphore) -> None:
        for _ in range(3):
            mine.acquire()
            stage()
            other.release()

    threads = [
        threading.Thread(target=worker, args=(calls[0], calls[1]), name="a"),
        threading.Thread(target=worker, args=(calls[1], calls[0]), name="b"),
    ]
    for thread in threads:
        thread.start()
    calls[0].release()
    for thread in threads:
        thread.join()
    assert recorded.log == [
        ("a", "run"),
        ("b", "run"),
        ("a", "captured"),
        ("a", "replayed"),
        ("b", "replayed"),
        ("a", "replayed"),
        ("b", "replayed"),
    ]


def test_without_cuda_a_stage_only_runs(recorded: Recorded) -> None:
    stage = Stage(recorded.function, stream=None, pool=None)
    for _ in range(3):
        stage()
    assert recorded.log == [("MainThread", "run")] * 3


def test_a_failed_capture_is_tried_again(recorded: Recorded) -> None:
    failures = [RuntimeError("out of memory")]

    def function() -> None:
        if recorded.capturing and failures:
            recorded.capturing = False
            raise failures.pop()
        recorded.function()

    stage = Stage(function, stream=object(), pool=None)  # type: ignore[arg-type]
    stage()
    with pytest.raises(RuntimeError, match="out of memory"):
        stage()
    assert gc.isenabled()
    stage()
    assert [what for _, what in recorded.log] == ["run", "captured", "replayed"]


def test_a_thread_that_is_gone_has_run_nothing_for_the_next(recorded: Recorded) -> None:
    """Whatever the system calls it: it often gives a new thread the identity of an old one."""
    stage = Stage(recorded.function, stream=object(), pool=None)  # type: ignore[arg-type]
    for name in ("a", "b", "c"):
        thread = threading.Thread(target=stage, name=name)
        thread.start()
        thread.join()
    assert recorded.log == [("a", "run"), ("b", "run"), ("c", "run")]
