"""The queue's rules, without Ray."""

from __future__ import annotations

import pytest

from rts_batch.actors.coordinator import Budgets, Coordinator, Failure, FailureKind
from rts_batch.manifest import VideoTask


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def task(name: str, frames: int | None = None) -> VideoTask:
    return VideoTask(
        video_id=name, uri=name, targets=(), start=0, end=None, direction="forward", frames=frames, digest="", key=name
    )


def failure(kind: FailureKind) -> Failure:
    return Failure(kind=kind, error="SomeError", message="because")


def take_all(coordinator: Coordinator) -> list[str]:
    taken = []
    while (next_task := coordinator.take()) is not None:
        taken.append(next_task.key)
    return taken


def test_longest_first_and_equals_in_the_manifests_order() -> None:
    tasks = [task("a", 5), task("b", 50), task("c"), task("d", 50), task("e", 5)]
    assert take_all(Coordinator(tasks)) == ["b", "d", "a", "e", "c"]


def test_given_lengths_win_over_the_manifests_hint() -> None:
    assert take_all(Coordinator([task("a", 5), task("b", 50)], lengths={"a": 500, "b": 50})) == ["a", "b"]


def test_a_video_is_handed_out_once() -> None:
    coordinator = Coordinator([task("a")])
    assert coordinator.take() is not None
    assert coordinator.take() is None
    assert coordinator.running == 1
    assert not coordinator.finished
    assert coordinator.succeeded("a") == ()
    assert coordinator.finished
    assert coordinator.emptied


@pytest.mark.parametrize(("kind", "attempts"), [("permanent", 1), ("transient", 5), ("crash", 3), ("killed", 20)])
def test_each_kind_of_failure_has_its_own_budget(kind: FailureKind, attempts: int) -> None:
    clock = Clock()
    coordinator = Coordinator([task("a")], clock=clock)
    for number in range(1, attempts + 1):
        clock.now += 1000
        assert coordinator.take() is not None
        assert coordinator.attempt("a") == number
        given_up = coordinator.failed("a", failure(kind))
        assert (given_up is not None) == (number == attempts)
    assert given_up is not None
    assert len(given_up) == attempts
    assert coordinator.finished


def test_kinds_do_not_spend_each_others_budgets() -> None:
    coordinator = Coordinator([task("a")])
    for kind in ("crash", "killed", "crash", "killed", "killed"):
        assert coordinator.take() is not None
        assert coordinator.failed("a", failure(kind)) is None
    assert coordinator.take() is not None
    given_up = coordinator.failed("a", failure("crash"))
    assert given_up is not None
    assert [one.kind for one in given_up] == ["crash", "killed", "crash", "killed", "killed", "crash"]


def test_a_retry_keeps_its_place_and_success_reports_what_went_before() -> None:
    coordinator = Coordinator([task("long", 100), task("b", 10), task("c", 10)])
    assert coordinator.take() == task("long", 100)
    coordinator.failed("long", failure("killed"))
    assert take_all(coordinator) == ["long", "b", "c"]
    assert [one.kind for one in coordinator.succeeded("long")] == ["killed"]


def test_a_transient_failure_waits_and_others_go_before_it() -> None:
    clock = Clock()
    coordinator = Coordinator([task("a", 9), task("b", 1)], budgets=Budgets(pause=2, longest_pause=3), clock=clock)
    coordinator.take()
    coordinator.failed("a", failure("transient"))
    assert take_all(coordinator) == ["b"]
    assert coordinator.next_ready_in() == 2
    assert not coordinator.finished
    clock.now = 1.9
    assert coordinator.take() is None
    clock.now = 2.0
    assert coordinator.next_ready_in() == 0
    assert coordinator.take() is not None
    coordinator.failed("a", failure("transient"))
    assert coordinator.next_ready_in() == 3  # doubled, but for the limit


def test_after_a_stop_nothing_is_handed_out_and_what_runs_may_finish() -> None:
    coordinator = Coordinator([task("a"), task("b"), task("c")])
    coordinator.take()
    coordinator.stop()
    assert coordinator.take() is None
    assert coordinator.next_ready_in() is None
    assert not coordinator.finished
    coordinator.failed("a", failure("killed"))
    assert coordinator.finished
    assert not coordinator.emptied
    assert coordinator.queued == 3


def test_a_hundred_thousand_videos_cost_little() -> None:
    coordinator = Coordinator([task(str(number), number % 977) for number in range(100_000)])
    lengths = []
    while (one := coordinator.take()) is not None:
        lengths.append(one.frames or 0)
        coordinator.succeeded(one.key)
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) == 100_000
