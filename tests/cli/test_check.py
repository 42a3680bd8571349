"""`rts-batch probe`, `validate --deep` and `verify`: what is wrong is found, and what is right is left in peace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from rts_batch.cli.app import app
from rts_batch.manifest import read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope
from rts_batch.runs.verification import verify_run
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Finished, Job, WorkerSettings
from tests.support.running import write_manifest
from tests.support.stub_tracker import Stub
from tests.support.videos import make_images, make_video, remux
from tests.support.workers import decoding

BOX = [30, 30, 20, 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "a.mp4", 12)
    make_video(folder / "b.avi", 8, codec="mpeg4")
    make_images(folder / "images", 3)
    (folder / "text.mp4").write_text("This is no video.")
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_probe_says_who_reads_a_video_and_why(folder: Path) -> None:
    answer = call("probe", folder / "a.mp4", "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert (found["decoder"], found["reason"], found["codec"]) == ("decord", None, "h264")
    assert (found["pixel_aspect"], found["warnings"]) in ((None, []), ("1:1", []))
    assert (found["height"], found["width"], found["frames_in_file"], found["announced_frames"]) == (120, 160, 12, 12)
    found = json.loads(call("probe", folder / "b.avi", "--json").stdout)
    assert (found["decoder"], found["reason"]) == ("pyav", "the container is avi")
    assert "and not decord: the container is avi" in call("probe", folder / "b.avi").stdout
    assert json.loads(call("probe", folder / "images", "--json").stdout)["frames"] == 3


def test_probe_says_that_pixels_are_not_square(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 2, aspect=Fraction(64, 45))
    found = json.loads(call("probe", tmp_path / "a.mp4", "--json").stdout)
    assert found["pixel_aspect"] == "64:45"
    assert "players show 160×120 as 228×120; boxes, polygons and masks are in the 160×120" in found["warnings"][0]
    remux(tmp_path / "a.mp4", tmp_path / "turned.mp4", matrix=(0, -1, 1, 0))
    assert "players show 120×160 as 84×160" in call("probe", tmp_path / "turned.mp4").stdout


@pytest.mark.parametrize("name", ["text.mp4", "missing.mp4"])
def test_probe_of_what_is_no_video(folder: Path, name: str) -> None:
    answer = call("probe", folder / name)
    assert answer.exit_code == 1
    assert name in answer.stderr


@pytest.mark.long
def test_deep_validation_finds_what_the_rows_do_not_say(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "video_id": "good", "box": BOX, "frame": 11},
        {"video": "b.avi", "video_id": "late", "box": BOX, "frame": 8},
        {"video": "b.avi", "video_id": "outside", "box": [500, 5, 9, 9]},
        {"video": "b.avi", "video_id": "corrected", "box": BOX},
        {"video": "b.avi", "video_id": "corrected", "box": BOX, "time": 0.9},
        {"video": "images", "video_id": "no times", "box": BOX, "time": 0.0},
        {"video": "text.mp4", "video_id": "text", "box": BOX},
        {"video": "nothing.mp4", "video_id": "nothing", "box": BOX},
        {"video": "a.mp4", "video_id": "backward", "box": BOX, "frame": 7, "direction": "backward"},
    ]
    manifest = write_manifest(folder / "manifest.jsonl", rows)
    assert call("validate", manifest).exit_code == 0
    answer = call("validate", manifest, "--deep", "--json")
    assert answer.exit_code == 10
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    problems = {event["video_id"]: event["problem"] for event in events if event["event"] == "video"}
    assert list(problems) == list(dict.fromkeys(row["video_id"] for row in rows))
    assert problems["good"] is problems["backward"] is None
    assert "lies past the video's end: it has 8 frames" in problems["late"]
    assert "lies outside the frame" in problems["outside"]
    assert "time 0.9 s: the box prompt lies past the video's end" in problems["corrected"]
    assert "have none; give `frame`" in problems["no times"]
    assert "text.mp4 is not a video" in problems["text"]
    assert "nothing.mp4 does not exist" in problems["nothing"]
    assert "6 of 8 videos cannot be done" in events[-1]["message"]
    good = write_manifest(folder / "good.jsonl", rows[:1])
    answer = call("validate", good, "--deep")
    assert (answer.exit_code, answer.stdout) == (0, f"{good}: 1 video, 1 target\n")


@pytest.mark.long
def test_validation_says_what_boxes_probably_are(folder: Path, tmp_path: Path) -> None:
    """Corners as a whole manifest of them looks: with the frames it is sure, without them it is a question."""
    corners = [[20, 30, 60, 70], [100, 50, 150, 110], [30.5, 40, 70, 90], [90, 60, 130, 100]]
    rows = [{"video": "a.mp4", "video_id": str(place), "box": box} for place, box in enumerate(corners)]
    manifest = write_manifest(folder / "corners.jsonl", rows)
    answer = call("validate", manifest, "--deep")
    assert "reach past their frames; read as corners x1,y1,x2,y2 all of them would fit" in answer.stderr
    rows = [row for row in rows if row["box"][2] > row["box"][0]]
    answer = call(
        "validate",
        write_manifest(
            folder / "corners.jsonl", [rows[0], rows[2], {**rows[0], "video_id": "x", "box": [1, 2, 30, 40]}]
        ),
    )
    assert answer.exit_code == 0
    assert "warning: in all 3 boxes the third number is above the first" in answer.stderr
    mixed = write_manifest(
        folder / "mixed.jsonl", [*rows, {"video": "a.mp4", "video_id": "far", "box": [1, 2, 800, 30]}]
    )
    answer = call("validate", mixed, "--deep", "--json")
    assert answer.exit_code == 10
    assert "is more than twice as large as the frame" in json.loads(answer.stdout.splitlines()[-1])["problems"][0]


# verify


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a video of each kind."""
    out = tmp_path_factory.mktemp("runs") / "run"
    rows = [
        {"video": "a.mp4", "video_id": "forward", "box": BOX, "frame": 3},
        {"video": "a.mp4", "video_id": "forward", "box": BOX, "frame": 4, "object_id": 2},
        {"video": "a.mp4", "video_id": "both", "box": BOX, "time": 0.2, "direction": "both"},
        {"video": "b.avi", "video_id": "backward", "box": BOX, "frame": 5, "direction": "backward"},
        *(
            {"video": "a.mp4", "video_id": "annotate", "box": BOX, "frame": f, "prompt_kind": "annotate"}
            for f in (1, 7)
        ),
        {"video": "a.mp4", "video_id": "left", "box": BOX},
    ]
    return stub_run(write_manifest(folder / "verify.jsonl", rows), out, left=1)


