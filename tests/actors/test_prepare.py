"""How many workers a submission has, and how many threads each."""

from __future__ import annotations

import pytest

from rts_batch.actors.prepare import choose_size
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.tracker import TrackerDescription
from tests.support.stub_tracker import Stub


# How many workers
@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [
        (1, None, None, (1, 1)),
        (2, None, None, (1, 2)),
        (16, None, None, (4, 4)),
        (18, None, None, (4, 4)),
        (16, 3, None, (3, 5)),
        (2, 8, None, (8, 1)),
        (16, None, 2, (8, 2)),
        (16, 2, 1, (2, 1)),
    ],
)
def test_workers_and_threads_share_the_cores(
    cores: int, workers: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    settings = RunSettings(workers=workers, threads_per_worker=threads)
    assert choose_size(settings, description(), cores=cores) == expected


def test_a_run_keeps_its_threads_whatever_its_workers() -> None:
    begun = RunRecord(results={}, environment={"threads_per_worker": 4})
    assert choose_size(RunSettings(), description(), begun, cores=8) == (2, 4)
    assert choose_size(RunSettings(workers=1), description(), begun, cores=8) == (1, 4)
    assert choose_size(RunSettings(threads_per_worker=8), description(), begun, cores=8) == (1, 8)


def description() -> TrackerDescription:
    return Stub.describe(RunSettings())
