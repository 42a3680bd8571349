import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from rts_batch.errors import ManifestError
from rts_batch.manifest import read_manifest
from rts_batch.manifest.importers import ImportOptions, from_coco
from rts_batch.masks import decode_rle


def test_polygons_and_both_kinds_of_rle(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[4:8, 5:11] = 1
    packed = coco.encode(mask)
    packed["counts"] = packed["counts"].decode()
    flat = mask.ravel(order="F")
    runs = np.diff(np.flatnonzero(np.diff(flat)) + 1, prepend=0, append=flat.size).tolist()
    segmentations = [
        [[5, 4, 11, 4, 11, 8, 5, 8]],
        packed,
        {"size": [20, 30], "counts": runs},
        {"size": [20, 30], "counts": [3]},
    ]
    data = {
        "images": [{"id": 1, "file_name": "one/00004.jpg", "width": 30, "height": 20}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [
            {
                "id": place,
                "image_id": 1,
                "category_id": 9,
                "segmentation": segmentation,
                "bbox": [5, 4, 6, 4],
                "iscrowd": 0,
            }
            for place, segmentation in enumerate(segmentations)
        ]
        + [{"id": 7, "image_id": 1, "category_id": 9, "segmentation": packed, "iscrowd": 1}, {"id": 8, "image_id": 2}],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    found = from_coco(tmp_path / "a.json", ImportOptions(first_frame=4, video="{name}.mp4"))
    assert [(row["video"], row["frame"], row["category"]) for row in found.rows] == [("one.mp4", 0, "cat")] * 3
    for row in found.rows:
        assert np.array_equal(decode_rle(row["mask"]["counts"].encode(), 20, 30), mask)
    assert len(found.left_out) == 3
    assert any("do not add up" in line for line in found.report())


def test_what_is_no_coco_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ManifestError, match="no COCO file"):
        from_coco(tmp_path / "a.json")


def written(folder: Path, annotations: list[dict[str, Any]], **others: Any) -> Path:
    image = {"id": 1, "file_name": "one/frame_000004.jpg", "width": 30, "height": 20}
    data = {"images": [image], "categories": [{"id": 9, "name": "кот"}], "annotations": annotations, **others}
    (folder / "a.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8-sig")
    return folder / "a.json"


def test_a_file_without_images_has_no_prompts(tmp_path: Path) -> None:
    """An export that leaves every frame out has such ones; its videos are not YouTube-VIS'."""
    found = from_coco(written(tmp_path, [], images=[], videos=[{"id": 1, "name": "one"}]))
    assert (found.rows, found.left_out) == ([], {})


def annotation(number: int, **others: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 9, "bbox": [5, 4, 6, 4], **others}


def test_what_cannot_be_read_costs_no_other_annotation(tmp_path: Path) -> None:
    """One null in a box, or one score in quotes, and nothing was read."""
    wrong = [
        annotation(1, bbox=[1, None, 3, 4]),
        annotation(2, bbox=[1, float("nan"), 3, 4]),
        annotation(3, score="high"),
        annotation(4, segmentation=[["a"] * 6]),
        annotation(5, segmentation={"size": [20, 30], "counts": 7}),
        annotation(6, segmentation=[[]]),
    ]
    right = [
        annotation(7, score="0.9"),
        annotation(8, segmentation=[15, 4, 21, 4, 21, 8, 15, 8]),
        annotation(9, bbox=None),
    ]
    found = from_coco(written(tmp_path, wrong + right), ImportOptions(min_score=0.5))
    assert [(row["video"], row["frame"], row["category"]) for row in found.rows] == [("one", 4, "кот")] * 2
    places = sorted(place for places in found.left_out.values() for place in places)
    assert places == [f"annotation {number}" for number in (1, 2, 3, 4, 5, 6, 9)]


def test_crowds_are_taken_where_they_are_one_target_or_asked_for(tmp_path: Path) -> None:
    rle = {"size": [20, 30], "counts": [84, 4, 16, 4, 492]}
    path = written(
        tmp_path,
        [annotation(1, segmentation=rle, iscrowd=1), annotation(2, segmentation=rle, iscrowd=1, track_id=7)],
    )
    found = from_coco(path)
    assert [row["object_id"] for row in found.rows] == [7]
    assert "--crowds" in found.report()[0]
    assert len(from_coco(path, crowds=True).rows) == 2


@pytest.mark.parametrize(
    ("track", "numbered"), [(3, 3), (3.0, 3), ("3", 3), ("3.0", 3), (-1, 1), (None, 1), (True, 1), ("left", 1)]
)
def test_targets_numbers_are_known_however_they_are_written(tmp_path: Path, track: Any, numbered: int) -> None:
    (row,) = from_coco(written(tmp_path, [annotation(1, track_id=track)])).rows
    assert row["object_id"] == numbered
    assert type(row["object_id"]) is int


@pytest.mark.parametrize(
    ("name", "video", "frame"),
    [
        ("clip_mp4-0012_jpg.rf.0a1b2c3d4e5f.jpg", "clip_mp4", 12),
        ("кот 1/frame_000012.PNG", "кот 1", 12),
        ("a/b/img0003.jpg", "a/b", 3),
        ("C:\\clips\\one\\000010.jpg", "C:/clips/one", 10),
        ("one_2_000120.jpg", "one_2", 120),
        ("000120.jpg", "video", 120),
    ],
)
def test_names_of_images(tmp_path: Path, name: str, video: str, frame: int) -> None:
    image = {"id": 1, "file_name": name, "width": 30, "height": 20}
    (row,) = from_coco(written(tmp_path, [annotation(1)], images=[image])).rows
    assert (row["video"], row["frame"]) == (video, frame)


@pytest.mark.parametrize(("index", "frame"), [(7, 7), (7.0, 7), (None, 12), (float("nan"), 12)])
def test_a_frame_index_wins_over_the_number_in_the_name(tmp_path: Path, index: Any, frame: int) -> None:
    """pandas writes 7.0, which was passed over."""
    image = {"id": 1, "file_name": "v/000012.jpg", "width": 30, "height": 20, "video_id": 1, "frame_index": index}
    path = written(tmp_path, [annotation(1)], images=[image], videos=[{"id": 1, "name": "v"}])
    assert [(row["video"], row["frame"]) for row in from_coco(path).rows] == [("v", frame)]


@pytest.mark.parametrize("stored", [False, True])
def test_youtube_vis(tmp_path: Path, stored: bool) -> None:
    names = [f"a1/{number:05d}.jpg" for number in (0, 5, 10)]
    rle = {"size": [20, 30], "counts": [84, 4, 16, 4, 492]}
    data = {
        "videos": [{"id": 3, "file_names": names, "width": 30, "height": 20, "length": 3}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [
            {
                "id": 5,
                "video_id": 3,
                "category_id": 9,
                "segmentations": [None, rle, rle],
                "bboxes": [None, [1, 2, 3, 4], None],
            }
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    if stored:
        (tmp_path / "JPEGImages" / "a1").mkdir(parents=True)
        for name in names:
            (tmp_path / "JPEGImages" / name).write_bytes(b"")
    rows = from_coco(tmp_path / "a.json", ImportOptions(keep="all")).rows
    assert [(row["object_id"], row["frame"], row["category"]) for row in rows] == [
        (5, 1 if stored else 5, "cat"),
        (5, 2 if stored else 10, "cat"),
    ]
    assert {row["video"] for row in rows} == {str(tmp_path / "JPEGImages" / "a1") if stored else "a1"}


@pytest.mark.parametrize(
    ("content", "what"), [("[{}]", "it is a list, of results"), ("null", "no COCO file"), ("", "no JSON")]
)
def test_other_files_say_what_they_are(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ManifestError, match=what):
        from_coco(tmp_path / "a.json")


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.json", "{}" * 99)
    with pytest.raises(ManifestError, match="is an archive; unpack it"):
        from_coco(tmp_path / "a.zip")


def test_a_folder_names_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    written(tmp_path / "annotations", [])
    with pytest.raises(ManifestError, match=r"is a folder; name the file in it, .*annotations/a\.json say"):
        from_coco(tmp_path)


def test_videos_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    """Those of `a/clip` went to `b/clip`, where both lay beside the file."""
    places = ("a/clip", "b/clip", "b/other")
    for place in places:
        (tmp_path / "JPEGImages" / place).mkdir(parents=True)
        (tmp_path / "JPEGImages" / place / "00000.jpg").write_bytes(b"")
    videos = [
        {"id": number, "width": 30, "height": 20, "file_names": [f"{place}/00000.jpg"]}
        for number, place in enumerate(places)
    ]
    annotations = [{"id": n + 1, "video_id": n, "category_id": 1, "bboxes": [[5, 5, 9, 9]]} for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps({"videos": videos, "annotations": annotations}))
    assert [(row["video"], row["video_id"]) for row in from_coco(tmp_path / "a.json").rows] == [
        (str(tmp_path / "JPEGImages" / place), name)
        for place, name in zip(places, ("a/clip", "b/clip", "other"), strict=True)
    ]


@pytest.mark.parametrize("sliver", [[7, 7, 8, 8], [7, 7], []])
def test_a_sliver_beside_a_polygon_costs_nothing(tmp_path: Path, sliver: list[int]) -> None:
    """A polygon of two points, and the annotation was left out."""
    polygon = [15, 4, 21, 4, 21, 8, 15, 8]
    rows = from_coco(written(tmp_path, [annotation(1, segmentation=[sliver, polygon])])).rows
    assert [row["mask"] for row in rows] == [
        row["mask"] for row in from_coco(written(tmp_path, [annotation(1, segmentation=[polygon])])).rows
    ]
    assert not from_coco(written(tmp_path, [annotation(1, segmentation=[[7, 7, 8, 8]])])).rows


def test_a_video_whose_name_begins_as_a_comment_stays_one(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "#1/0003.jpg", "width": 64, "height": 48}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 30]}
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    from_coco(tmp_path / "a.json").write(str(tmp_path / "m.csv"))
    assert [task.video_id for task in read_manifest(str(tmp_path / "m.csv")).tasks] == ["#1"]
