"""Bad manifests, videos and prompts: each is refused with a sentence that names it, and with its exit code."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.manifest import read_manifest
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Failed, Finished, Job, WorkerSettings
from tests.support.cluster import SharedCluster
from tests.support.running import STUB
from tests.support.stub_tracker import Stub
from tests.support.videos import make_video
from tests.support.workers import decoding

HEADER = "video,box,mask,frame,time,object_id"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good video of 10 frames of 160×120 pixels, and all sorts of files that are none."""
    folder = tmp_path_factory.mktemp("input")
    masks = make_video(folder / "good.mp4", 10)
    cv2.imwrite(str(folder / "good.png"), masks[0, 0].astype(np.uint8) * 255)
    cv2.imwrite(str(folder / "small.png"), np.full((60, 80), 255, np.uint8))
    cv2.imwrite(str(folder / "empty.png"), np.zeros((120, 160), np.uint8))
    cv2.imwrite(str(folder / "ids.png"), (masks[0, 0] * 5).astype(np.uint8))
    cv2.imwrite(str(folder / "colours.png"), np.tile(np.uint8([1, 2, 3]), (120, 160, 1)))
    (folder / "text.png").write_text("no picture")
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    (folder / "zero.mp4").touch()
    whole = (folder / "good.mp4").read_bytes()
    (folder / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty-folder").mkdir()
    (folder / "images").mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((120, 160, 3), number, np.uint8))
    return folder


# Whole manifests: nothing starts, exit code 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: write one row for each target"),
        ("video,box\n", "no rows"),
        ("video,box\na.mp4\n", "line 2"),
        ('name,box\na.mp4,"1,2,3,4"\n', "no column 'video'"),
        ("video,frame\na.mp4,0\n", "marks no target"),
        ("video,box\na.mp4,\n", "line 2: no target is marked"),
        ('video,box\na.mp4,"1,2,3"\n', "line 2, column box: '1,2,3' is not a box: write x,y,w,h in pixels"),
        ('video,box\na.mp4,"1,2,0,4"\n', "width and height must be above 0"),
        ('video,box\na.mp4,"1,2,nan,4"\n', "finite"),
        ('video,box,frame\na.mp4,"1,2,3,4",first\n', "line 2, column frame: 'first' is not a frame index"),
        ('video,box,frame\na.mp4,"1,2,3,4",-1\n', "line 2, column frame: '-1'"),
        ('video,box,object_id\na.mp4,"1,2,3,4",-1\n', "column object_id: '-1' is not an object id"),
        ('video,box\na.mp4,"1,2,3,4"\na.mp4,"1,2,3,4"\n', "line 3: the same video_id, object_id and frame as line 2"),
        ('video,video_id,box\na.mp4,v,"1,2,3,4"\nb.mp4,v,"1,2,3,4"\n', "line 2 has 'a.mp4' for the same video_id"),
        ('video,box,score\na.mp4,"1,2,3,4",1\n', "would clash with the results' own 'score'"),
        ('video,box\nftp://host/a.mp4,"1,2,3,4"\n', "ftp"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    for command in (["validate", str(path)], ["submit", str(path), "--out", str(tmp_path / "run"), *STUB]):
        outcome = CliRunner().invoke(app, command)
        assert outcome.exit_code == 10, outcome.output
        assert message in outcome.stderr
        assert outcome.stdout == ""
        assert "Traceback" not in outcome.output
    assert not (tmp_path / "run").exists()


def test_a_mixed_column_of_a_typed_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(
        '{"video": "a.mp4", "box": [1, 2, 3, 4], "lot": 1}\n{"video": "b.mp4", "box": [1, 2, 3, 4], "lot": []}'
    )
    outcome = CliRunner().invoke(app, ["validate", str(path)])
    assert outcome.exit_code == 10
    assert "line 2, column lot: [] is of type list" in outcome.stderr


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["validate", str(tmp_path / "none.csv")])
    assert outcome.exit_code == 1
    assert "none.csv: it does not exist" in outcome.stderr


def test_every_wrong_row_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text('video,box\na.mp4,"1,2,3,4"\nb.mp4,"1,2"\nc.mp4,\n')
    outcome = CliRunner().invoke(app, ["validate", str(path)])
    assert outcome.exit_code == 10
    assert "2 of 3 rows cannot be used" in outcome.stderr
    assert "line 3, column box" in outcome.stderr
    assert "line 4: no target is marked" in outcome.stderr
    outcome = CliRunner().invoke(app, ["validate", str(path), "--skip-invalid"])
    assert (outcome.exit_code, outcome.stdout) == (0, f"{path}: 1 video, 1 target\n")
    assert "left out: line 3" in outcome.stderr


def test_a_manifest_from_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b'\xef\xbb\xbfvideo,box\r\na.mp4,"1,2,3,4"\r\nb.mp4,"1,2,3,4"\r\n')
    outcome = CliRunner().invoke(app, ["validate", str(path)])
    assert (outcome.exit_code, outcome.stdout) == (0, f"{path}: 2 videos, 2 targets\n")


@pytest.mark.long
def test_a_hundred_thousand_rows_are_validated_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    lines = [f'videos/{number}.mp4,"{number % 500},20,30,40",{number % 90},cat,{number}' for number in range(100_000)]
    path.write_text("video,box,frame,category,lot\n" + "\n".join(lines))
    started = time.process_time()
    outcome = CliRunner().invoke(app, ["validate", str(path)])
    assert time.process_time() - started < 30
    assert (outcome.exit_code, outcome.stdout) == (0, f"{path}: 100000 videos, 100000 targets\n")


