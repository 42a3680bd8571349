"""The pool's rules on a cluster of plain objects: who is asked for, handed what, ended when."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from rts_batch.actors.coordinator import Coordinator, FailedAttempt
from rts_batch.actors.display import LineDisplay
from rts_batch.actors.interruptions import Interruptions
from rts_batch.actors.members import Lost, PoolSize, Welcome
from rts_batch.actors.pool import LEAVING_SECONDS, Pool
from rts_batch.actors.progress import RunProgress
from rts_batch.errors import ClusterError
from rts_batch.manifest import VideoTask
from rts_batch.worker.messages import Advanced, Event, Failed, FailureKind, Finished, Job
from tests.support.manifests import tasks

Story = Callable[[VideoTask, int], list[Any]]


@dataclass(eq=False)
class FakeWorker:
    """A worker whose videos go as the test's story has it: events, or its end."""

    number: int
    word: Welcome | list[Event] | Lost
    """What it says next."""
    killed: bool = False
    videos: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    left: bool = False
    stories: dict[str, Iterator[Any]] = field(default_factory=dict)
    most_in_hand: int = 0


@dataclass
class FakeCluster:
    """See `rts_batch.actors.members.Cluster`. Its clock goes on by `turn` seconds at each `wait`."""

    story: Story
    turn: float = 1.0
    now: float = 0.0
    nodes_draining: set[str] = field(default_factory=set)
    workers: list[FakeWorker] = field(default_factory=list)
    failing_start: Lost | None = None
    lost_starts: dict[int, Lost] = field(default_factory=dict)
    """The ends of those workers that are lost before they are ready, by number."""
    first_is_silent: bool = False
    """The first worker says nothing more once it is ready."""

    @property
    def alive(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if not worker.killed]

    def start(self) -> FakeWorker:
        number = len(self.workers)
        lost = self.lost_starts.get(number, self.failing_start)
        self.workers.append(FakeWorker(number, lost or Welcome(f"host:{number}", f"node{number}")))
        return self.workers[-1]

    def ask(self, worker: FakeWorker, jobs: Sequence[Job]) -> None:
        for job in jobs:
            worker.videos.append(job.task.key)
            worker.stories[job.task.key] = iter(self.story(job.task, job.attempt))
        worker.most_in_hand = max(worker.most_in_hand, len(worker.stories))
        assert not any(job.suspect for job in jobs) or len(worker.stories) == 1, "a suspect has company"
        events = [next(story) for story in worker.stories.values()]
        for event in events:
            if isinstance(event, Finished | Failed):
                del worker.stories[event.key]
        worker.word = next((event for event in events if isinstance(event, Lost)), events)

    def fetch(self, worker: FakeWorker, task: VideoTask) -> None:
        worker.fetched.append(task.key)

    def leave(self, worker: FakeWorker) -> None:
        worker.left = True

    def kill(self, worker: FakeWorker) -> None:
        worker.killed = True

    def wait(self, workers: Collection[FakeWorker], seconds: float) -> list[tuple[Any, Any]]:
        self.now += self.turn
        silent = [] if not self.first_is_silent else [worker for worker in self.workers[:1] if worker.videos]
        return [(worker, worker.word) for worker in workers if worker not in silent]

    def draining(self) -> set[str]:
        return self.nodes_draining

    def show(self, progress: RunProgress, *, queued: int, workers: int) -> None:
        assert workers == len(self.alive)


def succeed(task: VideoTask, attempt: int) -> list[Event]:
    return [Advanced(key=task.key, frames=1), Finished(key=task.key, frames=1, seconds=0.0)]


@dataclass
class Run:
    """One run of a pool, and what it is told of the videos' ends."""

    cluster: FakeCluster
    coordinator: Coordinator
    progress: RunProgress
    done: list[str] = field(default_factory=list)
    failures: dict[str, tuple[FailedAttempt, ...]] = field(default_factory=dict)

    def finished(self, task: VideoTask, event: Finished, earlier: tuple[FailedAttempt, ...]) -> None:
        self.done.append(task.key)

    def given_up(self, task: VideoTask, failures: tuple[FailedAttempt, ...]) -> None:
        self.failures[task.key] = failures


