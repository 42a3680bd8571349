"""First prompts on new videos: what is found, marked, looked ahead at and written."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from rts_batch.errors import StorageError, UsageError
from rts_batch.manifest import read_manifest
from rts_batch.masks import decode_rle, encode_rle
from rts_batch.review.server.new_videos import NewVideos, find_videos
from tests.support.review_desk import marking_page
from tests.support.videos import make_images, make_video


def counts(left: int = 10) -> str:
    mask = np.zeros((120, 160), bool)
    mask[10:30, left : left + 20] = True
    return encode_rle(mask).decode()


def marked(video_id: str, frame: int = 0, object_id: int = 1, **others: object) -> dict[str, object]:
    return {"video_id": video_id, "object_id": object_id, "frame": frame, "counts": counts(), **others}


def test_files_folders_pictures_and_stores_are_found(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("b.mp4", "a.MOV", "notes.txt", "c.webm", "frames.tar.gz", "._b.mp4"):
        (tmp_path / "clips" / name).write_bytes(b"x")
    make_images(tmp_path / "frames", 3)
    (tmp_path / "strange.bin").write_bytes(b"x")
    with fsspec.open("memory://marks/one.mp4", "wb") as file:
        file.write(b"x")
    clips = str(tmp_path / "clips")
    names = ["a.MOV", "b.mp4", "c.webm", "frames.tar.gz"]
    assert find_videos([clips]) == [f"{clips}/{name}" for name in names]
    rest = [f"{clips}/c.webm", str(tmp_path / "frames"), str(tmp_path / "strange.bin"), "memory://marks"]
    assert find_videos([clips, *rest])[4:] == [rest[1], rest[2], "memory://marks/one.mp4"]
    with pytest.raises(StorageError, match="does not exist"):
        find_videos([str(tmp_path / "nothing.mp4")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="neither videos nor pictures"):
        find_videos([str(tmp_path / "empty")])


@pytest.mark.long
def test_what_is_marked_is_a_manifest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", 12)
    manifest = tmp_path / "out" / "manifest.csv"
    with marking_page([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], manifest, categories=("dog",)) as page:
        run = page.get("run").json()
        assert (run["kind"], run["locked"], run["categories"]) == ("mark", None, ["dog"])
        assert [video["video_id"] for video in run["videos"]] == ["a", "b"]
        numbers = page.get("video", id="a").json()
        assert (numbers["width"], numbers["height"], numbers["end"], numbers["targets"]) == (160, 120, 12, [])
        assert page.get("frame", id="b", index=7).headers["content-type"] == "image/jpeg"
        changes = [
            marked("a", category="dog"),
            marked("a", 5, 2),
            marked("b", 3),
            marked("b", 9, absent=True, counts=None),
        ]
        saved = page.post("corrections", {"version": "none", "changes": changes})
        assert saved.status_code == 200, saved.text
        assert saved.json()["pending"] == 0
        renamed = {"video_id": "b", "object_id": 1, "category": "cat"}
        assert page.post("corrections", {"version": saved.json()["version"], "changes": [renamed]}).status_code == 200
        assert page.post("redo").status_code == 422
    a, b = read_manifest(str(manifest)).tasks
    assert (a.uri, b.uri) == (str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"))
    assert [(target.object_id, target.category, target.prompts[0].frame) for target in a.targets] == [
        (1, "dog", 0),
        (2, None, 5),
    ]
    assert [(prompt.frame, prompt.kind) for prompt in b.targets[0].prompts] == [(3, "correct"), (9, "absent")]
    assert b.targets[0].category == "cat"


def test_a_manifest_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "a.mp4", 6)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('video,video_id,box,site\nclips/a.mp4,first,"1,2,30,40",north\nother.mp4,o,"1,2,3,4",south\n')
    with marking_page([str(tmp_path / "clips")], manifest) as page:
        (video,) = page.get("run").json()["videos"]
        assert video["video_id"] == "first", "as the manifest calls it"
        (row,) = page.get("corrections").json()["rows"]
        assert row["box"] == [1, 2, 30, 40]
        version = page.get("corrections").json()["version"]
        sent = [marked("first", 4, 2), marked("first", 5)]
        assert page.post("corrections", {"version": version, "changes": sent}).status_code == 200
    first, other = read_manifest(str(manifest)).tasks
    assert [target.object_id for target in first.targets] == [1, 2]
    assert first.uri == str(tmp_path / "clips" / "a.mp4")
    assert (other.targets[0].prompts[0].box, dict(other.targets[0].extras)) == ((1, 2, 3, 4), {"site": "south"})


def test_a_target_that_a_row_marks_by_its_time_is_marked_once_when_it_is_drawn_anew(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 12)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('video,video_id,time,box,site\na.mp4,a,0.2,"1,2,30,40",north\n')
    with marking_page([str(tmp_path / "a.mp4")], manifest) as page:
        found = page.get("corrections").json()
        assert [row["frame"] for row in found["rows"]] == [5]
        for change in ({"video_id": "a", "object_id": 1, "category": "cat"}, marked("a", 5, category="cat")):
            answer = page.post("corrections", {"version": found["version"], "changes": [change]})
            assert answer.status_code == 200, answer.text
            found = answer.json()
    (target,) = read_manifest(str(manifest)).tasks[0].targets
    assert [(prompt.frame, prompt.time, prompt.box) for prompt in target.prompts] == [(5, None, None)]
    assert (target.category, dict(target.extras)) == ("cat", {"site": "north"})


def test_a_manifest_of_single_frames_stays_one(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 12)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('video,video_id,frame,box,prompt_kind\na.mp4,a,3,,absent\na.mp4,a,5,"1,2,30,40",annotate\n')
    with marking_page([str(tmp_path / "a.mp4")], manifest) as page:
        version = page.get("corrections").json()["version"]
        changes = [marked("a", 5), marked("a", 7), marked("a", 8, 2), marked("a", 9, absent=True, counts=None)]
        assert page.post("corrections", {"version": version, "changes": changes}).status_code == 200
    one, two = read_manifest(str(manifest)).tasks[0].targets
    kinds = [(prompt.frame, prompt.kind) for prompt in one.prompts]
    assert kinds == [(3, "absent"), (5, "annotate"), (7, "annotate"), (9, "absent")]
    assert [prompt.kind for prompt in two.prompts] == ["annotate"]


def test_rows_of_a_video_that_is_damaged_hide_no_others(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 6)
    (tmp_path / "b.mp4").write_bytes(bytes(1000))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('video,video_id,time,box\na.mp4,a,0.04,"1,2,30,40"\nb.mp4,b,0.04,"1,2,30,40"\n')
    with marking_page([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], manifest) as page:
        found = page.get("corrections")
        assert found.status_code == 200, found.text
        assert [(row["video_id"], row["frame"]) for row in found.json()["rows"]] == [("a", 1), ("b", None)]
        sent = {"version": found.json()["version"], "changes": [marked("a", 2)]}
        assert page.post("corrections", sent).status_code == 200
    assert [len(task.targets[0].prompts) for task in read_manifest(str(manifest)).tasks] == [2, 1]


def test_only_the_frames_that_the_manifest_works_on_are_marked(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 12)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('video,video_id,start,end,box\na.mp4,a,4,9,"1,2,30,40"\n')
    with marking_page([str(tmp_path / "a.mp4")], manifest) as page:
        numbers = page.get("video", id="a").json()
        assert (numbers["first"], numbers["end"]) == (4, 9)
        assert page.get("frame", id="a", index=4).status_code == 200
        assert [row["frame"] for row in page.get("corrections").json()["rows"]] == [4]


def test_two_videos_of_one_name_are_two(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        make_video(tmp_path / folder / "a.mp4", 3)
    with marking_page([str(tmp_path / "x"), str(tmp_path / "y")], tmp_path / "m.csv") as page:
        names = [video["video_id"] for video in page.get("run").json()["videos"]]
        changes = [marked(name) for name in names]
        assert page.post("corrections", {"version": "none", "changes": changes}).status_code == 200
    assert len(read_manifest(str(tmp_path / "m.csv")).tasks) == 2


def test_a_video_called_as_another_one_of_the_manifest_is_another_one(tmp_path: Path) -> None:
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        make_video(tmp_path / folder / "cam.mp4", 6)
    monday, tuesday = (str(tmp_path / folder / "cam.mp4") for folder in ("monday", "tuesday"))
    manifest = tmp_path / "m.csv"
    with marking_page([monday], manifest) as page:
        assert page.post("corrections", {"version": "none", "changes": [marked("cam")]}).status_code == 200
    for frame, videos in enumerate(([tuesday], [tuesday, monday]), start=1):
        with marking_page(videos, manifest) as page:
            name = page.get("run").json()["videos"][0]["video_id"]
            found = page.get("corrections").json()
            shown = [(row["video_id"], row["frame"]) for row in found["rows"]]
            assert shown == ([] if frame == 1 else [(name, 1), ("cam", 0)])
            sent = {"version": found["version"], "changes": [marked(name, frame)]}
            assert page.post("corrections", sent).status_code == 200
    tasks = read_manifest(str(manifest)).tasks
    frames = {task.uri: [prompt.frame for prompt in task.targets[0].prompts] for task in tasks}
    assert frames == {monday: [0], tuesday: [1, 2]}


@pytest.mark.parametrize(
    ("row", "given"),
    [
        ("../clips/cam.mp4", "/data/marks/../clips/cam.mp4"),
        ("/data/clips/cam.mp4", "file:///data/clips/cam.mp4"),
        ("https://host/cam.mp4?Expires=1&Signature=a", "https://host/cam.mp4?Expires=2&Signature=b"),
    ],
)
def test_a_video_whose_address_is_written_otherwise_is_the_manifests(row: str, given: str) -> None:
    """It was taken for another one, whose rows came beside those that were there."""
    saved = [{"video": row, "video_id": "cam", "start": None, "end": None}]
    for videos in ([given], [given, given]):
        assert [video["video_id"] for video in NewVideos(videos, saved, "/data/marks").listing()] == ["cam"]


def test_what_signs_an_address_is_no_part_of_a_name() -> None:
    videos = [f"https://{host}/cam.mp4?Signature=secret" for host in ("one", "two")]
    assert [video["video_id"] for video in NewVideos(videos).listing()] == ["cam", "https://two/cam.mp4"]


@pytest.mark.long
def test_looking_ahead_tracks_from_what_is_marked_and_keeps_nothing(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 12)
    with marking_page([str(tmp_path / "a.mp4")], tmp_path / "m.csv") as page:
        sent = {"video_id": "a", "frame": 4, "marked": [{"object_id": 3, "counts": counts()}]}
        answer = page.post("ahead", sent)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert list(found) == [str(frame) for frame in range(4, 12)], "to the video's end"
        ((object_id, code, state, quality),) = found["6"]
        assert (object_id, state, quality) == (3, "tracked", 0.5)
        assert np.flatnonzero(decode_rle(code.encode(), 120, 160).any(axis=0))[0] == 12, "moved by two pixels"
        assert page.post("ahead", {**sent, "marked": [{"object_id": 1, "counts": "rubbish"}]}).status_code == 422
        assert page.post("ahead", {**sent, "marked": []}).status_code == 400
    assert not (tmp_path / "m.csv").exists()
    assert json.loads(answer.text)
