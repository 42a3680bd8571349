"""Long videos that are interrupted go on from a checkpoint and end with the same bytes. Without Ray."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rts_batch.io.results.schema import Row
from rts_batch.io.storage import files
from rts_batch.io.video.frames import Damage
from rts_batch.manifest import VideoTask, read_manifest
from rts_batch.masks import encode_rle
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.checkpoints import Checkpoints, carry_over, decided_by, read_latest
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Event, Failed, Finished, Job, Phase, WorkerSettings
from rts_batch.worker.tracker import find_factory
from tests.support.running import done, write_manifest
from tests.support.videos import Disc, make_video
from tests.support.workers import decoding

FRAMES = 14
SIZE = (120, 160)
"""Height and width of the video."""
STUB = "tests.support.stub_tracker:Stub"
ALWAYS = 1e-9


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, the mask of its disc, and a manifest with a second target that appears later."""
    folder = tmp_path_factory.mktemp("videos")
    masks = make_video(folder / "video.mp4", FRAMES)
    for name in ("mask.png", "later.png"):
        cv2.imwrite(str(folder / name), masks[0, 0].astype(np.uint8) * 255)
    first = {"video": "video.mp4", "object_id": 1, "mask": "mask.png", "frame": 0}
    later = {"video": "video.mp4", "object_id": 2, "mask": "later.png", "frame": 7}
    write_manifest(folder / "one.jsonl", [first])
    write_manifest(folder / "two.jsonl", [first, later])
    corrected = {**first, "frame": 9}
    for direction in ("both", "bidirectional"):
        rows = [{**row, "direction": direction} for row in (first, later, corrected)]
        write_manifest(folder / f"{direction}.jsonl", rows)
    empty = {"video": "video.mp4", "object_id": 1, "box": [159.6, 10, 1.2, 20], "frame": 4}
    write_manifest(folder / "empty.jsonl", [{**row, "direction": "bidirectional"} for row in (first, empty)])
    return folder


def task_of(manifest: Path) -> VideoTask:
    (task,) = read_manifest(str(manifest)).tasks
    return task


def lane(
    out: Path,
    factory: str = STUB,
    *,
    interval: float | None = ALWAYS,
    frames: int | None = None,
    keep: bool = False,
) -> Lane:
    """A lane that is told to leave after so many frames."""
    weights = "rts-mini-untrained" if factory != STUB else None
    hasty = RunSettings(weights=weights, device="cpu", tracker_options={"crop_size": [96, 160], "init_iterations": 3})
    asked = itertools.count(1)
    settings = WorkerSettings(
        out=str(out),
        factory=factory,
        tracker=find_factory(factory).describe(hasty),
        decoder="auto",
        threads=1,
        extras={},
        checkpoint_every=interval,
        keep_checkpoints=keep,
    )
    return Lane(settings, leaving=lambda: frames is not None and next(asked) >= frames, decoding=decoding())


def last_of(events: Iterator[Event]) -> Event:
    *_, last = events
    return last


def masks_of(out: Path) -> bytes:
    (path,) = done(out)
    return path.read_bytes()