def run(
    videos: list[VideoTask],
    story: Story = succeed,
    *,
    check: Callable[[Run], None] = lambda state: None,
    cluster: FakeCluster | None = None,
    interruptions: Interruptions | None = None,
    **size: Any,
) -> Run:
    cluster = cluster or FakeCluster(story)
    clock = lambda: cluster.now  # noqa: E731
    coordinator = Coordinator(videos, clock=clock)
    state = Run(cluster, coordinator, RunProgress(videos=len(videos)))
    pool = Pool(
        coordinator,
        cluster,
        size=PoolSize(**size),
        stall_seconds=1,
        progress=state.progress,
        display=LineDisplay(interval=1e9),
        outcome=state,
        clock=clock,
    )
    pool.run(interruptions or Interruptions(), check=lambda: check(state))
    assert not cluster.alive
    return state


def test_all_workers_are_asked_for_at_once_and_go_as_soon_as_nothing_is_left_for_them() -> None:
    steps = {"v0": 40, "v1": 20}

    def story(task: VideoTask, attempt: int) -> list[Any]:
        waits = [Advanced(key=task.key, frames=step) for step in range(steps.get(task.key, 1))]
        return [*waits, *succeed(task, attempt)]

    alive: list[int] = []
    state = run(tasks(5), story, check=lambda state: alive.append(len(state.cluster.alive)), most=4)
    assert len(state.done) == 5
    assert alive[:2] == [0, 4]
    changes = [number for number, _ in itertools.groupby(alive)]
    assert changes == [0, 4, 2, 1] or changes == [0, 4, 3, 2, 1]
    assert len(state.cluster.workers) == 4


def test_the_least_number_of_workers_stays_while_a_video_pauses() -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if attempt == 1:
            return [Failed(key=task.key, kind="transient", error="StorageError", message="")]
        return succeed(task, attempt)

    alive: list[int] = []
    state = run(tasks(1), story, check=lambda state: alive.append(len(state.cluster.alive)), most=3, least=2)
    assert state.done == ["v0"]
    assert set(alive[1:-1]) == {2, 1} or set(alive[1:-1]) == {2}
    assert len(state.cluster.workers) == 2


def test_what_the_end_of_an_actor_costs() -> None:
    kinds: dict[str, FailureKind] = {"v0": "preempted", "v1": "killed", "v2": "preempted"}

    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [Lost(kind=kinds[task.key], error="Gone", message="")] if attempt <= 30 else succeed(task, attempt)

    state = run(tasks(3), story, most=3)
    assert sorted(state.done) == ["v0", "v2"]
    assert {failure.kind for failure in state.failures["v1"]} == {"killed"}
    assert len(state.failures["v1"]) == 20
    assert state.progress.retries == 30 + 30 + 19


def test_a_workers_next_remote_video_is_fetched_meanwhile() -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [Advanced(key=task.key, frames=1), Advanced(key=task.key, frames=2), *succeed(task, attempt)]

    state = run(tasks(6, "s3://bucket/"), story, most=1)
    (actor,) = state.cluster.workers
    assert actor.videos == [f"v{number}" for number in range(6)]
    assert actor.fetched == actor.videos[1:-1]  # the last one might as well go to another
    assert run(tasks(6), story, most=1).cluster.workers[0].fetched == []


def test_workers_on_a_draining_node_are_told_to_leave_and_replaced() -> None:
    def story(task: VideoTask, attempt: int) -> Any:
        if attempt > 1:
            return succeed(task, attempt)
        cluster.nodes_draining.add("node0")
        return until_told(task)

    def until_told(task: VideoTask) -> Iterator[Any]:
        while not cluster.workers[0].left:
            yield Advanced(key=task.key, frames=1)
        yield Failed(key=task.key, kind="preempted", error="Leaving", message="")

    cluster = FakeCluster(story)
    state = run(tasks(1), cluster=cluster, most=1)
    assert state.done == ["v0"]
    assert [worker.videos for worker in cluster.workers] == [["v0"], ["v0"]]
    assert not state.failures


def test_a_worker_that_falls_silent_is_taken_for_dead() -> None:
    cluster = FakeCluster(succeed, turn=10, first_is_silent=True)
    state = run(tasks(1), cluster=cluster, most=1)
    assert state.done == ["v0"]
    assert len(cluster.workers) == 2
    assert 60 < cluster.now < 150


