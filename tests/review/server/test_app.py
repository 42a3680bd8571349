"""What the page is told, and what becomes of what it sends."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rts_batch.manifest import read_manifest
from rts_batch.masks import decode_rle, encode_rle
from rts_batch.review.server.catalogue import MOST_FRAMES
from rts_batch.runs.corrections import merged_manifest
from rts_batch.runs.lease import Lease
from tests.support.review_desk import disc_video, marking_page, page_of, review_page
from tests.support.run_folders import Repeated, Video, write_run
from tests.support.videos import make_large_video, make_long_video, make_video


def counts(width: int = 5, size: tuple[int, int] = (120, 160)) -> str:
    mask = np.zeros(size, bool)
    mask[10:20, 10 : 10 + width] = True
    return encode_rle(mask).decode()


def change(frame: int = 5, video_id: str = "clip", **others: object) -> dict[str, object]:
    return {"video_id": video_id, "object_id": 1, "frame": frame, "counts": counts(), **others}


def test_the_videos_come_worst_first(tmp_path: Path) -> None:
    videos = [disc_video(tmp_path, f"clip {n}", lost=range(10, 10 + 5 * n)) for n in range(3)]
    with page_of(tmp_path, *videos) as page:
        run = page.get("run").json()
    assert [video["video_id"] for video in run["videos"]] == ["clip 2", "clip 1", "clip 0"]
    assert run["videos"][0]["lost"] > run["videos"][1]["lost"] > run["videos"][2]["lost"] == 0
    assert run["locked"] is None


def test_failed_videos_are_listed_with_their_reasons(tmp_path: Path) -> None:
    tasks = write_run(tmp_path / "run", [disc_video(tmp_path, "clip", 4)])
    failed = tmp_path / "run" / "failed"
    failed.mkdir()
    attempt = {"error": "VideoError", "message": "moov atom not found"}
    note = {"video_id": "<b>broken</b>", "uri": "s3://x/y.mp4", "attempts": [attempt]}
    with review_page(tmp_path / "run") as page:
        assert page.get("run").json()["failed"] == {"count": 0, "videos": []}
        (failed / "broken-1.json").write_text(json.dumps(note))
        (failed / f"{tasks['clip'].key}.json").write_text(json.dumps(note | {"video_id": "clip"}))
        listed = [{"video_id": "<b>broken</b>", "reason": "VideoError: moov atom not found"}]
        assert page.get("run").json()["failed"] == {"count": 1, "videos": listed}, "what got done later has not failed"
        (failed / "broken-1.json").unlink()
        assert page.get("run").json()["failed"]["count"] == 0


def test_numbers_masks_and_frames_are_those_of_the_run(tmp_path: Path) -> None:
    video = disc_video(tmp_path, "clip", lost=range(10, 15))
    with page_of(tmp_path, video) as page:
        numbers = page.get("video", id="clip").json()
        masks = page.get("masks", id="clip", first=9, count=3).json()
        jpeg = page.get("frame", id="clip", index=20)
    assert (numbers["width"], numbers["height"], numbers["first"], numbers["end"]) == (160, 120, 0, 30)
    assert numbers["times"][25] == 1.0
    assert [target["object_id"] for target in numbers["targets"]] == [1, 2]
    assert any("lost for 5 frames" in reason for place in numbers["worst"] for reason in place["reasons"])
    assert sorted(masks) == ["10", "11", "9"]
    for frame, rows in masks.items():
        for object_id, code, state, _ in rows:
            truth = video.truth(object_id, int(frame))
            assert np.array_equal(decode_rle(code.encode(), 120, 160), truth)
            assert state == video.state(object_id, int(frame))
    assert jpeg.headers["content-type"] == "image/jpeg"
    image = cv2.imdecode(np.frombuffer(jpeg.content, np.uint8), cv2.IMREAD_COLOR)
    inside = video.truth(1, 20)
    assert np.abs(image[inside].mean(axis=0) - (90, 150, 40)).max() < 25, "the disc's colour is where its mask is"


def test_a_frame_is_sent_as_wide_as_it_is_shown(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 4)) as page:
        for width, wide in ((None, 160), (80, 80), (400, 160)):
            values = {} if width is None else {"width": width}
            jpeg = page.get("frame", id="clip", index=2, **values).content
            assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] == wide
        for wrong in (0, -5, "many"):
            assert page.get("frame", id="clip", index=2, width=wrong).status_code == 400


def test_a_box_becomes_a_mask(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")) as page:
        answer = page.post("box", {"video_id": "clip", "frame": 4, "box": [10, 20, 30, 40]})
    found = decode_rle(answer.json()["counts"].encode(), 120, 160)
    assert found.sum() == answer.json()["area"] == 1200
    assert found[20:60, 10:40].all()


def test_what_is_saved_lies_beside_the_run_and_fits_its_manifest(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")) as page:
        version = page.get("corrections").json()["version"]
        sent = [change(5, category="thing"), change(0), change(7, object_id=3)]
        saved = page.post("corrections", {"version": version, "changes": sent}).json()
        assert page.get("corrections").json() == saved
        assert saved["pending"] == 3
        renamed = {"video_id": "clip", "object_id": 2, "category": "ball"}
        again = page.post("corrections", {"version": saved["version"], "changes": [renamed]})
        assert again.status_code == 200, again.text
    assert (tmp_path / "run" / "corrections.csv").exists()
    with merged_manifest(str(tmp_path / "run")) as path:
        (task,) = read_manifest(path).tasks
    first, second, third = task.targets
    assert [prompt.frame for prompt in first.prompts] == [0, 5]
    assert all(prompt.mask_rle == {"size": [120, 160], "counts": counts()} for prompt in first.prompts)
    assert (first.category, second.category, third.category) == ("thing", "ball", None)
    assert third.prompts[0].frame == 7


def test_a_correction_can_be_taken_back(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")) as page:
        saved = page.post("corrections", {"version": "none", "changes": [change(5), change(6)]}).json()
        spot = {"video_id": "clip", "object_id": 1, "frame": 5}
        left = page.post("corrections", {"version": saved["version"], "removed": [spot]}).json()
    assert [row["frame"] for row in left["rows"]] == [6]


def test_a_polygon_in_the_corrections_is_shown_as_the_mask_that_it_fills(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")) as page:
        text = f"video,video_id,frame,polygon\n{tmp_path / 'clip.mp4'},clip,5,10 20 40 20 40 60 10 60\n"
        (tmp_path / "run" / "corrections.csv").write_text(text)
        saved = page.get("corrections").json()
        page.post("corrections", {"version": saved["version"], "changes": [change(7)]})
        for row in (saved["rows"][0], page.get("corrections").json()["rows"][0]):
            found = json.loads(row["mask"])
            mask = decode_rle(found["counts"].encode(), *found["size"])
            assert row["frame"] == 5
            assert mask[20:60, 10:40].all()
            assert mask.sum() == 1200


def test_of_two_tabs_the_later_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")) as page:
        version = page.get("corrections").json()["version"]
        with ThreadPoolExecutor(8) as pool:
            bodies = [{"version": version, "changes": [change(frame)]} for frame in range(3, 11)]
            answers = list(pool.map(lambda body: page.post("corrections", body), bodies))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        for body, answer in zip(bodies, answers, strict=True):
            while answer.status_code == 409:
                assert "changed meanwhile" in answer.json()["error"]
                now = page.get("corrections").json()["version"]
                answer = page.post("corrections", {**body, "version": now})
        assert [row["frame"] for row in page.get("corrections").json()["rows"]] == list(range(3, 11))


def test_a_run_under_way_is_read_only(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")) as page, Lease(str(tmp_path / "run" / "lease.json")):
        assert "at work on the run" in page.get("run").json()["locked"]
        assert page.get("frame", id="clip", index=3).status_code == 200
        for name in ("corrections", "redo"):
            answer = page.post(name, {"version": "none", "changes": [change()]})
            assert answer.status_code == 423
    assert not (tmp_path / "run" / "corrections.csv").exists()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"counts": "rubbish \0"}, 422),
        ({"counts": counts(size=(60, 80))}, 422),
        ({"counts": encode_rle(np.zeros((120, 160), bool)).decode()}, 422),
        ({"counts": None}, 422),
        ({"video_id": "zebra"}, 422),
        ({"category": "a\nb"}, 422),
        ({"frame": 8}, 422),
        ({"frame": 10**9}, 422),
        ({"object_id": 2**40}, 422),
        ({"frame": -1}, 400),
        ({"object_id": 0}, 400),
        ({"path": "/etc/passwd"}, 400),
    ],
)
def test_what_cannot_be_saved_is_refused_whole(tmp_path: Path, wrong: dict[str, object], status: int) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 8)) as page:
        answer = page.post("corrections", {"version": "none", "changes": [change(3), {**change(), **wrong}]})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]
    assert not (tmp_path / "run" / "corrections.csv").exists()


@pytest.mark.parametrize("body", ["", "[]", "{", '{"version": 3}', '{"box": [1, 2, 3]}', "null", "9" * 5000])
def test_bodies_that_make_no_sense(tmp_path: Path, body: str) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 4)) as page:
        for name in ("corrections", "box"):
            headers = {"origin": "http://127.0.0.1:8765"}
            assert page.client.post(f"/token-of-the-tests/api/{name}", content=body, headers=headers).status_code == 400


@pytest.mark.long
def test_videos_that_are_gone_damaged_or_others(tmp_path: Path) -> None:
    names = ("gone", "damaged", "other", "short")
    videos = [disc_video(tmp_path, name, 20) for name in names]
    with page_of(tmp_path, *videos) as page:
        (tmp_path / "gone.mp4").unlink()
        (tmp_path / "damaged.mp4").write_bytes(b"\0" * 5000)
        make_video(tmp_path / "other.mp4", 20, size=(80, 60))
        make_video(tmp_path / "short.mp4", 5)
        for name in names:
            answer = page.get("frame", id=name, index=12)
            assert answer.status_code == 422, name
            assert answer.json()["error"]
            assert page.get("video", id=name).status_code == 200, "its numbers are there"
            assert page.get("masks", id=name, first=0, count=3).status_code == 200
        assert "has changed since it was tracked" in page.get("frame", id="other", index=0).json()["error"]
        assert page.get("frame", id="short", index=2).status_code == 200


@pytest.mark.long
def test_ten_thousand_frames(tmp_path: Path) -> None:
    masks = make_long_video(tmp_path / "long.mp4", 10_000)
    video = Video("long", str(tmp_path / "long.mp4"), Repeated(masks, 10_000), {1: "disc"})  # type: ignore[arg-type]
    with page_of(tmp_path, video) as page:
        numbers = page.get("video", id="long")
        assert numbers.json()["end"] == 10_000
        assert len(numbers.content) < 300_000, "the page gets some twenty bytes for each frame"
        assert len(numbers.json()["worst"]) <= 40
        asked = page.get("masks", id="long", first=9_000, count=10_000).json()
        assert len(asked) == MOST_FRAMES
        for index in (9_999, 9_998, 4_321, 0, 250, 249):
            (_, code, _, _) = page.get("masks", id="long", first=index).json()[str(index)][0]
            assert np.array_equal(decode_rle(code.encode(), 48, 64), masks[index % 500, 0])
            jpeg = page.get("frame", id="long", index=index).content
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
            inside = masks[index % 500, 0]
            assert (image[inside] - image[~inside].mean(axis=0))[:, 2].mean() > 40, "the red disc is where its mask is"
        assert page.get("frame", id="long", index=10_000).status_code == 422


@pytest.mark.long
def test_huge_pictures_are_shown_small(tmp_path: Path) -> None:
    make_large_video(tmp_path / "huge.mp4", 3 << 20, frame=(7680, 4320))
    with marking_page([str(tmp_path / "huge.mp4")], tmp_path / "m.csv") as page:
        numbers = page.get("video", id="huge").json()
        assert (numbers["width"], numbers["height"]) == (7680, 4320)
        jpeg = page.get("frame", id="huge", index=0, width=960).content
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (540, 960, 3)
        assert len(jpeg) < 1 << 20


def test_a_damaged_masks_file_costs_its_video_and_no_other(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "good"), disc_video(tmp_path, "bad")) as page:
        assert len(page.get("run").json()["videos"]) == 2
    (path,) = (tmp_path / "run" / "masks").glob("bad-*")
    data = bytearray(path.read_bytes())
    data[100:2000] = bytes(1900)
    path.write_bytes(data)
    with review_page(tmp_path / "run") as page:
        listed = {video["video_id"]: video for video in page.get("run").json()["videos"]}
        assert listed["bad"]["problem"]
        assert not listed["good"]["problem"]
        assert page.get("video", id="bad").status_code == 422
        assert page.get("video", id="good").status_code == 200


def test_a_masks_file_that_cannot_be_opened_is_named_and_the_page_goes_on(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "good"), disc_video(tmp_path, "bad")):
        pass
    (path,) = (tmp_path / "run" / "masks").glob("bad-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with review_page(tmp_path / "run") as page:
        damaged, good = page.get("run").json()["videos"]
        assert damaged["video_id"] == path.stem
        assert damaged["problem"].startswith(f"{path} is not a masks file")
        assert (good["video_id"], good["problem"]) == ("good", None)
        answer = page.get("video", id=path.stem)
        assert (answer.status_code, answer.json()["error"]) == (422, damaged["problem"])
        assert page.get("masks", id="good", first=0).status_code == 200
        path.write_bytes(whole)
        assert {video["video_id"] for video in page.get("run").json()["videos"]} == {"good", "bad"}, "made anew"


@pytest.mark.long
def test_what_another_process_finishes_or_tracks_again_is_seen(tmp_path: Path) -> None:
    one, two = disc_video(tmp_path, "one"), disc_video(tmp_path, "two")
    with page_of(tmp_path, one) as page:
        assert len(page.get("run").json()["videos"]) == 1
        assert page.get("video", id="one").json()["targets"][0]["category"] == "disc"
        (old,) = (tmp_path / "run" / "masks").iterdir()
        write_run(tmp_path / "run", [replace(one, categories={1: "coin", 2: None}), two])
        old.unlink()
        assert [video["video_id"] for video in page.get("run").json()["videos"]] == ["one", "two"]
        assert page.get("video", id="one").json()["targets"][0]["category"] == "coin"


def test_a_folder_without_a_manifest_is_to_be_looked_at_only(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip")):
        pass
    (tmp_path / "run" / "manifest.parquet").unlink()
    with review_page(tmp_path / "run") as page:
        assert "no manifest to correct" in page.get("run").json()["locked"]
        assert page.get("masks", id="clip", first=0).status_code == 200


def test_nothing_is_tracked_again_without_corrections(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 4)) as page:
        answer = page.post("redo")
        assert (answer.status_code, page.get("redo").json()["state"]) == (422, "idle")
        assert json.loads(answer.text)["error"] == "there are no corrections; save some first"
        assert page.post("redo", {"bidirectional": "sideways"}).status_code == 400


def test_a_redo_that_fails_says_why(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 8)) as page:
        page.post("corrections", {"version": "none", "changes": [change(3)]})
        assert page.post("redo").json()["state"] == "running"
        while (state := page.get("redo").json())["state"] == "running":
            pass
    assert state["state"] == "failed"
    assert "run.json" in state["message"] or "not a run's folder" in state["message"]
