"""The engine among threads: one of them uses the device, each target has its own slot, and none waits long."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from rts_batch.masks import Marking
from rts_batch.model.rts import RTS
from rts_batch.tracking.gpu.engine import Engine, Step
from rts_batch.tracking.gpu.graphs import Stage
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker
from rts_batch.tracking.scene import Scene
from tests.support.parity_data import synthetic_frame
from tests.support.trackers import SMALL, as_on_a_gpu

FRAMES = [synthetic_frame(96, 128, index) for index in range(10)]


@pytest.fixture(scope="module")
def network() -> RTS:
    return as_on_a_gpu()


def moved(index: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    frame, mask = FRAMES[index]
    return np.roll(frame, shift, axis=1), np.roll(mask, shift, axis=1)


def started(network: RTS, batch: BatchedNetwork | None, shift: int) -> GpuTracker:
    tracker = GpuTracker(network, SMALL, network=batch)
    frame, mask = moved(0, shift)
    tracker.start(frame, mask=mask)
    return tracker


# ---- with networks -------------------------------------------------------------------------------------------------


@pytest.mark.networks
def test_only_the_engines_thread_does_what_is_done_on_the_device(network: RTS, monkeypatch) -> None:
    """Captures among it; with several targets also the merging, and whatever a checkpoint takes."""
    threads: set[str] = set()

    def noting(function: Any) -> Any:
        def noted(*args: Any, **options: Any) -> Any:
            threads.add(threading.current_thread().name)
            return function(*args, **options)

        return noted

    monkeypatch.setattr(Stage, "__call__", noting(Stage.__call__))
    monkeypatch.setattr(BatchedNetwork, "run", noting(BatchedNetwork.run))
    monkeypatch.setattr(torch.Tensor, "cpu", noting(torch.Tensor.cpu))
    monkeypatch.setattr(torch.Tensor, "to", noting(torch.Tensor.to))
    for name in ("soft_aggregation", "measure_labels"):
        function = getattr(__import__("rts_batch.tracking.scene", fromlist=[name]), name)
        monkeypatch.setattr(f"rts_batch.tracking.scene.{name}", noting(function))
    batch = BatchedNetwork(network, SMALL, places=2)

    def work() -> None:
        scene = Scene(network, SMALL, single=False, tracker=lambda *a, **kw: GpuTracker(*a, network=batch, **kw))
        mask = FRAMES[0][1]
        scene.step(FRAMES[0][0], {1: Marking(mask=mask), 2: Marking(mask=np.roll(mask, 30, axis=1))})
        for frame, _ in FRAMES[1:4]:
            scene.step(frame)
        scene.restore(scene.snapshot())
        scene.step(FRAMES[4][0], {1: Marking(mask=mask)})
        scene.annotate(FRAMES[4][0], {1: Marking(mask=mask)})

    lanes = [threading.Thread(target=work, name="lane") for _ in range(2)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    assert threads == {"engine"}


@pytest.mark.networks
def test_a_slot_is_its_targets_until_that_is_gone_and_then_the_next_ones(network: RTS) -> None:
    batch = BatchedNetwork(network, SMALL, places=1)
    first, second, alone = (started(network, lanes, shift) for lanes, shift in ((batch, 0), (batch, 40), (None, 0)))
    for tracker, shift in ((first, 0), (second, 40), (alone, 0)):
        tracker.step(moved(1, shift)[0])
    slots = (first._slot, second._slot)
    assert slots[0] is not slots[1], "more targets than places have slots of their own"
    assert np.array_equal(first.step(moved(2, 0)[0]).mask, alone.step(moved(2, 0)[0]).mask)
    del first
    gc.collect()
    third = started(network, batch, 0)
    other = started(network, None, 0)
    for index in range(1, 4):
        assert np.array_equal(third.step(moved(index, 0)[0]).mask, other.step(moved(index, 0)[0]).mask)
    assert third._slot is slots[0]


@pytest.mark.networks
def test_a_slot_is_given_back_when_its_scene_is_closed(network: RTS) -> None:
    """Not when the garbage is collected: whoever refers to the scene, a traceback say, would hold a slot."""
    batch = BatchedNetwork(network, SMALL, places=1)

    def opened(shift: int) -> Scene:
        scene = Scene(network, SMALL, single=True, tracker=lambda *a, **kw: GpuTracker(*a, network=batch, **kw))
        frame, mask = moved(0, shift)
        scene.step(frame, {1: Marking(mask=mask)})
        return scene

    held, slots, results, expected = [], [], [], []
    for shift in (0, 40, 70):
        alone = started(network, None, shift)
        expected.append([alone.step(moved(index, shift)[0]).mask for index in range(1, 4)])
        with opened(shift) as scene:
            tracker = scene.trackers[1]
            results.append([scene.step(moved(index, shift)[0]) for index in range(1, 4)])
            slots.append(tracker.on_device(lambda tracker=tracker: tracker._slot))  # type: ignore[misc]
            held.append((scene, tracker))
    assert slots[0] is not None
    assert all(slot is slots[0] for slot in slots)
    for found, true in zip(results, expected, strict=True):  # read after others have had the slot
        assert all(np.array_equal(late[1].mask, mask) for late, mask in zip(found, true, strict=True))
    for scene, tracker in held:
        scene.close()
        tracker.close()
    assert batch.engine.call(lambda: len(batch._free)) == 1, "and once, however often it is closed"


@pytest.mark.networks
def test_a_tracker_that_failed_gives_its_slot_back_too(network: RTS, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchedNetwork(network, SMALL, places=1)
    tracker = started(network, batch, 0)
    tracker.step(moved(1, 0)[0])
    slot = tracker._slot
    with monkeypatch.context() as broken:
        broken.setattr(batch, "run", lambda slots: 1 / 0)
        late = tracker.step_late(moved(2, 0)[0])
        tracker.close()
    with pytest.raises(ZeroDivisionError):
        late.read()
    other = started(network, batch, 40)
    other.step(moved(1, 40)[0])
    assert other._slot is slot


@pytest.mark.networks
def test_a_scene_that_is_put_back_has_no_more_slots_than_targets(network: RTS) -> None:
    batch = BatchedNetwork(network, SMALL, places=2)
    scene = Scene(network, SMALL, single=False, tracker=lambda *a, **kw: GpuTracker(*a, network=batch, **kw))
    frame, mask = moved(0, 0)
    scene.step(frame, {1: Marking(mask=mask), 2: Marking(mask=np.roll(mask, 40, axis=1))})
    scene.step(moved(1, 0)[0])
    earlier = {tracker._slot for tracker in scene.trackers.values()}  # type: ignore[attr-defined]
    scene.restore(scene.snapshot())
    scene.step(moved(2, 0)[0])
    assert {tracker._slot for tracker in scene.trackers.values()} == earlier  # type: ignore[attr-defined]


@pytest.mark.networks
def test_a_snapshot_comes_after_the_frames_that_were_brought(network: RTS) -> None:
    ours, theirs = started(network, None, 0), started(network, None, 0)
    for index in range(1, 4):
        ours.step_late(moved(index, 0)[0])
        theirs.step(moved(index, 0)[0])
    ours, theirs = ours.snapshot(), theirs.snapshot()
    assert ours["state"]["frame_number"] == theirs["state"]["frame_number"] == 4
    assert torch.equal(ours["segmentation"]["filters"], theirs["segmentation"]["filters"])


@pytest.mark.networks
def test_a_frame_that_is_lent_may_be_written_to_at_once(network: RTS) -> None:
    ours, theirs = started(network, None, 0), started(network, None, 0)
    lent = moved(1, 0)[0].copy()
    busy = threading.Event()
    ours.network.engine.post(lambda: busy.wait(60) and None)
    coming = ours.step_late(lent)
    lent[:] = 0
    busy.set()
    assert np.array_equal(coming.read().mask, theirs.step(moved(1, 0)[0]).mask)


# ---- without -------------------------------------------------------------------------------------------------------


class Noted:
    """A network whose device is done when it is told, and a target's log."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.engine = Engine(torch.device("cpu"))
        self.runs: list[list[str]] = []
        self.done: list[bool] = []
        self.targets: dict[str, Target] = {}

    def run(self, names: Any) -> Any:
        self.runs.append(list(names))
        self.done.append(False)
        place = len(self.done) - 1
        return lambda: self.done[place]

    def bring(self, name: str) -> Step:
        target = self.targets.setdefault(name, Target(self, name))
        step = Step(target, torch.zeros(1))
        self.engine.post(step)
        return step

    def settle(self, runs: int) -> None:
        until = time.monotonic() + 60
        while len(self.runs) < runs and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(self.runs) == runs, self.runs