def report_of(out: Path) -> dict[str, Any]:
    (path,) = (out / "videos").iterdir()
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def change_content(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Has a checkpoint say something else of its video."""
    written = json.loads(path.read_text())
    content = json.loads(written["content"])
    change(content)
    written["content"] = json.dumps(content)
    written["sha256"] = hashlib.sha256(written["content"].encode()).hexdigest()
    path.write_text(json.dumps(written))


@pytest.mark.parametrize(
    ("factory", "manifest"),
    [
        (STUB, "one.jsonl"),
        (STUB, "two.jsonl"),
        (STUB, "both.jsonl"),
        (RunSettings.tracker, "both.jsonl"),
        (STUB, "bidirectional.jsonl"),
        (STUB, "empty.jsonl"),
        (RunSettings.tracker, "bidirectional.jsonl"),
    ],
)
@pytest.mark.long
def test_a_worker_that_must_leave_has_its_video_go_on_elsewhere(
    videos: Path, tmp_path: Path, factory: str, manifest: str
) -> None:
    task = task_of(videos / manifest)
    assert isinstance(last_of(lane(tmp_path / "undisturbed", factory).run(Job(task=task, attempt=1))), Finished)
    out = tmp_path / "run"
    for attempt, frames in enumerate((6, 4), 1):  # the second worker leaves after four more, at frame 9
        last = last_of(lane(out, factory, frames=frames).run(Job(task=task, attempt=attempt)))
        assert isinstance(last, Failed)
        assert last.kind == "preempted"
        assert not done(out)
    last = last_of(lane(out, factory).run(Job(task=task, attempt=3)))
    assert isinstance(last, Finished)
    # From the second target's frame down, or from the last prompt's.
    backward = {"both.jsonl": 8, "bidirectional.jsonl": 10, "empty.jsonl": 5}.get(manifest, 0)
    assert (last.frames, last.has_checkpoints) == (FRAMES + backward, True)
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")
    assert report_of(out)["checkpoints"] == {"resumed_after": 9, "written": FRAMES - 10}


def test_a_store_that_says_nothing_does_not_speak_against_a_video(videos: Path, tmp_path: Path) -> None:
    """Silence while a checkpoint is written, or a mask read, was that of a video that hangs."""
    events = list(lane(tmp_path / "run").run(Job(task=task_of(videos / "one.jsonl"), attempt=1)))
    phases = [event.phase for event in events if isinstance(event, Phase)]
    assert phases == ["fetch", *["track", "write"] * (FRAMES + 1)]
    row = {"video": str(videos / "video.mp4"), "mask": "absent.png"}
    events = list(lane(tmp_path / "run").run(Job(task=task_of(write_manifest(tmp_path / "m", [row])), attempt=1)))
    assert [event.phase for event in events if isinstance(event, Phase)] == ["fetch"]
    assert isinstance(events[-1], Failed)


def test_what_was_wrong_is_said_however_often_the_video_was_gone_on_with(videos: Path, tmp_path: Path) -> None:
    """The video's masks overlap on its first frame, and its decoder told of damage there."""
    first = {"video": str(videos / "video.mp4"), "mask": str(videos / "mask.png"), "frame": 0}
    square = np.zeros(SIZE, bool)
    square[30:60, 40:70] = True
    rle = {"size": SIZE, "counts": encode_rle(square).decode()}
    rows = [{**first, "object_id": 1}, {**first, "object_id": 2, "mask": rle}]
    task, out = task_of(write_manifest(tmp_path / "manifest.jsonl", rows)), tmp_path / "run"
    last_of(lane(out, frames=4).run(Job(task=task, attempt=1)))
    checkpoint = max(Path(RunFolder(str(out)).checkpoints_of(task)).glob("*/checkpoint.json"))
    change_content(checkpoint, lambda content: content["damage"].update(corrupt_frames=2, first_corrupt=1))
    last_of(lane(out, frames=4).run(Job(task=task, attempt=2)))
    last = last_of(lane(out).run(Job(task=task, attempt=3)))
    assert isinstance(last, Finished)
    assert any("object" in text and "frame 0" in text for text in last.warnings), last.warnings
    report = report_of(out)
    assert report["damage"]["corrupt_frames"] == 2
    assert report["damage"]["first_corrupt"] == 1
    assert report["checkpoints"]["resumed_after"] == 7


def test_damage_of_two_readings_is_put_together() -> None:
    earlier = Damage(corrupt_frames=3, first_corrupt=4, decoder_errors=1, first_error="a", stopped="")
    now = Damage(corrupt_frames=1, first_corrupt=90, decoder_errors=5, first_error="b", stopped="c", missing_frames=2)
    assert now.merged(earlier) == Damage(
        missing_frames=2, corrupt_frames=3, first_corrupt=4, decoder_errors=5, first_error="a", stopped="c"
    )
    assert now.merged(Damage()) == now
    assert Damage().merged(earlier) == earlier


@pytest.mark.long
def test_a_killed_worker_loses_at_most_one_interval(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = itertools.count(1)
    monkeypatch.setattr(Checkpoints, "due", lambda self, leaving: next(seen) % 4 == 0)
    monkeypatch.setattr("rts_batch.worker.attempt.PROGRESS_SECONDS", 0.0)
    task, out = task_of(videos / "two.jsonl"), tmp_path / "run"
    last_of(lane(tmp_path / "undisturbed").run(Job(task=task, attempt=1)))
    seen = itertools.count(1)
    events = lane(out).run(Job(task=task, attempt=1))
    for event in events:
        if getattr(event, "frames", 0) == 11:
            break
    del events  # what a SIGKILL leaves: eleven frames tracked, checkpoints after frames 3 and 7
    assert isinstance(last_of(lane(out).run(Job(task=task, attempt=2))), Finished)
    assert report_of(out)["checkpoints"]["resumed_after"] == 7
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


@pytest.fixture(scope="module")
def kept(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `two.jsonl` that has kept a checkpoint after each frame."""
    out = tmp_path_factory.mktemp("kept") / "run"
    last = last_of(lane(out, keep=True).run(Job(task=task_of(videos / "two.jsonl"), attempt=1)))
    assert isinstance(last, Finished)
    assert not last.has_checkpoints, "nothing that should go"
    return out


def rows_of_two(videos: Path) -> list[dict[str, Any]]:
    """The rows of `two.jsonl`, to be put into another folder."""
    rows = [json.loads(line) for line in (videos / "two.jsonl").read_text().splitlines()]
    return [{**row, "video": str(videos / row["video"]), "mask": str(videos / row["mask"])} for row in rows]


def carried(kept: Path, videos: Path, task: VideoTask, out: Path) -> list[int]:
    """Carry the kept checkpoints over into another run's folder; return their frames."""
    before = RunFolder(str(kept)).checkpoints_of(task_of(videos / "two.jsonl"))
    after = Path(RunFolder(str(out)).checkpoints_of(task))
    for _ in range(2):  # a submission may be killed and begun again
        carry_over(task, before, str(after))
    return sorted(int(path.parent.name[:9]) for path in after.glob("*/checkpoint.json"))


BOX = {"box": [40, 30, 20, 20], "mask": None}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"object_id": 1, "frame": 9}, 9),
        ({"object_id": 3, "frame": 12, **BOX}, 12),
        ({"object_id": 2, "frame": 8, "mask": None, "prompt_kind": "absent"}, 8),
        ({"object_id": 1, "frame": 1, **BOX}, 1),
    ],
)
@pytest.mark.long
def test_only_frames_that_a_correction_can_change_are_tracked_again(
    kept: Path, videos: Path, tmp_path: Path, row: dict[str, Any], expected: int
) -> None:
    rows = rows_of_two(videos)
    task = task_of(write_manifest(tmp_path / "changed.jsonl", [*rows, {**rows[0], **row}]))
    assert isinstance(last_of(lane(tmp_path / "whole").run(Job(task=task, attempt=1))), Finished)
    out = tmp_path / "run"
    assert carried(kept, videos, task, out) == list(range(expected))
    assert isinstance(last_of(lane(out, keep=True).run(Job(task=task, attempt=2))), Finished)
    assert report_of(out)["checkpoints"] == {"resumed_after": expected - 1, "written": FRAMES - expected}
    assert masks_of(out) == masks_of(tmp_path / "whole")