def test_boxes_without_a_network_for_them_are_refused_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f'video,box\n{folder / "good.mp4"},"1,2,30,40"\n')
    command = ["submit", str(path), "--out", str(tmp_path / "run"), "--weights", "no-boxes", *STUB]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 10
    assert "first in line 2" in outcome.stderr
    assert "give a mask, or weights with an STA network (rts-batch weights import" in outcome.stderr
    assert not (tmp_path / "run").exists()


# Single videos: that video fails, for good


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ("missing.mp4,1-1-9-9,,,,", "StorageError", "missing.mp4 does not exist"),
        ("text.mp4,1-1-9-9,,,,", "VideoError", "text.mp4"),
        ("zero.mp4,1-1-9-9,,,,", "VideoError", "zero.mp4 is empty"),
        ("headless.mp4,1-1-9-9,,,,", "VideoError", "headless.mp4"),
        ("empty-folder,1-1-9-9,,,,", "VideoError", "empty-folder"),
        (
            "good.mp4,160-5-20-20,,,,",
            "PromptError",
            "object 1, frame 0: the box prompt lies outside the frame (is it of a picture of another size?)",
        ),
        ("good.mp4,5--30-20-20,,,,", "PromptError", "in a frame of 160×120 pixels"),
        ("good.mp4,,small.png,,,", "PromptError", "has 80×60 pixels, but the video's frames have 160×120"),
        ("good.mp4,,empty.png,,,", "PromptError", "empty.png: it is empty: every pixel is 0"),
        ("good.mp4,,ids.png,,,4", "PromptError", "which pixels are object 4's is not clear: none is 4"),
        (
            "good.mp4,,colours.png,,,",
            "PromptError",
            "colours.png: which pixels are object 1's is not clear: it is neither one colour on black",
        ),
        ("good.mp4,,text.png,,,", "PromptError", "text.png: the mask is not a picture that can be read"),
        ("good.mp4,,none.png,,,", "PromptError", "none.png: it does not exist"),
        (
            "good.mp4,1-1-9-9,,10,,",
            "PromptError",
            "frame 10: the box prompt lies past the video's end: it has 10 frames",
        ),
        ("good.mp4,1-1-9-9,,,0.5,", "PromptError", "time 0.5 s: the box prompt lies past the video's end"),
        ("images,1-1-9-9,,,0.5,", "PromptError", "gives a time, but the frames of this video have none; give `frame`"),
    ],
)
def test_a_bad_video_or_prompt_is_permanent_and_named(
    folder: Path, tmp_path: Path, row: str, error: str, message: str
) -> None:
    (event,) = track(folder, tmp_path, row)
    assert isinstance(event, Failed)
    assert (event.kind, event.error) == ("permanent", error)
    assert message in event.message
    if error == "PromptError":
        assert event.message.startswith(f"video {row.split(',')[0]}, object ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "row",
    [
        "good.mp4,,good.png,,,",
        "good.mp4,,ids.png,,,5",
        "good.mp4,1-1-9-9,,9,,",
        "good.mp4,1-1-9-9,,,0.36,",
        "good.mp4,150-110-20-20,,,,",
        "images,1-1-9-9,,1,,",
    ],
)
@pytest.mark.long
def test_what_is_just_right_is_done(folder: Path, tmp_path: Path, row: str) -> None:
    assert isinstance(track(folder, tmp_path, row)[-1], Finished)


def track(folder: Path, tmp_path: Path, row: str) -> list[object]:
    """Runs a worker in this process on a row whose box is written with dashes; returns its last event."""
    video, box, rest = row.split(",", 2)
    numbers = box.replace("--", ",-").replace("-", ",").replace(",,", ",-") if box else ""
    (folder / "row.csv").write_text(f'{HEADER}\n{video},"{numbers}",{rest}\n')
    found = read_manifest(str(folder / "row.csv"))
    settings = WorkerSettings(
        out=str(tmp_path / "run"),
        factory="tests.support.stub_tracker:Stub",
        tracker=Stub.describe(RunSettings()),
        decoder="auto",
        threads=1,
        extras=found.extras,
    )
    return list(Lane(settings, decoding=decoding()).run(Job(task=found.tasks[0], attempt=1)))[-1:]


@pytest.mark.ray
def test_bad_videos_do_not_stop_the_good_ones(folder: Path, tmp_path: Path, cluster: SharedCluster) -> None:
    path = tmp_path / "manifest.csv"
    names = ["missing.mp4", "text.mp4", "zero.mp4", "good.mp4"]
    path.write_text("video,box\n" + "".join(f'{folder / name},"200,5,20,20"\n' for name in names[:3]))
    with path.open("a") as file:
        file.write(f'{folder / "good.mp4"},"20,5,20,20"\n')
    outcome = cluster.run("submit", path, "--out", tmp_path / "run", *STUB)
    assert outcome.code == 3, outcome.err
    assert "1 of 4 done, 3 failed" in outcome.out
    for name in names[:3]:
        assert f"failed   {folder / name}: " in outcome.out
    assert "Traceback" not in outcome.out + outcome.err
