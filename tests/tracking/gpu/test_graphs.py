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

from rts_batch.tracking.gpu.graphs import Pool, Stage

POOL = Pool("memory", "a stream of its own")


class Recorded:
    """Stands for CUDA: notes what is run, captured and replayed."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.capturing = False
        self.current: Any = "the engine's stream"
        self.cannot_end: list[Exception] = []

    def note(self, what: str) -> None:
        self.log.append(what)

    def function(self) -> None:
        self.note("captured" if self.capturing else "run")
        assert gc.isenabled() is not self.capturing

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # else what another lane's thread does would end the capture
        assert (pool, stream) == POOL, "what another lane does with the engine's stream would be captured"
        self.capturing = True
        earlier, self.current = self.current, stream
        yield  # as PyTorch does it: nothing is put back where the capture cannot be ended
        self.capturing = False
        if self.cannot_end:
            raise self.cannot_end.pop()
        self.current = earlier

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        earlier, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = earlier


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    cuda = Recorded()

    class Graph:
        def replay(self) -> None:
            cuda.note("replayed")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: cuda.current)
    monkeypatch.setattr(torch.cuda, "stream", cuda.stream)
    monkeypatch.setattr(torch.cuda, "graph", cuda.graph)
    return cuda


def test_a_stage_is_run_then_captured_then_replayed(recorded: Recorded) -> None:
    stage = Stage(recorded.function, pool=POOL)
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

    stage = Stage(function, pool=POOL)
    stage()
    with pytest.raises(RuntimeError, match="out of memory"):
        stage()
    assert gc.isenabled()
    stage()
    assert recorded.log == ["run", "captured", "replayed"]


def test_a_capture_that_cannot_be_ended_leaves_the_thread_its_stream(recorded: Recorded) -> None:
    """There may be no memory for the graph; what came next was done on the stream for captures, beside the rest."""
    stage = Stage(recorded.function, pool=POOL)
    stage()
    recorded.cannot_end.append(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        stage()
    assert recorded.current == "the engine's stream"
    stage()
    assert recorded.log == ["run", "captured", "captured", "replayed"]


@pytest.mark.gpu
def test_on_a_gpu_pinned_memory_may_be_let_go_while_a_graph_is_captured() -> None:
    device = torch.device("cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        values = torch.zeros(1000, device=device)
        copies = [values.to("cpu", non_blocking=True, copy=True)]

        def function() -> None:
            values.add_(1)
            if torch.cuda.is_current_stream_capturing():
                lane = threading.Thread(target=copies.clear)
                lane.start()
                lane.join()

        stage = Stage(function, Pool.on(device))
        for _ in range(3):
            stage()
        torch.zeros(1000).pin_memory()  # asks what memory can be used again
        assert not copies
        assert values.tolist() == [3] * 1000


@pytest.mark.gpu
def test_on_a_gpu_a_graph_is_not_hurt_by_the_end_of_another() -> None:
    device = torch.device("cuda")
    pool = Pool.on(device)
    with torch.cuda.stream(torch.cuda.Stream()):
        # A product of few rows and columns is split, and its parts lie in cuBLAS's workspace.
        left, right = torch.randn(64, 1 << 14, device=device), torch.randn(1 << 14, 64, device=device)
        out = torch.zeros(64, 64, device=device)

        def multiply() -> None:
            out.copy_(left @ right)

        stages = [Stage(multiply, pool) for _ in range(2)]
        for number in (0, 0, 1, 1):
            stages[number]()
        expected = out.clone()
        del stages[0]
        gc.collect()
        torch.cuda.empty_cache()
        others = [torch.full((1 << 20,), 7.0, device=device) for _ in range(64)]
        out.zero_()
        stages[0]()
        assert torch.equal(out, expected)
        assert all(bool((values == 7).all()) for values in others)