@pytest.mark.parametrize(("cannot_start", "tried"), [(True, 2), (False, 5)])
def test_workers_that_cannot_start_end_the_run(cannot_start: bool, tried: int) -> None:
    lost = Lost(kind="killed", error="ActorDiedError", message="no such model", cannot_start=cannot_start)
    cluster = FakeCluster(succeed, failing_start=lost)
    with pytest.raises(ClusterError, match="a worker cannot start: no such model"):
        run(tasks(3), cluster=cluster, most=2)
    assert not cluster.alive
    assert tried <= len(cluster.workers) <= tried + 1


def lasting(task: VideoTask, attempt: int) -> list[Any]:
    return [*[Advanced(key=task.key, frames=step) for step in range(30)], *succeed(task, attempt)]


@pytest.mark.parametrize("kind", ["preempted", "killed"])
def test_workers_that_are_lost_while_they_start_leave_those_that_are_ready_alone(kind: FailureKind) -> None:
    cluster = FakeCluster(
        lasting, lost_starts={number: Lost(kind=kind, error="", message="") for number in range(1, 9)}
    )
    assert len(run(tasks(8), cluster=cluster, most=6).done) == 8


def test_any_number_of_workers_may_be_preempted_while_they_start() -> None:
    lost = Lost(kind="preempted", error="ActorDiedError", message="its node has died")
    cluster = FakeCluster(succeed, lost_starts=dict.fromkeys(range(12), lost))
    assert len(run(tasks(3), cluster=cluster, most=3).done) == 3


def test_a_video_costs_the_driver_the_same_among_many() -> None:
    def seconds_each(count: int) -> float:
        videos = tasks(count)
        started = time.process_time()
        assert len(run(videos, most=8).done) == count
        return (time.process_time() - started) / count

    # Where other work empties the caches meanwhile, once is not enough to tell.
    assert any(seconds_each(10_000) < 4 * seconds_each(1000) for _ in range(3))


def test_lanes_are_filled_longest_first_and_refilled_at_once() -> None:
    lasting = {f"v{number}": number + 1 for number in range(7)}
    in_hand: list[int] = []

    def story(task: VideoTask, attempt: int) -> list[Any]:
        waits = [Advanced(key=task.key, frames=step) for step in range(lasting[task.key])]
        return [*waits, Finished(key=task.key, frames=1, seconds=0.0)]

    def note(state: Run) -> None:
        in_hand.extend(len(actor.stories) for actor in state.cluster.workers if len(actor.videos) < 7)

    videos = [dataclasses.replace(task, frames=lasting[task.key]) for task in tasks(7)]
    state = run(videos, story, check=note, lanes=3, most=1)
    (actor,) = state.cluster.workers
    assert actor.videos == ["v6", "v5", "v4", "v3", "v2", "v1", "v0"]
    assert actor.most_in_hand == 3
    assert {number for number in in_hand if number} <= {2, 3}  # of two, the third is given in the same turn
    assert len(state.done) == 7


def test_fewer_videos_than_lanes_are_shared_out_evenly() -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [*(Advanced(key=task.key, frames=step) for step in range(5)), *succeed(task, attempt)]

    state = run(tasks(5), story, lanes=4, most=2)
    assert sorted(len(actor.videos) for actor in state.cluster.workers) == [2, 3]
    state = run(tasks(3), story, lanes=4, most=8)
    assert [len(actor.videos) for actor in state.cluster.workers] == [1, 1, 1]


def test_a_video_that_comes_back_at_the_tail_takes_a_free_lane() -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if task.key == "v0" and attempt == 1:
            return [Failed(key=task.key, kind="killed", error="SIGKILL", message="")]
        return [*(Advanced(key=task.key, frames=step) for step in range(9)), *succeed(task, attempt)]

    state = run(tasks(2), story, lanes=2, most=2)
    assert sorted(state.done) == ["v0", "v1"]
    assert [len(actor.videos) for actor in state.cluster.workers] in ([1, 2], [2, 1])


