"""The pool's rules against a Ray that is made of plain objects: who is asked for, handed what, ended when."""

from __future__ import annotations

import dataclasses
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayActorError

from rts_batch.actors import members, pool
from rts_batch.actors.coordinator import Budgets, Coordinator, Failure
from rts_batch.actors.display import LineDisplay
from rts_batch.actors.interruptions import Interruptions
from rts_batch.actors.pool import Pool, PoolSize
from rts_batch.actors.progress import RunProgress
from rts_batch.actors.worker import FetchedAhead, Welcome
from rts_batch.errors import ClusterError
from rts_batch.manifest import VideoTask
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.messages import Advanced, Event, Failed, Finished, Job, WorkerSettings
from tests.support.stub_tracker import Stub

Story = Callable[[VideoTask, int], list[Any]]


@dataclass
class FakeActor:
    """An actor whose videos go as the test's story has it: events, or an exception that Ray raises."""

    ray: FakeRay
    number: int
    killed: bool = False
    videos: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    left: bool = False
    stories: dict[str, Iterator[Any]] = field(default_factory=dict)
    most_in_hand: int = 0

    @property
    def ready(self) -> Any:
        return SimpleNamespace(remote=lambda: Answer([Welcome(f"host:{self.number}", f"node{self.number}")]))

    @property
    def work(self) -> Any:
        return SimpleNamespace(remote=self._work)

    @property
    def fetch(self) -> Any:
        return _Method(lambda task: self.fetched.append(task.key))

    @property
    def leave(self) -> Any:
        return _Method(lambda: setattr(self, "left", True))

    def _work(self, jobs: list[Job]) -> Answer:
        for job in jobs:
            self.videos.append(job.task.key)
            self.stories[job.task.key] = iter(self.ray.story(job.task, job.attempt))
        self.most_in_hand = max(self.most_in_hand, len(self.stories))
        assert not any(job.suspect for job in jobs) or len(self.stories) == 1, "a suspect has company"
        events = [next(story) for story in self.stories.values()]
        for event in events:
            if isinstance(event, BaseException):
                return Answer([event])
            if isinstance(event, Finished | Failed):
                del self.stories[event.key]
        return Answer(events)


@dataclass(eq=False)
class Answer:
    """What a call returns; hashable, as Ray's references are."""

    events: list[Any]


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def options(self, **_: Any) -> Any:
        return SimpleNamespace(remote=self._call)