@pytest.mark.long
def test_a_video_that_becomes_bidirectional_goes_on_from_what_was_tracked_forward(
    kept: Path, videos: Path, tmp_path: Path
) -> None:
    rows = rows_of_two(videos)
    rows = [{**row, "direction": "bidirectional"} for row in (*rows, {**rows[0], "frame": 12})]
    task = task_of(write_manifest(tmp_path / "changed.jsonl", rows))
    assert isinstance(last_of(lane(tmp_path / "whole").run(Job(task=task, attempt=1))), Finished)
    out = tmp_path / "run"
    assert carried(kept, videos, task, out) == list(range(12))
    assert isinstance(last_of(lane(out, keep=True).run(Job(task=task, attempt=2))), Finished)
    assert report_of(out)["checkpoints"] == {"resumed_after": 11, "written": FRAMES - 12}
    assert masks_of(out) == masks_of(tmp_path / "whole")


@pytest.mark.parametrize("directions", [("forward", "bidirectional"), ("bidirectional", "forward")])
@pytest.mark.parametrize("absent", [{"frame": 1}, {"time": 0.04}])
def test_an_absence_before_the_first_mark_is_warned_of_where_it_changes_nothing_and_nowhere_else(
    videos: Path, tmp_path: Path, directions: tuple[str, str], absent: dict[str, Any]
) -> None:
    first = {"video": str(videos / "video.mp4"), "object_id": 1}
    rows = [{**first, **absent, "prompt_kind": "absent"}, {**first, "box": [30, 30, 20, 20], "frame": 3}]
    later = {**first, "box": [40, 30, 20, 20], "frame": 9}
    before, after = (
        task_of(write_manifest(tmp_path / f"{place}.jsonl", [{**row, "direction": direction} for row in some]))
        for place, (direction, some) in enumerate(zip(directions, (rows, [*rows, later]), strict=True))
    )
    worker, folder = lane(tmp_path / "run", keep=True), RunFolder(str(tmp_path / "run"))
    assert isinstance(last_of(worker.run(Job(task=before, attempt=1))), Finished)
    carry_over(after, folder.checkpoints_of(before), folder.checkpoints_of(after))
    last = last_of(worker.run(Job(task=after, attempt=2)))
    assert isinstance(last, Finished)
    told = "object 1, frame 1: it is said to be absent where it is not tracked yet (forward), which changes nothing"
    assert last.warnings == ((told,) if directions[1] == "forward" else ())


