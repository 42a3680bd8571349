"""How many workers a run gets, and how many threads each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rts_batch.actors.sizing import choose_cpus, choose_size, usable_memory
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.tracker import TrackerDescription
from tests.support.stub_tracker import Stub

PLENTY = 1 << 40


def description(**changes: object) -> TrackerDescription:
    return replace(Stub.describe(RunSettings()), **changes)


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [
        (1, None, None, (1, 1)),
        (2, None, None, (1, 2)),
        (16, None, None, (4, 4)),
        (18, None, None, (4, 4)),
        (16, 3, None, (3, 4)),
        (2, 8, None, (8, 1)),
        (16, None, 2, (8, 2)),
        (16, 2, 1, (2, 1)),
    ],
)
def test_workers_and_threads_share_the_cores(
    cores: int, workers: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    settings = RunSettings(workers=workers, threads_per_worker=threads)
    assert choose_size(settings, description(), videos=100, cores=cores, memory=PLENTY) == expected


@pytest.mark.parametrize(
    ("videos", "cores", "memory", "expected"),
    [
        (100, 2, PLENTY, (2, 1)),
        (100, 16, PLENTY, (16, 1)),
        (1, 16, PLENTY, (1, 4)),
        (8, 16, PLENTY, (8, 2)),
        (100, 16, 5 << 30, (5, 3)),
        (100, 16, 1 << 20, (1, 4)),
    ],
)
def test_a_small_network_gets_a_worker_a_core_as_far_as_memory_and_videos_go(
    videos: int, cores: int, memory: int, expected: tuple[int, int]
) -> None:
    tracker = description(threads=1, worker_bytes=1 << 30)
    assert choose_size(RunSettings(), tracker, videos=videos, cores=cores, memory=memory) == expected


def test_a_run_keeps_its_threads_whatever_its_workers() -> None:
    begun, many = RunRecord(results={}, environment={"threads_per_worker": 4}), {"videos": 100, "memory": PLENTY}
    assert choose_size(RunSettings(), description(), begun, cores=8, **many) == (2, 4)
    assert choose_size(RunSettings(workers=1), description(), begun, cores=8, **many) == (1, 4)
    assert choose_size(RunSettings(threads_per_worker=8), description(), begun, cores=8, **many) == (1, 8)


def test_memory_is_known() -> None:
    assert 1 << 26 < usable_memory() < 1 << 50


@pytest.mark.parametrize(("lanes", "cpus"), [(1, 1), (2, 1), (3, 2), (8, 4), (16, 8)])
def test_cpus_follow_the_lanes_unless_told_otherwise(lanes: int, cpus: float) -> None:
    assert choose_cpus(RunSettings(), lanes) == cpus
    assert choose_cpus(RunSettings(cpus_per_worker=0.5), lanes) == 0.5
