"""When a stage runs, is captured and is replayed, with a stand-in for CUDA's graphs; a GPU runs the real ones in
`test_tracker.py`."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rts_batch.tracking.gpu.graphs import Stage


class Recorded:
    """Stands for CUDA: notes what is run, captured and replayed."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.capturing = False

    def note(self, what: str) -> None:
        self.log.append(what)

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
    monkeypatch.setattr(torch.cuda, "current_stream", object)
    monkeypatch.setattr(torch.cuda, "graph", cuda.graph)
    return cuda


def test_a_stage_is_run_then_captured_then_replayed(recorded: Recorded) -> None:
    stage = Stage(recorded.function, pool=object())
    for _ in range(3):
        stage()
    assert recorded.log == ["run", "captured", "replayed", "replayed"]


def test_without_cuda_a_stage_only_runs(recorded: Recorded) -> None:
    stage = Stage(recorded.function, pool=None)
    for _ in range(3):
        stage()
    assert recorded.log == ["run"] * 3


def test_a_failed_capture_is_tried_again(recorded: Recorded) -> None:
    failures = [RuntimeError("out of memory")]

    def function() -> None:
        if recorded.capturing and failures:
            recorded.capturing = False
            raise failures.pop()
        recorded.function()

    stage = Stage(function, pool=object())
    stage()
    with pytest.raises(RuntimeError, match="out of memory"):
        stage()
    assert gc.isenabled()
    stage()
    assert recorded.log == ["run", "captured", "replayed"]