@pytest.mark.long
def test_a_row_that_was_put_right_is_not_warned_of_any_more(videos: Path, tmp_path: Path) -> None:
    """Its warning was in the checkpoints of all frames before, which are gone on with."""
    square = np.zeros(SIZE, bool)
    square[30:60, 40:70] = True
    masks = [
        {"video": str(videos / "video.mp4"), "object_id": 1, "mask": str(videos / "mask.png"), "frame": 0},
        {
            "video": str(videos / "video.mp4"),
            "object_id": 2,
            "mask": json.dumps({"size": SIZE, "counts": encode_rle(square).decode()}),
            "frame": 0,
        },
    ]
    row = {"video": str(videos / "video.mp4"), "object_id": 1, "frame": 8}
    wrong, right = (
        task_of(write_manifest(tmp_path / f"{name}.jsonl", [*masks, {**row, "box": box}]))
        for name, box in {"wrong": [120, 80, 60, 60], "right": [120, 80, 20, 20]}.items()
    )
    before, out = tmp_path / "before", tmp_path / "run"
    first = last_of(lane(before, keep=True).run(Job(task=wrong, attempt=1)))
    assert isinstance(first, Finished)
    assert ["outside the frame" in text for text in first.warnings] == [True, False]
    carry_over(right, RunFolder(str(before)).checkpoints_of(wrong), RunFolder(str(out)).checkpoints_of(right))
    last = last_of(lane(out, keep=True).run(Job(task=right, attempt=2)))
    assert isinstance(last, Finished)
    assert report_of(out)["checkpoints"]["resumed_after"] == 7
    assert last.warnings == first.warnings[1:]


@pytest.mark.parametrize("everywhere", [{"end": 13}, {"direction": "both"}, {"start": 0, "note": "other"}])
def test_nothing_is_carried_over_where_more_than_later_prompts_has_changed(
    kept: Path, videos: Path, tmp_path: Path, everywhere: dict[str, Any]
) -> None:
    task = task_of(write_manifest(tmp_path / "changed.jsonl", [{**row, **everywhere} for row in rows_of_two(videos)]))
    assert carried(kept, videos, task, tmp_path / "run") == []


def test_a_mask_whose_address_is_signed_anew_is_the_same(tmp_path: Path) -> None:
    row = {"video": "https://host/a.mp4?Signature={}", "mask": "https://host/{}.png?Signature={}"}

    def digest(signature: str, name: str = "mask") -> str:
        signed = {"video": row["video"].format(signature), "mask": row["mask"].format(name, signature)}
        return decided_by(task_of(write_manifest(tmp_path / "m.jsonl", [signed])), 0)

    assert digest("a") == digest("b") != digest("b", "other")


@pytest.mark.parametrize("first", [{"frame": 1}, {"mask": None, "box": [30, 30, 20, 20]}])
def test_a_changed_first_prompt_leaves_nothing_but_what_lies_before_it(
    kept: Path, videos: Path, tmp_path: Path, first: dict[str, Any]
) -> None:
    rows = rows_of_two(videos)
    task = task_of(write_manifest(tmp_path / "changed.jsonl", [{**rows[0], **first}, *rows[1:]]))
    assert carried(kept, videos, task, tmp_path / "run") == []


@pytest.mark.long
def test_a_later_row_that_changes_how_an_image_is_read_has_all_tracked_again(videos: Path, tmp_path: Path) -> None:
    """Shades of one colour were one target; with a second target's row that names them, their indices are numbers."""
    indices = np.zeros(SIZE, np.uint8)
    indices[30:60, 30:60] = 4
    indices[30:60, 30], indices[30:60, 59], indices[30, 30:60] = 1, 2, 3
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, 60, 0, 0, 110, 0, 0, 160, 0, 0, 220, 0, 0])
    image.save(tmp_path / "shades.png")
    video, shades = {"video": str(videos / "video.mp4")}, {"mask": str(tmp_path / "shades.png")}
    rows = [
        {**video, **shades, "object_id": 1, "frame": 0},
        {**video, "object_id": 2, "frame": 3, "box": [80, 80, 20, 20]},
    ]
    later = {**video, **shades, "object_id": 2, "frame": 8}
    task, changed, other = (
        task_of(write_manifest(tmp_path / f"{place}.jsonl", given))
        for place, given in enumerate([rows, [*rows, later], [*rows, {**later, "object_id": 3, **BOX}]])
    )
    before = tmp_path / "before"
    assert isinstance(last_of(lane(before, keep=True).run(Job(task=task, attempt=1))), Finished)
    for after, frames in ((changed, 0), (other, 8)):
        folder = Path(RunFolder(str(tmp_path / "run")).checkpoints_of(after))
        carry_over(after, RunFolder(str(before)).checkpoints_of(task), str(folder))
        assert len(list(folder.glob("*/checkpoint.json"))) == frames