class FakeRay:
    def __init__(self, story: Story) -> None:
        self.story = story
        self.actors: list[FakeActor] = []
        self.options: dict[str, Any] = {}
        self.most_alive = 0

    def remote(self, **_: Any) -> Any:
        def options(**options: Any) -> Any:
            self.options = options
            return SimpleNamespace(remote=self._start)

        return lambda cls: SimpleNamespace(options=options)

    def _start(self, *_: Any) -> FakeActor:
        self.actors.append(FakeActor(self, len(self.actors)))
        self.most_alive = max(self.most_alive, len(self.alive))
        return self.actors[-1]

    @property
    def alive(self) -> list[FakeActor]:
        return [actor for actor in self.actors if not actor.killed]

    def kill(self, actor: FakeActor) -> None:
        actor.killed = True

    def wait(self, sources: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return sources, []

    def get(self, answer: Answer) -> Any:
        if isinstance(answer.events[0], BaseException):
            raise answer.events[0]
        return answer.events[0] if isinstance(answer.events[0], Welcome) else answer.events


def tasks(count: int, scheme: str = "", frames: int = 1) -> list[VideoTask]:
    return [
        VideoTask(
            video_id=f"v{number}",
            uri=f"{scheme}v{number}",
            targets=(),
            start=0,
            end=None,
            direction="forward",
            frames=frames,
            digest="",
            key=f"v{number}",
        )
        for number in range(count)
    ]


def succeed(task: VideoTask, attempt: int) -> list[Event]:
    return [Advanced(key=task.key, frames=1), Finished(key=task.key, frames=1, seconds=0.0)]


@dataclass
class Run:
    ray: FakeRay
    coordinator: Coordinator
    progress: RunProgress
    finished: list[str] = field(default_factory=list)
    given_up: dict[str, tuple[Failure, ...]] = field(default_factory=dict)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def go(
        videos: list[VideoTask],
        story: Story = succeed,
        *,
        check: Callable[[Run], None] = lambda state: None,
        draining: set[str] | None = None,
        lanes: int = 1,
        **size: Any,
    ) -> Run:
        fake = FakeRay(story)
        monkeypatch.setattr(pool, "ray", fake)
        monkeypatch.setattr(pool, "POLL_SECONDS", 0.0)
        monkeypatch.setattr(pool, "RunMetrics", lambda run: SimpleNamespace(update=lambda progress, **counts: None))
        monkeypatch.setattr(pool, "DRAIN_SECONDS", 0.0)
        monkeypatch.setattr(pool, "draining_nodes", lambda: set() if draining is None else draining)
        coordinator = Coordinator(videos, budgets=Budgets(pause=0.05))
        state = Run(fake, coordinator, RunProgress(videos=len(videos)))
        settings = WorkerSettings(
            out="run",
            factory="",
            tracker=Stub.describe(RunSettings()),
            decoder="auto",
            threads=1,
            lanes=lanes,
            extras={},
        )
        Pool(
            coordinator,
            settings,
            size=PoolSize(**size),
            stall_seconds=1,
            progress=state.progress,
            display=LineDisplay(interval=1e9),
            finished=lambda task, event, earlier: state.finished.append(task.key),
            given_up=lambda task, failures: state.given_up.update({task.key: failures}),
        ).run(Interruptions(), check=lambda: check(state))
        assert not fake.alive
        return state

    return go


def test_all_workers_are_asked_for_at_once_and_go_as_soon_as_nothing_is_left_for_them(run: Any) -> None:
    steps = {"v0": 40, "v1": 20}

    def story(task: VideoTask, attempt: int) -> list[Any]:
        waits = [Advanced(key=task.key, frames=step) for step in range(steps.get(task.key, 1))]
        return [*waits, *succeed(task, attempt)]

    alive: list[int] = []
    state = run(tasks(5), story, check=lambda state: alive.append(len(state.ray.alive)), most=4, cpus=2, gpus=0.5)
    assert len(state.finished) == 5
    taken = {"num_cpus": 2, "num_gpus": 0.5, "resources": {}}
    assert state.ray.options == taken | {"max_restarts": 0, "max_task_retries": 0}
    assert alive[:2] == [0, 4]
    changes = [number for number, _ in itertools.groupby(alive)]
    assert changes == [0, 4, 2, 1] or changes == [0, 4, 3, 2, 1]
    assert len(state.ray.actors) == 4


def test_the_least_number_of_workers_stays_while_a_video_pauses(run: Any) -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if attempt == 1:
            return [Failed(key=task.key, kind="transient", error="StorageError", message="")]
        return succeed(task, attempt)

    alive: list[int] = []
    state = run(tasks(1), story, check=lambda state: alive.append(len(state.ray.alive)), most=3, least=2)
    assert state.finished == ["v0"]
    assert set(alive[1:-1]) == {2, 1} or set(alive[1:-1]) == {2}
    assert len(state.ray.actors) == 2


def test_what_the_end_of_an_actor_costs(run: Any) -> None:
    endings: dict[str, RayActorError] = {
        "v0": ActorUnavailableError("it cannot be reached", None),
        "v1": ActorDiedError(),
    }
    endings["v2"] = ActorDiedError()
    endings["v2"]._preempted = True

    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [endings[task.key]] if attempt <= 30 else succeed(task, attempt)

    state = run(tasks(3), story, most=3)
    assert sorted(state.finished) == ["v0", "v2"]
    assert {failure.kind for failure in state.given_up["v1"]} == {"killed"}
    assert len(state.given_up["v1"]) == 20
    assert state.progress.retries == 30 + 30 + 19


def test_a_workers_next_remote_video_is_fetched_meanwhile(run: Any) -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [Advanced(key=task.key, frames=1), Advanced(key=task.key, frames=2), *succeed(task, attempt)]

    state = run(tasks(6, "s3://bucket/"), story, most=1)
    (actor,) = state.ray.actors
    assert actor.videos == [f"v{number}" for number in range(6)]
    assert actor.fetched == actor.videos[1:-1]  # the last one might as well go to another
    assert run(tasks(6), story, most=1).ray.actors[0].fetched == []


def test_workers_on_a_draining_node_are_told_to_leave_and_replaced(run: Any) -> None:
    actors: list[FakeActor] = []
    draining: set[str] = set()

    def story(task: VideoTask, attempt: int) -> Any:
        if attempt > 1:
            return succeed(task, attempt)
        draining.add("node0")
        return until_told(task)

    def until_told(task: VideoTask) -> Iterator[Any]:
        while not actors[0].left:
            yield Advanced(key=task.key, frames=1)
        yield Failed(key=task.key, kind="preempted", error="Leaving", message="")

    state = run(tasks(1), story, check=lambda state: actors.extend(state.ray.actors[:1]), draining=draining, most=1)
    assert state.finished == ["v0"]
    assert [actor.videos for actor in state.ray.actors] == [["v0"], ["v0"]]
    assert not state.given_up


def test_a_worker_that_falls_silent_is_taken_for_dead(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    monkeypatch.setattr(members, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pass_time(state: Run) -> None:
        now[0] += 10

    def silence(self: FakeRay, sources: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        silent = [source for source in sources if not isinstance(source.events[0], Welcome) and len(self.actors) == 1]
        return [source for source in sources if source not in silent], silent

    monkeypatch.setattr(FakeRay, "wait", silence)
    state = run(tasks(1), check=pass_time, most=1)
    assert state.finished == ["v0"]
    assert len(state.ray.actors) == 2
    assert 60 < now[0] < 150


def test_workers_that_cannot_start_end_the_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ActorDiedError()
    monkeypatch.setattr(FakeActor, "ready", property(lambda self: SimpleNamespace(remote=lambda: Answer([error]))))
    with pytest.raises(ClusterError, match="a worker cannot start"):
        run(tasks(3), most=2)


def test_ten_thousand_videos_cost_the_driver_little(run: Any) -> None:
    videos = tasks(10_000)
    started = time.process_time()
    state = run(videos, most=8)
    assert len(state.finished) == 10_000
    assert (time.process_time() - started) / 10_000 < 0.002


def test_lanes_are_filled_longest_first_and_refilled_at_once(run: Any) -> None:
    lasting = {f"v{number}": number + 1 for number in range(7)}
    in_hand: list[int] = []

    def story(task: VideoTask, attempt: int) -> list[Any]:
        waits = [Advanced(key=task.key, frames=step) for step in range(lasting[task.key])]
        return [*waits, Finished(key=task.key, frames=1, seconds=0.0)]

    def note(state: Run) -> None:
        in_hand.extend(len(actor.stories) for actor in state.ray.actors if len(actor.videos) < 7)

    videos = [dataclasses.replace(task, frames=lasting[task.key]) for task in tasks(7)]
    state = run(videos, story, check=note, lanes=3, most=1)
    (actor,) = state.ray.actors
    assert actor.videos == ["v6", "v5", "v4", "v3", "v2", "v1", "v0"]
    assert actor.most_in_hand == 3
    assert {number for number in in_hand if number} <= {2, 3}  # of two, the third is given in the same turn
    assert len(state.finished) == 7


def test_fewer_videos_than_lanes_are_shared_out_evenly(run: Any) -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [*(Advanced(key=task.key, frames=step) for step in range(5)), *succeed(task, attempt)]

    state = run(tasks(5), story, lanes=4, most=2)
    assert sorted(len(actor.videos) for actor in state.ray.actors) == [2, 3]
    state = run(tasks(3), story, lanes=4, most=8)
    assert [len(actor.videos) for actor in state.ray.actors] == [1, 1, 1]


def test_a_video_that_comes_back_at_the_tail_takes_a_free_lane(run: Any) -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if task.key == "v0" and attempt == 1:
            return [Failed(key=task.key, kind="killed", error="SIGKILL", message="")]
        return [*(Advanced(key=task.key, frames=step) for step in range(9)), *succeed(task, attempt)]

    state = run(tasks(2), story, lanes=2, most=2)
    assert sorted(state.finished) == ["v0", "v1"]
    assert [len(actor.videos) for actor in state.ray.actors] in ([1, 2], [2, 1])


def test_suspects_are_tried_on_as_many_workers_as_there_may_be(run: Any) -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if attempt == 1 and task.key != "v0":
            return [Failed(key=task.key, kind="suspected", error="SIGSEGV", message="")]
        return [*(Advanced(key=task.key, frames=step) for step in range(9)), *succeed(task, attempt)]

    alone: list[int] = []

    def note(state: Run) -> None:
        alone.append(sum(bool(actor.stories) for actor in state.ray.alive))

    state = run(tasks(4), story, check=note, lanes=4, most=3)
    assert len(state.finished) == 4
    assert max(alone) == 3


def test_a_worker_goes_when_all_its_lanes_are_empty(run: Any) -> None:
    steps = {"v0": 30, "v1": 2, "v2": 10, "v3": 10}
    seen: list[tuple[int, int]] = []

    def story(task: VideoTask, attempt: int) -> list[Any]:
        return [*(Advanced(key=task.key, frames=step) for step in range(steps[task.key])), *succeed(task, attempt)]

    def note(state: Run) -> None:
        seen.append((len(state.ray.alive), sum(len(actor.stories) for actor in state.ray.alive)))

    state = run(tasks(4), story, check=note, lanes=2, most=2)
    assert len(state.finished) == 4
    alive = [number for number, _ in itertools.groupby(workers for workers, _ in seen)]
    assert alive == [0, 2, 1]
    assert (2, 3) in seen  # v1 has ended, and v0 keeps its worker
    assert (1, 1) in seen


def test_what_the_end_of_an_actor_costs_all_its_videos(run: Any) -> None:
    shortage = OutOfMemoryError("the node's memory was used up")

    def story(task: VideoTask, attempt: int) -> list[Any]:
        if task.key == "v1":
            return [Advanced(key=task.key, frames=7), shortage]
        return [*(Advanced(key=task.key, frames=step) for step in range(4)), *succeed(task, attempt)]

    state = run(tasks(3), story, lanes=3, most=1)
    assert sorted(state.finished) == ["v0", "v2"]
    assert [failure.kind for failure in state.given_up["v1"]] == ["suspected", "crash", "crash", "crash"]
    assert state.given_up["v1"][0].frame == 7


def test_nothing_more_is_given_to_a_process_in_which_something_broke(run: Any) -> None:
    def story(task: VideoTask, attempt: int) -> list[Any]:
        if task.key == "v0" and attempt == 1:
            return [Failed(key=task.key, kind="crash", error="RuntimeError", message="")]
        return [*(Advanced(key=task.key, frames=step) for step in range(6)), *succeed(task, attempt)]

    in_hand: list[set[str]] = []

    def note(state: Run) -> None:
        in_hand.extend(set(actor.stories) for actor in state.ray.actors)

    state = run(tasks(4), story, check=note, lanes=2, most=1)
    assert sorted(state.finished) == ["v0", "v1", "v2", "v3"]
    (actor,) = state.ray.actors
    assert actor.videos == ["v0", "v1", "v2", "v3", "v0"]
    assert {"v1", "v2"} not in in_hand  # v2 waits for the new process that comes after v1
    assert {"v2", "v3"} in in_hand


def test_what_was_fetched_ahead_is_used_once_and_removed(tmp_path: Path) -> None:
    bucket = f"memory://{uuid.uuid4().hex}/"
    with fsspec.open(f"{bucket}v0", "wb") as file:
        file.write(b"a video")
    present, missing = tasks(2, bucket)
    settings = WorkerSettings(
        out="run",
        factory="",
        tracker=Stub.describe(RunSettings()),
        decoder="auto",
        threads=1,
        extras={},
        scratch=str(tmp_path),
    )
    ahead = FetchedAhead(settings)
    ahead.begin(present)
    with ahead.taken(present) as path:
        assert path is not None
        assert Path(path).read_bytes() == b"a video"
    assert list(tmp_path.iterdir()) == []
    with ahead.taken(present) as path:
        assert path is None
    ahead.begin(missing)
    with ahead.taken(missing) as path:
        assert path is None  # the worker itself will find out and tell
    ahead.begin(present)
    with ahead.taken(missing) as path:
        assert path is None
    ahead.begin(missing)
    assert len(list(tmp_path.iterdir())) == 1