class Target:
    def __init__(self, network: Noted, name: str) -> None:
        self.network, self.name = network, name

    def prepare(self, frame: torch.Tensor, previous: torch.Tensor | None) -> str:
        if self.name == "bad":
            raise ValueError("bad")
        return self.name

    def finish(self) -> Any:
        return self.name


def test_a_partial_batch_waits_for_the_device_and_a_full_one_is_queued() -> None:
    network = Noted(places=2)
    network.bring("a")
    network.settle(1)  # nothing to do, so it runs with who is there
    network.bring("b")
    network.settle(1)  # busy: another may come
    network.bring("c")
    network.settle(2)  # full: behind the first
    for name in "abd":
        network.bring(name)
    network.settle(2)  # two are queued
    network.done[0] = True
    network.settle(3)
    network.done[1] = network.done[2] = True
    network.settle(4)
    assert network.runs == [["a"], ["b", "c"], ["a", "b"], ["d"]]


def test_two_frames_of_one_target_are_two_batches_in_their_order() -> None:
    network = Noted(places=4)
    held = threading.Event()
    network.engine.post(lambda: held.wait(60) and None)
    steps = [network.bring(name) for name in ("a", "a", "b", "a")]
    held.set()
    network.settle(1)
    network.done[0] = True
    network.settle(2)
    network.done[1] = True
    network.settle(3)
    assert network.runs == [["a", "b"], ["a"], ["a"]]
    assert [step.reading.result(60) for step in steps] == ["a", "a", "b", "a"]