def test_a_prompt_at_a_time_may_be_on_any_frame(kept: Path, videos: Path, tmp_path: Path) -> None:
    rows = rows_of_two(videos)
    timed = {**rows[0], "object_id": 3, **BOX, "frame": None, "time": 0.4}
    task = task_of(write_manifest(tmp_path / "changed.jsonl", [*rows, timed]))
    assert carried(kept, videos, task, tmp_path / "run") == []


def interrupted(folder: Path, out: Path, frames: int = 8) -> tuple[VideoTask, list[Path]]:
    """A new video of which so many frames were tracked, and its checkpoints, of which the last has its state."""
    make_video(folder / "video.mp4", FRAMES)
    task = task_of(write_manifest(folder / "manifest.jsonl", [{"video": "video.mp4", "box": BOX["box"]}]))
    assert isinstance(last_of(lane(out, frames=frames).run(Job(task=task, attempt=1))), Failed)
    return task, sorted(Path(RunFolder(str(out)).checkpoints_of(task)).glob("*/checkpoint.json"))


def without_version(path: Path) -> None:
    """Makes a checkpoint one of those that did not say what they were made from."""
    change_content(path, lambda content: [content.pop("version"), content.pop("size")])


@pytest.mark.parametrize(
    "other",
    [{"discs": (Disc(), Disc(colour=(0, 0, 255)))}, {"frames": 5}, {"size": (192, 96)}],
    ids=["content", "length", "size"],
)
def test_a_video_that_was_replaced_is_begun_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    task, _ = interrupted(tmp_path, tmp_path / "run")
    make_video(tmp_path / "video.mp4", **{"frames": FRAMES, **other})
    last = last_of(lane(tmp_path / "run").run(Job(task=task, attempt=2)))
    assert isinstance(last, Finished)
    assert last.has_checkpoints, "those of the old video must go too"
    assert isinstance(last_of(lane(tmp_path / "fresh").run(Job(task=task, attempt=1))), Finished)
    assert masks_of(tmp_path / "run") == masks_of(tmp_path / "fresh")
    assert report_of(tmp_path / "run")["checkpoints"]["resumed_after"] is None


def test_checkpoints_of_a_video_that_was_replaced_are_not_carried_over(tmp_path: Path) -> None:
    task, _ = interrupted(tmp_path, tmp_path / "run")
    before = RunFolder(str(tmp_path / "run")).checkpoints_of(task)
    make_video(tmp_path / "video.mp4", FRAMES + 1)
    carry_over(task, before, str(tmp_path / "after"))
    assert not (tmp_path / "after").exists()


def test_a_checkpoint_of_an_earlier_version_that_says_no_video_is_gone_on_with(tmp_path: Path) -> None:
    task, paths = interrupted(tmp_path, tmp_path / "run")
    without_version(paths[-1])
    assert isinstance(last_of(lane(tmp_path / "run").run(Job(task=task, attempt=2))), Finished)
    assert report_of(tmp_path / "run")["checkpoints"]["resumed_after"] == 7


def test_a_checkpoint_beyond_the_videos_end_is_passed_over(tmp_path: Path) -> None:
    task, paths = interrupted(tmp_path, tmp_path / "run")
    for path in paths:
        without_version(path)
    make_video(tmp_path / "video.mp4", 5)
    last = last_of(lane(tmp_path / "run").run(Job(task=task, attempt=2)))
    assert isinstance(last, Finished)
    assert last.frames == 5


def test_an_error_of_the_video_itself_is_met_again(tmp_path: Path) -> None:
    task, paths = interrupted(tmp_path, tmp_path / "run")
    for path in paths:
        without_version(path)
    (tmp_path / "video.mp4").write_bytes(b"no video")
    last = last_of(lane(tmp_path / "run").run(Job(task=task, attempt=2)))
    assert isinstance(last, Failed)
    assert (last.kind, last.error) == ("permanent", "VideoError")


