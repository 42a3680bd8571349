from __future__ import annotations

import itertools

import pytest

from rts_batch.review.axis import MOST, clock, ticks


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 1), (0, 48), (7, 8), (3, 9_999), (95, 105), (0, 1_000_000)])
def test_ticks_are_few_round_and_within(first: int, last: int) -> None:
    found = ticks(first, last, 25.0)
    assert len(found) <= MOST + 1
    assert all(first <= tick.frame <= last and 0 <= tick.percent <= 100 for tick in found)
    steps = {after.frame - before.frame for before, after in itertools.pairwise(found)}
    assert len(steps) <= 1
    assert all(str(step).rstrip("0") in ("1", "2", "5") for step in steps)


def test_times_are_those_of_the_frames() -> None:
    assert [(tick.frame, tick.time) for tick in ticks(0, 40, 25.0)][:2] == [(0, "0:00.00"), (10, "0:00.40")]
    assert ticks(0, 40, None)[1].time is None
    assert clock(3725) == "1:02:05"
