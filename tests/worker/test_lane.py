"""Several videos in one process at the same time: none notices the others, unless the process ends."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import psutil
import pytest

from rts_batch.actors.prepare import Prepared, look
from rts_batch.manifest import Manifest, VideoTask, read_manifest
from rts_batch.runs.folder import Plan
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Advanced, Event, Failed, Finished, Job, WorkerSettings
from rts_batch.worker.process import InLane, WorkerProcess
from rts_batch.worker.tracker import find_factory
from tests.support.running import STUB, finish, run, start, wait_until, write_manifest
from tests.support.stub_tracker import StubScene, StubTracker
from tests.support.videos import make_video
from tests.support.workers import decoding

LANES = 3
CLIPS = {"a": (5, (160, 120)), "b": (12, (96, 128)), "c": (8, (200, 100)), "d": (16, (64, 64)), "e": (10, (160, 90))}
CLIPS |= {"f": (14, (128, 96))}
BOX = [20, 20, 20, 20]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of different lengths and sizes, and the mask of the disc in each."""
    folder = tmp_path_factory.mktemp("clips")
    for name, (frames, size) in CLIPS.items():
        masks = make_video(folder / f"{name}.mp4", frames, size=size)
        cv2.imwrite(str(folder / f"{name}.png"), masks[0, 0].astype(np.uint8) * 255)
    return folder


def rows_of(clips: Path, names: str = "abcdef", **knobs: object) -> list[dict[str, object]]:
    return [
        {"video": str(clips / f"{name}.mp4"), "video_id": name, "box": BOX, "frames": CLIPS[name][0], **knobs}
        for name in names
    ]


def manifest_of(folder: Path, rows: Sequence[dict[str, object]]) -> Manifest:
    columns = dict.fromkeys(key for row in rows for key in row)
    return read_manifest(str(write_manifest(folder / "manifest.jsonl", [{**columns, **row} for row in rows])))


def worker_settings(out: Path, factory: str = STUB[1], **options: Any) -> WorkerSettings:
    # Its learners may be less thorough here and its crops as small as the videos, which takes most of the time.
    little = {"init_iterations": 3, "localisation_init_iterations": 2, "crop_size": [96, 160]}
    hasty = RunSettings(tracker_options=little, device="cpu")
    return WorkerSettings(
        out=str(out),
        factory=factory,
        tracker=find_factory(factory).describe(hasty),
        decoder="auto",
        threads=1,
        lanes=LANES,
        **{"extras": {}, **options},
    )


def one_by_one(tasks: Sequence[VideoTask], settings: WorkerSettings, tracker: Any = None) -> dict[str, bytes]:
    """The masks of a worker that has never more than one video in hand."""
    worker = Lane(settings, tracker=tracker)
    for task in tasks:
        *_, last = worker.run(Job(task=task, attempt=1))
        assert isinstance(last, Finished), last
    return masks_of(Path(settings.out), tasks)


def expected(tasks: Sequence[VideoTask], settings: WorkerSettings) -> dict[str, bytes]:
    """The masks that the stub makes one by one, without its sleep."""
    with mock.patch("tests.support.stub_tracker.time.sleep"):
        return one_by_one(tasks, settings)


def masks_of(out: Path, tasks: Sequence[VideoTask]) -> dict[str, bytes]:
    """Of the videos that are done."""
    paths = {task.video_id: out / "masks" / f"{task.key}.parquet" for task in tasks}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def side_by_side(process: WorkerProcess, tasks: Sequence[VideoTask], attempt: int = 1) -> Iterator[Event]:
    """All events of these videos; whenever one ends, the next begins."""
    waiting, in_hand = list(tasks), 0
    while waiting or in_hand:
        while waiting and in_hand < LANES:
            process.begin(Job(task=waiting.pop(0), attempt=attempt))
            in_hand += 1
        for event in process.events(0.1):
            in_hand -= isinstance(event, Finished | Failed)
            yield event