def test_suspects_are_tried_on_as_many_workers_as_there_may_be() -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if attempt == 1 and task.key != "v0":
            return [Failed(key=task.key, kind="suspected", error="SIGSEGV", message="")]
        return [*(Advanced(key=task.key, frames=step) for step in range(9)), *succeed(task, attempt)]

    alone: list[int] = []

    def note(state: Run) -> None:
        alone.append(sum(bool(actor.stories) for actor in state.cluster.alive))

    state = run(tasks(4), story, check=note, lanes=4, most=3)
    assert len(state.done) == 4
    assert max(alone) == 3


def test_a_worker_goes_when_all_its_lanes_are_empty() -> None:
    steps = {"v0": 30, "v1": 2, "v2": 10, "v3": 10}
    seen: list[tuple[int, int]] = []

    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [*(Advanced(key=task.key, frames=step) for step in range(steps[task.key])), *succeed(task, attempt)]

    def note(state: Run) -> None:
        seen.append((len(state.cluster.alive), sum(len(actor.stories) for actor in state.cluster.alive)))

    state = run(tasks(4), story, check=note, lanes=2, most=2)
    assert len(state.done) == 4
    alive = [number for number, _ in itertools.groupby(workers for workers, _ in seen)]
    assert alive == [0, 2, 1]
    assert (2, 3) in seen  # v1 has ended, and v0 keeps its worker
    assert (1, 1) in seen


def test_what_the_end_of_an_actor_costs_all_its_videos() -> None:
    shortage = Lost(kind="crash", error="OutOfMemoryError", message="the node's memory was used up")

    def story(task: VideoTask, attempt: int) -> list[Any]:
        if task.key == "v1":
            return [Advanced(key=task.key, frames=7), shortage]
        return [*(Advanced(key=task.key, frames=step) for step in range(4)), *succeed(task, attempt)]

    state = run(tasks(3), story, lanes=3, most=1)
    assert sorted(state.done) == ["v0", "v2"]
    assert [failure.kind for failure in state.failures["v1"]] == ["suspected", "crash", "crash", "crash"]
    assert state.failures["v1"][0].frame == 7


def test_nothing_more_is_given_to_a_process_in_which_something_broke() -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if task.key == "v0" and attempt == 1:
            return [Failed(key=task.key, kind="crash", error="RuntimeError", message="")]
        return [*(Advanced(key=task.key, frames=step) for step in range(6)), *succeed(task, attempt)]

    in_hand: list[set[str]] = []

    def note(state: Run) -> None:
        in_hand.extend(set(actor.stories) for actor in state.cluster.workers)

    state = run(tasks(4), story, check=note, lanes=2, most=1)
    assert sorted(state.done) == ["v0", "v1", "v2", "v3"]
    (actor,) = state.cluster.workers
    assert actor.videos == ["v0", "v1", "v2", "v3", "v0"]
    assert {"v1", "v2"} not in in_hand  # v2 waits for the new process that comes after v1
    assert {"v2", "v3"} in in_hand


@pytest.mark.parametrize("ends", ["leaves", "hangs", "at once", "Ray is stopped too"])
def test_stopped_now_the_workers_may_leave_with_what_they_have(ends: str) -> None:
    interruptions = Interruptions()

    def story(task: VideoTask, attempt: int) -> Iterator[Any]:
        assert attempt == 1, "nothing is handed out any more"
        yield Advanced(key=task.key, frames=1)
        interruptions.finish = interruptions.now = True
        while ends != "leaves" or not cluster.workers[0].left:
            if ends == "Ray is stopped too" and cluster.workers[0].left:
                raise ClusterError("a process of Ray's has ended")
            interruptions.at_once = ends == "at once" and cluster.workers[0].left
            yield Advanced(key=task.key, frames=2)
        yield Failed(key=task.key, kind="preempted", error="Leaving", message="")

    cluster = FakeCluster(story)
    state = run(tasks(2), cluster=cluster, interruptions=interruptions, most=1)
    (worker,) = cluster.workers
    assert (worker.left, worker.videos) == (True, ["v0"])
    assert (state.done, state.failures, state.progress.retries) == ([], {}, 0)
    assert (state.coordinator.running, state.coordinator.queued) == ((0, 2) if ends == "leaves" else (1, 1))
    assert cluster.now > LEAVING_SECONDS if ends == "hangs" else cluster.now < LEAVING_SECONDS