def test_a_target_that_fails_fails_alone() -> None:
    network = Noted(places=3)
    held = threading.Event()
    network.engine.post(lambda: held.wait(60) and None)
    good, bad, other = (network.bring(name) for name in ("a", "bad", "b"))
    held.set()
    assert (good.reading.result(60), other.reading.result(60)) == ("a", "b")
    with pytest.raises(ValueError, match="bad"):
        bad.reading.result(60)


def test_a_call_raises_where_it_was_made_and_the_engine_goes_on() -> None:
    engine = Engine(torch.device("cpu"))
    with pytest.raises(KeyError, match="lost"):
        engine.call(lambda: {}["lost"])
    assert engine.call(lambda: engine.call(lambda: threading.current_thread().name)) == "engine"


def test_an_engines_thread_ends_with_it() -> None:
    engine = Engine(torch.device("cpu"))
    thread = engine._thread
    engine.call(lambda: None)
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_an_engine_that_is_told_to_end_while_a_frame_waits_ends_after_it() -> None:
    network = Noted(places=2)
    network.bring("a")
    network.settle(1)
    network.bring("b")
    network.settle(1)
    network.engine._messages.put(None)
    time.sleep(0.02)
    network.done[0] = True
    network.engine._thread.join(60)
    assert not network.engine._thread.is_alive()
    assert network.runs == [["a"], ["b"]]


@pytest.mark.long
def test_an_engines_thread_has_ended_when_the_process_does() -> None:
    """One that ends while the interpreter is taken down can crash it."""
    code = (
        "import atexit; atexit.register(lambda: print(engine._thread.is_alive())); import torch;"
        "from rts_batch.tracking.gpu.engine import Engine; engine = Engine(torch.device('cpu')); engine.call(int)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---- rounds --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_round_serves_most_lanes_and_none_waits_long() -> None:
    """A round is as many runs as have places for all lanes. Others on the machine may spoil a try."""
    tried = []
    for _ in range(6):
        command = [sys.executable, "-m", "benchmarks.rounds", "--seconds", "1", "--only", "16 lanes, all present"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        served, wait = (re.search(rf"{name} ([\d.]+)", shown) for name in ("lanes a round", "longest wait in runs"))
        assert served
        assert wait
        tried.append((float(served[1]), float(wait[1])))
        if tried[-1][0] >= 12 and tried[-1][1] <= 4:
            return
    raise AssertionError(tried)
