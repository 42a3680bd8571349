"""Long videos that are interrupted go on from a checkpoint and end with the same bytes. Without Ray."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rts_batch.io.storage import files
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.checkpoints import Checkpoints, read_latest
from rts_batch.worker.lane import VideoWorker
from rts_batch.worker.messages import Event, Failed, Finished, WorkerSettings
from rts_batch.worker.tracker import find_factory
from tests.support.running import done, write_manifest
from tests.support.videos import make_video

FRAMES = 14
STUB = "tests.support.stub_tracker:Stub"
ALWAYS = 1e-9


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, the mask of its disc, and a manifest with a second target that appears later."""
    folder = tmp_path_factory.mktemp("videos")
    masks = make_video(folder / "video.mp4", FRAMES)
    cv2.imwrite(str(folder / "mask.png"), masks[0, 0].astype(np.uint8) * 255)
    first = {"video": "video.mp4", "object_id": 1, "mask": "mask.png", "frame": 0}
    later = {"video": "video.mp4", "object_id": 2, "mask": "mask.png", "frame": 7}
    write_manifest(folder / "one.jsonl", [first])
    write_manifest(folder / "two.jsonl", [first, later])
    corrected = {**first, "frame": 9}
    write_manifest(folder / "both.jsonl", [{**row, "direction": "both"} for row in (first, later, corrected)])
    return folder


def task_of(manifest: Path) -> VideoTask:
    (task,) = read_manifest(str(manifest)).tasks
    return task


def worker(
    out: Path, factory: str = STUB, *, interval: float | None = ALWAYS, frames: int | None = None
) -> VideoWorker:
    """A worker that is told to leave after so many frames."""
    weights = "rts-mini-untrained" if factory != STUB else None
    asked = itertools.count(1)
    settings = WorkerSettings(
        out=str(out),
        factory=factory,
        tracker=find_factory(factory).describe(RunSettings(weights=weights, device="cpu")),
        decoder="auto",
        threads=1,
        extras={},
        checkpoint_every=interval,
    )
    return VideoWorker(settings, leaving=lambda: frames is not None and next(asked) >= frames)


def last_of(events: Iterator[Event]) -> Event:
    *_, last = events
    return last


def masks_of(out: Path) -> bytes:
    (path,) = done(out)
    return path.read_bytes()


def report_of(out: Path) -> dict[str, object]:
    (path,) = (out / "videos").iterdir()
    content: dict[str, object] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize(
    ("factory", "manifest"),
    [(STUB, "one.jsonl"), (STUB, "two.jsonl"), (STUB, "both.jsonl"), (RunSettings.tracker, "both.jsonl")],
)
def test_a_worker_that_must_leave_has_its_video_go_on_elsewhere(
    videos: Path, tmp_path: Path, factory: str, manifest: str
) -> None:
    task = task_of(videos / manifest)
    assert isinstance(last_of(worker(tmp_path / "undisturbed", factory).run(task, 1)), Finished)
    out = tmp_path / "run"
    for attempt, frames in enumerate((6, 4), 1):  # the second worker leaves after four more, at frame 9
        last = last_of(worker(out, factory, frames=frames).run(task, attempt))
        assert isinstance(last, Failed)
        assert last.kind == "preempted"
        assert not done(out)
    last = last_of(worker(out, factory).run(task, 3))
    assert isinstance(last, Finished)
    backward = 8 if manifest == "both.jsonl" else 0  # from the second target's frame down
    assert (last.frames, last.has_checkpoints) == (FRAMES + backward, True)
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")
    assert report_of(out)["checkpoints"] == {"resumed_after": 9, "written": FRAMES - 10}


def test_a_killed_worker_loses_at_most_one_interval(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = itertools.count(1)
    monkeypatch.setattr(Checkpoints, "due", lambda self, leaving: next(seen) % 4 == 0)
    monkeypatch.setattr("rts_batch.worker.lane.PROGRESS_SECONDS", 0.0)
    task, out = task_of(videos / "two.jsonl"), tmp_path / "run"
    last_of(worker(tmp_path / "undisturbed").run(task, 1))
    seen = itertools.count(1)
    events = worker(out).run(task, 1)
    for event in events:
        if getattr(event, "frames", 0) == 11:
            break
    del events  # what a SIGKILL leaves: eleven frames tracked, checkpoints after frames 3 and 7
    assert isinstance(last_of(worker(out).run(task, 2)), Finished)
    assert report_of(out)["checkpoints"]["resumed_after"] == 7  # type: ignore[index]
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


def test_short_videos_write_none_and_nothing_is_looked_up(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "list_folders", lambda uri: pytest.fail("looked up"))
    out = tmp_path / "run"
    last = last_of(worker(out, interval=60.0).run(task_of(videos / "one.jsonl"), 1))
    assert isinstance(last, Finished)
    assert not last.has_checkpoints
    assert not (out / "checkpoints").exists()


def test_an_incomplete_or_damaged_checkpoint_is_passed_over(videos: Path, tmp_path: Path) -> None:
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(worker(tmp_path / "undisturbed").run(task, 1))
    last_of(worker(out, frames=6).run(task, 1))
    folder = Path(RunFolder(str(out)).checkpoints_of(task))
    (folder / "000000012-2-late").mkdir()  # a worker died before it wrote checkpoint.json
    (folder / "000000013-2-other").mkdir()
    (folder / "000000013-2-other" / "checkpoint.json").write_text("{")
    found = read_latest(str(folder))
    assert found is not None
    assert (found.frame, found.count, found.prompts) == (5, 6, {"came": {1: 1}, "begin": {1: 0}})
    assert len(list(found.rows())) == 6
    assert isinstance(last_of(worker(out).run(task, 2)), Finished)
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_of_a_checkpoint_goes_unnoticed(checkpoints: Path, data: st.DataObject) -> None:
    """It is passed over for an earlier one, or is what it was."""
    sound = read_latest(str(checkpoints))
    assert sound is not None
    path = data.draw(st.sampled_from(sorted(path for path in checkpoints.rglob("*") if path.is_file())))
    original = path.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        found = read_latest(str(checkpoints))
        if found is not None and found.frame == sound.frame:
            assert found == sound
            assert list(found.rows()) == list(sound.rows())
        elif found is not None:
            assert found.frame < sound.frame
            assert len(list(found.rows())) == found.frame + 1
    finally:
        path.write_bytes(original)


@pytest.fixture
def checkpoints(videos: Path, tmp_path: Path) -> Path:
    """A folder with the checkpoints after frames 0 to 3."""
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(worker(out, frames=4).run(task, 1))
    return Path(RunFolder(str(out)).checkpoints_of(task))


def test_a_state_that_cannot_be_put_back_means_to_begin_again(videos: Path, tmp_path: Path) -> None:
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(worker(tmp_path / "undisturbed").run(task, 1))
    last_of(worker(out, frames=3).run(task, 1))
    (state,) = Path(RunFolder(str(out)).checkpoints_of(task)).glob("*/state.bin")
    state.write_bytes(b"rubbish")
    assert isinstance(last_of(worker(out).run(task, 2)), Finished)
    assert report_of(out)["checkpoints"]["resumed_after"] is None  # type: ignore[index]
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


def test_without_an_interval_there_are_none(videos: Path, tmp_path: Path) -> None:
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(worker(out, interval=None, frames=6).run(task, 1))
    assert not (out / "checkpoints").exists()
