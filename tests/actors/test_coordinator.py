"""The queue's rules, without Ray."""

from __future__ import annotations

import pytest

from rts_batch.actors.coordinator import Coordinator, FailedAttempt
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import FailureKind


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def task(name: str, frames: int | None = None) -> VideoTask:
    return VideoTask(
        video_id=name, uri=name, targets=(), start=0, end=None, direction="forward", frames=frames, digest="", key=name
    )


def failure(kind: FailureKind, error: str = "SomeError") -> FailedAttempt:
    return FailedAttempt(kind=kind, error=error, message="because")


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


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [
        *(("permanent", 1), ("transient", 5), ("crash", 3), ("killed", 20)),
        *(("suspected", 100), ("displaced", 100), ("preempted", 100)),
    ],
)
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
    coordinator = Coordinator([task("a", 9), task("b", 1)], longest_pause=3, clock=clock)
    coordinator.take()
    coordinator.failed("a", failure("transient"))
    assert take_all(coordinator) == ["b"]
    assert not coordinator.finished
    clock.now = 1.9
    assert coordinator.take() is None
    clock.now = 2.0
    assert coordinator.take() is not None
    coordinator.failed("a", failure("transient"))
    clock.now = 4.9
    assert coordinator.take() is None
    clock.now = 5.0  # the pause is doubled, but for the limit
    assert coordinator.take() is not None


def test_after_a_stop_nothing_is_handed_out_and_what_runs_may_finish() -> None:
    coordinator = Coordinator([task("a"), task("b"), task("c")])
    coordinator.take()
    coordinator.stop()
    assert coordinator.take() is None
    assert coordinator.to_hand_out == 0
    assert not coordinator.finished
    coordinator.failed("a", failure("killed"))
    assert coordinator.finished
    assert not coordinator.emptied
    assert coordinator.queued == 3


def test_a_suspect_waits_until_no_innocent_video_does() -> None:
    coordinator = Coordinator([task("suspect", 100), task("b", 10), task("c", 5)])
    coordinator.take()
    coordinator.failed("suspect", failure("crash"))
    assert coordinator.take() == task("b", 10)
    assert not coordinator.is_suspect("b")
    assert take_all(coordinator) == ["c", "suspect"]
    assert coordinator.is_suspect("suspect")


@pytest.mark.parametrize("kind", ["crash", "suspected"])
def test_a_suspect_goes_to_an_empty_worker_only(kind: FailureKind) -> None:
    coordinator = Coordinator([task("suspect", 100), task("b", 10)])
    coordinator.take()
    coordinator.failed("suspect", failure(kind))
    assert coordinator.take(empty=False) == task("b", 10)
    assert coordinator.take(empty=False) is None
    assert coordinator.take(empty=True) == task("suspect", 100)
    assert coordinator.is_suspect("suspect")


def test_a_suspect_that_lacked_memory_runs_alone() -> None:
    coordinator = Coordinator([task("hog", 100), task("b", 10), task("c", 5)])
    coordinator.take()
    coordinator.take()
    coordinator.failed("hog", failure("crash", "MemoryError"))
    coordinator.failed("b", failure("crash"))
    assert take_all(coordinator) == ["c"]  # the hog is the longest suspect and must not run beside c
    coordinator.succeeded("c")
    assert take_all(coordinator) == ["hog"]
    coordinator.succeeded("hog")
    assert take_all(coordinator) == ["b"]


def test_a_reserved_video_waits_for_its_worker_unless_another_has_nothing_else() -> None:
    coordinator = Coordinator([task(name, frames) for frames, name in enumerate("edcba", 1)])
    assert [coordinator.take("one"), coordinator.take("two")] == [task("a", 5), task("b", 4)]
    assert coordinator.reserve("one") == task("c", 3)
    assert coordinator.reserve("one") is None  # one each
    assert coordinator.reserve("two") is None  # as few as workers
    assert coordinator.queued == 3
    coordinator.succeeded("b")
    assert coordinator.take("two") == task("d", 2)
    coordinator.succeeded("a")
    assert coordinator.take("one") == task("c", 3)
    assert coordinator.take("three") == task("e", 1)


def test_an_idle_worker_takes_a_reserved_video_over_and_a_lost_one_gives_it_back() -> None:
    coordinator = Coordinator([task("a", 3), task("b", 2), task("c", 1)])
    coordinator.take("one")
    assert coordinator.reserve("one") == task("b", 2)
    assert [coordinator.take("two"), coordinator.take("three")] == [task("c", 1), task("b", 2)]
    coordinator = Coordinator([task("a", 3), task("b", 2), task("c", 1)])
    coordinator.take("one")
    coordinator.reserve("one")
    coordinator.release("one")
    assert coordinator.take("two") == task("b", 2)


@pytest.mark.long
def test_a_hundred_thousand_videos_cost_little() -> None:
    coordinator = Coordinator([task(str(number), number % 977) for number in range(100_000)])
    lengths = []
    while (one := coordinator.take()) is not None:
        lengths.append(one.frames or 0)
        coordinator.succeeded(one.key)
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) == 100_000