def stub_run(path: Path, out: Path, left: int = 0) -> Path:
    """A run of the stub tracker whose last videos are left."""
    manifest = read_manifest(str(path))
    tracker = Stub.describe(RunSettings())
    RunFolder(str(out)).prepare(manifest, RunRecord(results={"weights": tracker.fingerprint}, environment={}))
    settings = WorkerSettings(
        out=str(out), factory="tests.support.stub_tracker:Stub", tracker=tracker, decoder="auto", threads=1, extras={}
    )
    worker = Lane(settings, decoding=decoding())
    for task in manifest.tasks[: len(manifest.tasks) - left]:
        assert isinstance(list(worker.run(Job(task=task, attempt=1)))[-1], Finished)
    return out


def test_a_good_run_verifies(finished: Path) -> None:
    answer = call("verify", finished)
    assert answer.exit_code == 0, answer.output
    assert "4 files with" in answer.stdout
    assert answer.stdout.endswith("0 of them wrong\n")


def change(**values: Any) -> Callable[[pa.Table], pa.Table]:
    """Sets columns of the table's third row."""

    def apply(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[2] |= values
        return pa.Table.from_pylist(rows, schema=table.schema)

    return apply


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("forward", change(area=7), "object 1, frame 5: the mask has 400 pixels, its row says 7"),
        ("forward", change(rle=b"\xff"), "object 1, frame 5: byte 0 of the RLE"),
        ("forward", change(frame=50), "its rows are not sorted by object and frame"),
        ("forward", change(video_id="b"), "object 1, frame 5: the row belongs to video 'b'"),
        ("forward", change(height=60), "object 1, frame 5: the size is 160×60"),
        ("forward", change(state="mask_lost"), "object 1, frame 5: state mask_lost, but the mask has 400 pixels"),
        ("forward", change(score=None), "a row of state tracked with score None"),
        ("forward", change(state="lost", score=None), "a row of state lost with score None"),
        ("forward", change(state="prompt"), "a row of state prompt with score"),
        ("forward", change(time=0.0), "its time 0 s is not after the frame before"),
        ("forward", change(category="cat"), "category 'cat', the manifest says None"),
        ("forward", lambda table: table.slice(0, 9), "object 2 has no row"),
        ("forward", lambda table: table.slice(1), "object 1 begins with frame 4, its first prompt is on 3"),
        ("both", lambda table: table.slice(1), "object 1 begins with frame 1, the video with 0"),
        ("both", lambda table: table.slice(0, 11), "object 1 ends with frame 10, the video with 11"),
        ("backward", lambda table: pa.concat_tables([table.slice(0, 2), table.slice(3)]), "has no row on frame 2"),
        ("annotate", lambda table: table.slice(0, 1), "object 1 has no row on frame 7, where it is marked"),
        ("annotate", lambda table: table, "its checksum is"),  # the same rows, written by another hand
    ],
)
def test_every_damage_is_found(
    finished: Path, tmp_path: Path, name: str, damage: Callable[[pa.Table], pa.Table], problem: str
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (path,) = (tmp_path / "run/masks").glob(f"{name}-*.parquet")
    pq.write_table(damage(pq.read_table(path)), path)
    answer = call("verify", tmp_path / "run", "--json")
    assert answer.exit_code == 1
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    found = {event["video_id"]: event["problems"] for event in events[:-1]}
    assert any(problem in text for text in found.pop(name)), found
    assert not any(found.values())
    assert events[-1]["wrong"] == 1


def test_a_lost_target_may_keep_what_was_drawn(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (path,) = (tmp_path / "run/masks").glob("forward-*.parquet")
    pq.write_table(change(state="lost")(pq.read_table(path)), path)
    (found,) = [check for check in verify_run(str(tmp_path / "run")) if check.video_id == "forward"]
    assert [text.split(" is ")[0] for text in found.problems] == ["its checksum"], "another hand wrote it"


def test_absences_are_right_wherever_they_are_said(folder: Path, tmp_path: Path) -> None:
    """After a mark they give rows without a score; before the first one, backward after the last one, none."""
    absent = {"video": "a.mp4", "prompt_kind": "absent"}
    rows = []
    for direction, frames in {"forward": (1, 7), "backward": (2, 9), "both": (2, 7)}.items():
        name = {"video_id": direction, "direction": direction}
        rows += [{"video": "a.mp4", "box": BOX, "frame": 4, **name}, *({**absent, **name, "frame": n} for n in frames)]
    out = stub_run(write_manifest(folder / "absences.jsonl", rows), tmp_path / "run")
    assert [(check.rows, check.problems) for check in verify_run(str(out))] == [(5, ()), (12, ()), (8, ())]


def test_where_each_row_is_about_its_own_frame_an_absence_is_one(folder: Path, tmp_path: Path) -> None:
    marks = [{"box": BOX, "frame": 4, "prompt_kind": "annotate"}] + [
        {"frame": frame, "prompt_kind": "absent"} for frame in (1, 7)
    ]
    manifest = write_manifest(folder / "annotated.jsonl", [{"video": "a.mp4", **row} for row in marks])
    (check,) = verify_run(str(stub_run(manifest, tmp_path / "run")))
    assert (check.rows, check.problems) == (3, ())


def test_strange_files_are_found(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    paths = sorted((tmp_path / "run/masks").glob("*.parquet"))
    paths[0].write_bytes(paths[0].read_bytes()[:-20])
    (tmp_path / "run/masks/other-0000.parquet").write_bytes(paths[1].read_bytes())
    next((tmp_path / "run/videos").glob("forward-*.json")).unlink()
    answer = call("verify", tmp_path / "run")
    assert answer.exit_code == 1
    assert f"masks/{paths[0].name}: " in answer.stdout
    assert "masks/other-0000.parquet: no video of the manifest has this file" in answer.stdout
    assert "its report cannot be read" in answer.stdout
    assert "3 of them wrong" in answer.stdout


def test_masks_of_rows_that_have_changed_are_not_wrong_before_the_video_is_tracked_again(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    rows = (folder / "verify.jsonl").read_text().replace("[30, 30, 20, 20]", "[30, 30, 20, 21]", 1)
    (folder / "changed.jsonl").write_text(rows)
    run = RunFolder(str(tmp_path / "run"))
    record = run.record()
    assert record is not None
    run.prepare(read_manifest(str(folder / "changed.jsonl")), record, Scope(redo_changed=True))
    answer = call("verify", run.uri)
    assert (answer.exit_code, "0 of them wrong" in answer.stdout) == (0, True), answer.stdout
    (path,) = (tmp_path / "run/masks").glob("forward-*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert "1 of them wrong" in call("verify", run.uri).stdout


def test_verify_needs_a_runs_folder(tmp_path: Path) -> None:
    answer = call("verify", tmp_path)
    assert answer.exit_code == 11
    assert "no run.json" in answer.stderr


MANIFEST = 'video,box\na.mp4,"1,2,3,4"\n'


def test_validate_as_json(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(MANIFEST)
    outcome = CliRunner().invoke(app, ["validate", str(path), "--json"])
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout) == {
        "event": "manifest",
        "manifest": str(path),
        "videos": 1,
        "targets": 1,
        "left_out": [],
        "warnings": [],
    }