@pytest.mark.parametrize(("direction", "held"), [("forward", FRAMES), ("backward", 0), ("both", 7)])
def test_rows_are_kept_only_for_checkpoints_that_may_come(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str, held: int
) -> None:
    """Of a pass that writes none, all rows of the video were in memory until its end."""
    note, most = Checkpoints.note, [0]

    def watched(checkpoints: Checkpoints, rows: Iterable[Row]) -> None:
        note(checkpoints, rows)
        most.append(len(checkpoints._rows))

    monkeypatch.setattr(Checkpoints, "note", watched)
    row = {"video": str(videos / "video.mp4"), "box": [30, 30, 20, 20], "frame": 6, "direction": direction}
    task = task_of(write_manifest(tmp_path / "m.jsonl", [row if direction != "forward" else {**row, "frame": 0}]))
    assert isinstance(last_of(lane(tmp_path / "run", interval=300.0).run(Job(task=task, attempt=1))), Finished)
    assert held - 1 <= max(most) <= held + 1


def test_short_videos_write_none_and_nothing_is_looked_up(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "list_folders", lambda uri: pytest.fail("looked up"))
    out = tmp_path / "run"
    last = last_of(lane(out, interval=60.0).run(Job(task=task_of(videos / "one.jsonl"), attempt=1)))
    assert isinstance(last, Finished)
    assert not last.has_checkpoints
    assert not (out / "checkpoints").exists()


@pytest.mark.long
def test_an_incomplete_or_damaged_checkpoint_is_passed_over(videos: Path, tmp_path: Path) -> None:
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(lane(tmp_path / "undisturbed").run(Job(task=task, attempt=1)))
    last_of(lane(out, frames=6).run(Job(task=task, attempt=1)))
    folder = Path(RunFolder(str(out)).checkpoints_of(task))
    (folder / "000000012-2-late").mkdir()  # a worker died before it wrote checkpoint.json
    (folder / "000000013-2-other").mkdir()
    (folder / "000000013-2-other" / "checkpoint.json").write_text("{")
    found = read_latest(str(folder))
    assert found is not None
    assert (found.frame, found.count, found.prompts) == (5, 6, {"came": {1: 1}, "begin": {1: 0}, "absent": {}})
    assert [(row.frame, row.video_id) for row in found.rows(task, *SIZE)] == [
        (frame, task.video_id) for frame in range(6)
    ]
    assert isinstance(last_of(lane(out).run(Job(task=task, attempt=2))), Finished)
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.long
def test_no_damage_of_a_checkpoint_goes_unnoticed(videos: Path, checkpoints: Path, data: st.DataObject) -> None:
    """It is passed over for an earlier one, or is what it was."""
    task = task_of(videos / "one.jsonl")
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
            assert list(found.rows(task, *SIZE)) == list(sound.rows(task, *SIZE))
        elif found is not None:
            assert found.frame < sound.frame
            assert len(list(found.rows(task, *SIZE))) == found.frame + 1
    finally:
        path.write_bytes(original)


@pytest.fixture
def checkpoints(videos: Path, tmp_path: Path) -> Path:
    """A folder with the checkpoints after frames 0 to 3."""
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(lane(out, frames=4).run(Job(task=task, attempt=1)))
    return Path(RunFolder(str(out)).checkpoints_of(task))


@pytest.mark.long
def test_a_state_that_cannot_be_put_back_means_to_begin_again(videos: Path, tmp_path: Path) -> None:
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(lane(tmp_path / "undisturbed").run(Job(task=task, attempt=1)))
    last_of(lane(out, frames=3).run(Job(task=task, attempt=1)))
    (state,) = Path(RunFolder(str(out)).checkpoints_of(task)).glob("*/state.bin")
    state.write_bytes(b"rubbish")
    assert isinstance(last_of(lane(out).run(Job(task=task, attempt=2))), Finished)
    assert report_of(out)["checkpoints"]["resumed_after"] is None
    assert masks_of(out) == masks_of(tmp_path / "undisturbed")


def test_without_an_interval_there_are_none(videos: Path, tmp_path: Path) -> None:
    task, out = task_of(videos / "one.jsonl"), tmp_path / "run"
    last_of(lane(out, interval=None, frames=6).run(Job(task=task, attempt=1)))
    assert not (out / "checkpoints").exists()