def wait_until_all_advance(events: Iterator[Event]) -> None:
    advanced: set[str] = set()
    while len(advanced) < LANES:
        event = next(events)
        advanced |= {event.key} if isinstance(event, Advanced) else set()


def ends_of(events: Iterator[Event]) -> dict[str, Event]:
    return {event.key.rpartition("-")[0]: event for event in events if isinstance(event, Finished | Failed)}


def kinds_of(ends: dict[str, Event]) -> dict[str, str]:
    return {name: end.kind if isinstance(end, Failed) else "finished" for name, end in ends.items()}


@pytest.fixture(scope="module")
def shared_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One process for all tests; whoever ends it has the next one start another."""
    held: dict[str, Any] = {"out": tmp_path_factory.mktemp("run"), "process": None}
    yield held
    if held["process"] is not None:
        held["process"].close()


@pytest.fixture
def process(shared_process: dict[str, Any]) -> WorkerProcess:
    if shared_process["process"] is None or not shared_process["process"].alive or shared_process["process"].spoiled:
        settings = worker_settings(shared_process["out"], checkpoint_every=0.2)
        shared_process["process"] = WorkerProcess(settings, stall_seconds=12)
    found: WorkerProcess = shared_process["process"]
    return found


@dataclass(frozen=True)
class Steps:
    """What the stub logged: who had which video in hand, and when."""

    lines: list[list[str]]

    @classmethod
    def read(cls, log: Path) -> Steps:
        return cls([line.split() for line in log.read_text().splitlines()] if log.exists() else [])

    @property
    def videos(self) -> set[str]:
        return {video for *_, video in self.lines}

    def most_at_once(self) -> int:
        spans: dict[tuple[str, str], list[float]] = {}
        for when, process, _, video in self.lines:
            spans.setdefault((process, video), []).append(float(when))
        return max(sum(min(span) <= begin <= max(span) for span in spans.values()) for begin, *_ in spans.values())


@pytest.mark.long
def test_videos_side_by_side_have_the_masks_of_videos_one_by_one(
    process: WorkerProcess, shared_process: dict[str, Any], clips: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    manifest = manifest_of(tmp_path, rows_of(clips, sleep=0.08, log=str(log)))
    alone = expected(manifest.tasks, worker_settings(tmp_path / "alone"))
    log.unlink()
    ends = ends_of(side_by_side(process, manifest.tasks))
    assert set(kinds_of(ends).values()) == {"finished"}
    assert masks_of(shared_process["out"], manifest.tasks) == alone
    assert len(alone) == 6
    steps = Steps.read(log)
    assert steps.most_at_once() == LANES
    assert len({thread for _, _, thread, _ in steps.lines}) == LANES


@pytest.mark.long
def test_the_real_tracker_does_not_mix_videos_up(clips: Path, tmp_path: Path) -> None:
    rows = [
        {
            "video": str(clips / f"{name}.mp4"),
            "video_id": name,
            "mask": str(clips / f"{name}.png"),
            "end": 2 + place // 3,
        }
        for place, name in enumerate(CLIPS)
    ]
    tasks = manifest_of(tmp_path, rows).tasks
    alone = worker_settings(tmp_path / "alone", RunSettings.tracker)
    tracker = find_factory(alone.factory).load(alone.tracker, threads=1, lanes=LANES)
    masks = one_by_one(tasks, alone, tracker)
    together = dataclasses.replace(alone, out=str(tmp_path / "together"))
    with ThreadPoolExecutor(LANES) as lanes:
        parts = [tasks[lane::LANES] for lane in range(LANES)]
        list(lanes.map(lambda part: one_by_one(part, together, tracker), parts))
    assert masks_of(tmp_path / "together", tasks) == masks
    assert len(masks) == 6


@pytest.mark.parametrize("knobs", [{}, {"raise_at": 2}], ids=["finished", "failed"])
def test_a_video_leaves_no_scene_behind(clips: Path, tmp_path: Path, knobs: dict[str, object]) -> None:
    """A tracker that serves several lanes may go by the scenes that live."""
    settings = worker_settings(tmp_path / "run", checkpoint_every=1e-9)
    scenes: list[weakref.ref[Any]] = []

    class Watched(StubTracker):
        def open_scene(self, task: VideoTask, state: bytes | None = None) -> StubScene:
            scene = super().open_scene(task, state)
            scenes.append(weakref.ref(scene))
            return scene

    (task,) = manifest_of(tmp_path, rows_of(clips, "a", **knobs)).tasks
    gc.disable()
    try:
        for event in Lane(settings, tracker=Watched(), decoding=decoding()).run(Job(task=task, attempt=1)):
            last = event
    finally:
        gc.enable()
    assert isinstance(last, Failed if knobs else Finished)
    assert [scene() for scene in scenes] == [None]


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("knobs", [{}, {"raise_at": 1}], ids=["finished", "failed"])
def test_a_scene_is_closed_when_its_pass_ends(
    clips: Path, tmp_path: Path, direction: str, knobs: dict[str, object]
) -> None:
    """Whoever may still refer to it: others are to have its room on the device, and never two at once of one video."""
    settings = worker_settings(tmp_path / "run")
    opened: list[StubScene] = []
    most = 0

    class Watched(StubTracker):
        def open_scene(self, task: VideoTask, state: bytes | None = None) -> StubScene:
            nonlocal most
            opened.append(super().open_scene(task, state))
            most = max(most, sum(not scene.closed for scene in opened))
            return opened[-1]

    (task,) = manifest_of(tmp_path, rows_of(clips, "a", direction=direction, frame=3, **knobs)).tasks
    *_, last = Lane(settings, tracker=Watched(), decoding=decoding()).run(Job(task=task, attempt=1))
    assert isinstance(last, Failed if knobs else Finished), last
    assert len(opened) == (2 if direction == "both" and not knobs else 1)
    assert [scene.closed for scene in opened] == [True] * len(opened)
    assert most == 1


@pytest.mark.long
@pytest.mark.parametrize(("knob", "kind"), [("segfault_at", "suspected"), ("kill_at", "killed")])
def test_the_end_of_the_process_is_the_end_of_all_in_hand(
    process: WorkerProcess, clips: Path, tmp_path: Path, knob: str, kind: str
) -> None:
    """Of a crash each may be guilty, and only a kill from outside counts against nobody."""
    rows = [*rows_of(clips, "bd", sleep=0.5), *rows_of(clips, "f", sleep=0.1, **{knob: 6})]
    ends = ends_of(side_by_side(process, manifest_of(tmp_path, rows).tasks))
    assert kinds_of(ends) == {"b": kind, "d": kind, "f": kind}
    assert all("3 videos in hand" in end.message for end in ends.values() if isinstance(end, Failed))
    assert not process.alive


@pytest.mark.long
def test_a_lanes_own_exception_is_its_own_and_what_breaks_after_it_only_suspected(
    process: WorkerProcess, clips: Path, tmp_path: Path
) -> None:
    rows = [
        *rows_of(clips, "b", sleep=0.1),
        *rows_of(clips, "d", sleep=0.1, raise_at=3),
        *rows_of(clips, "f", sleep=0.25, raise_at=8),
    ]
    ends = ends_of(side_by_side(process, manifest_of(tmp_path, rows).tasks))
    assert kinds_of(ends) == {"b": "finished", "d": "crash", "f": "suspected"}
    assert process.spoiled
    assert process.alive


@pytest.mark.long
def test_a_lack_of_memory_that_lanes_share_is_only_suspected(
    process: WorkerProcess, clips: Path, tmp_path: Path
) -> None:
    rows = [*rows_of(clips, "b", sleep=2), *rows_of(clips, "f", allocate_at=2)]
    events = side_by_side(process, manifest_of(tmp_path, rows).tasks)
    last = next(event for event in events if isinstance(event, Failed | Finished))
    assert isinstance(last, Failed)
    assert (last.key[0], last.kind, last.error) == ("f", "suspected", "MemoryError")
    process.close()


@pytest.mark.slow
def test_a_lane_that_hangs_costs_its_neighbours_nothing(clips: Path, tmp_path: Path) -> None:
    rows = [*rows_of(clips, "df", sleep=0.8), *rows_of(clips, "b", hang_at=2)]
    process = WorkerProcess(worker_settings(tmp_path / "run"), stall_seconds=8)
    ends = ends_of(side_by_side(process, manifest_of(tmp_path, rows).tasks))
    assert kinds_of(ends) == {"d": "displaced", "f": "displaced", "b": "crash"}
    assert not process.alive


@pytest.mark.parametrize(
    ("in_hand", "expected"),
    [
        (["track 9"], []),
        (["track 11"], ["crash"]),
        (["track 11", "track 2", "fetch 9", "write 30"], ["crash", "displaced", "displaced", "displaced"]),
        (["track 11", "track 6", "track 4"], ["suspected", "suspected", "displaced"]),
        (["fetch 61", "track 2"], ["transient", "displaced"]),
        (["write 61", "track 6"], ["transient", "displaced"]),
        (["write 61", "track 11"], ["transient", "crash"]),
    ],
)
def test_who_is_to_blame_when_a_lane_hangs(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_hand: list[str], expected: list[str]
) -> None:
    """Each video by its phase and how long it has been silent, in seconds, where ten are too long to track a frame."""
    process = WorkerProcess.__new__(WorkerProcess)
    process._stall_seconds = 10
    process._in_hand = {}
    monkeypatch.setattr(process, "close", lambda: None)
    tasks = manifest_of(tmp_path, rows_of(clips)).tasks
    for task, (phase, silence) in zip(tasks, (video.split() for video in in_hand), strict=False):
        video = process._in_hand[task.key] = InLane(task, heard=time.monotonic() - float(silence))
        video.phase = phase  # type: ignore[assignment]
    failures = list(process._hung())
    assert [failure.kind for failure in failures] == expected
    for failure, task in zip(failures, tasks, strict=False):
        assert failure.key == task.key
        assert failure.kind != "displaced" or "another video in it made no progress: a" in failure.message


@pytest.mark.slow
def test_lanes_that_all_fall_silent_are_all_suspected(process: WorkerProcess, clips: Path, tmp_path: Path) -> None:
    """As where one has stopped the whole process, and its neighbour is the first whose time is up."""
    tasks = manifest_of(tmp_path, rows_of(clips, "bdf", sleep=0.5)).tasks
    events = side_by_side(process, tasks)
    wait_until_all_advance(events)
    os.kill(int(process.name.rpartition(":")[2]), signal.SIGSTOP)
    assert set(kinds_of(ends_of(events)).values()) == {"suspected"}
    assert not process.alive


@pytest.mark.long
def test_every_lane_leaves_with_a_checkpoint_and_goes_on_elsewhere(
    process: WorkerProcess, shared_process: dict[str, Any], clips: Path, tmp_path: Path
) -> None:
    tasks = manifest_of(tmp_path, rows_of(clips, "bdf", sleep=0.3)).tasks
    alone = expected(tasks, worker_settings(tmp_path / "alone"))
    events = side_by_side(process, tasks)
    wait_until_all_advance(events)
    process.leave()
    assert set(kinds_of(ends_of(events)).values()) == {"preempted"}
    wait_until(lambda: not process.alive)
    another = WorkerProcess(worker_settings(shared_process["out"], checkpoint_every=0.2), stall_seconds=12)
    try:
        ends = ends_of(side_by_side(another, tasks, attempt=2))
    finally:
        another.close()
    assert set(kinds_of(ends).values()) == {"finished"}, ends
    assert masks_of(shared_process["out"], tasks) == alone
    for task in tasks:
        report = json.loads((shared_process["out"] / "videos" / f"{task.key}.json").read_text())
        assert report["checkpoints"]["resumed_after"] >= 1


def test_a_run_keeps_its_lanes(clips: Path, tmp_path: Path) -> None:
    manifest, out = manifest_of(tmp_path, rows_of(clips)), str(tmp_path / "run")

    def look_with(lanes: int | None) -> tuple[Prepared, Plan]:
        return look(str(tmp_path / "manifest.jsonl"), out, RunSettings(tracker=STUB[1], device="cpu", lanes=lanes))

    prepared, _ = look_with(4)
    assert (prepared.lanes, prepared.cpus) == (4, 2)
    prepared.folder.prepare(manifest, prepared.record)
    for lanes in (4, None):
        prepared, plan = look_with(lanes)
        assert (prepared.lanes, plan.warnings) == (4, ())
    prepared, plan = look_with(2)
    assert prepared.lanes == 2
    assert "lanes: the run has 4, this command 2" in plan.warnings[0]


# With Ray


@pytest.mark.ray
@pytest.mark.slow
def test_a_poison_video_among_lanes_is_found_and_its_neighbours_complete(clips: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    knobs = {"sleep": 0.1, "log": str(log), "segfault_at": None}
    poison = {**rows_of(clips, "b")[0], **knobs, "video_id": "poison", "frames": 99, "sleep": 0.0, "segfault_at": 6}
    manifest = manifest_of(tmp_path, [*rows_of(clips, **knobs), poison])
    good = [task for task in manifest.tasks if task.video_id != "poison"]
    alone = expected(good, worker_settings(tmp_path / "alone", extras=manifest.extras))
    log.unlink()
    out = tmp_path / "run"
    options = ("--lanes", LANES, "--workers", 1, "--threads-per-worker", 1, "--json")
    outcome = run("submit", tmp_path / "manifest.jsonl", "--out", out, *options, *STUB)
    assert outcome.code == 3, outcome.err
    assert (outcome.summary["done"], outcome.summary["failed"]) == (6, 1)
    (failed,) = (json.loads(path.read_text()) for path in (out / "failed").iterdir())
    assert failed["video_id"] == "poison"
    assert [attempt["kind"] for attempt in failed["attempts"]] == ["suspected", "crash", "crash", "crash"]
    assert "SIGSEGV" in failed["attempts"][-1]["message"]
    reports = [json.loads(path.read_text()) for path in (out / "videos").iterdir()]
    assert sorted(report["attempt"] for report in reports) == [1, 1, 1, 1, 2, 2]
    assert masks_of(out, good) == alone
    assert Steps.read(log).most_at_once() == LANES
    record = json.loads((out / "run.json").read_text())
    assert (record["environment"]["lanes"], record["settings"]["lanes"]) == (LANES, LANES)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_with_lanes_is_interrupted_killed_and_loses_nothing(clips: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "run"
    manifest = manifest_of(tmp_path, rows_of(clips, sleep=0.25, log=str(log)))
    alone = expected(manifest.tasks, worker_settings(tmp_path / "alone", extras=manifest.extras))
    log.unlink()
    options = ("--lanes", LANES, "--workers", 1, "--threads-per-worker", 1, "--json")
    process = start("submit", tmp_path / "manifest.jsonl", "--out", out, *options, *STUB)
    wait_until(lambda: len(Steps.read(log).videos) == LANES, process=process)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C: what is in hand is finished, and nothing else is begun
    outcome = finish(process)
    assert outcome.code == 130, outcome.err
    assert set(masks_of(out, manifest.tasks)) == Steps.read(log).videos == {"b", "d", "f"}

    process = start("resume", out, "--json")
    wait_until(lambda: len(Steps.read(log).videos) == 6, process=process)
    worker_of(process).kill()
    outcome = finish(process)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["done"] == 6
    assert masks_of(out, manifest.tasks) == alone
    attempts = {path.stem[0]: json.loads(path.read_text())["attempt"] for path in (out / "videos").iterdir()}
    assert attempts == dict.fromkeys("bdf", 1) | dict.fromkeys("ace", 2)


def worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    (found,) = (
        child for child in psutil.Process(process.pid).children(recursive=True) if "rts_batch.worker" in child.cmdline()
    )
    return found
