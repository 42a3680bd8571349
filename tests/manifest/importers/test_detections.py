import json
from pathlib import Path
from typing import Any

import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest import read_manifest
from rts_batch.manifest.importers import ImportOptions, from_detections
from rts_batch.manifest.importers.tables import is_mot


def test_columns_say_what_a_box_is(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text(
        "image,x1,y1,x2,y2,conf,class_name\none_000003.jpg,10,20,40,60,0.9,car\none_000004.jpg,11,20,41,60,0.2,car\n"
    )
    found = from_detections(path, ImportOptions(video="clips/{name}.mp4", min_score=0.5))
    assert found.report() == ["1 × scores below 0.5 (row 2)"]
    found.write(str(tmp_path / "manifest.csv"))
    (task,) = read_manifest(str(tmp_path / "manifest.csv")).tasks
    (target,) = task.targets
    assert (task.uri, target.category, target.prompts[0].frame) == (str(tmp_path / "clips/one.mp4"), "car", 3)
    assert target.prompts[0].box == (10, 20, 30, 40)


def test_targets_are_found_by_overlap_within_a_category(tmp_path: Path) -> None:
    rows = [
        {"video": "a", "frame": frame, "xywh": [10 + 2 * frame + shift, 10, 30, 30], "label": label, "score": 0.9}
        for frame in range(5)
        for shift, label in ((0, "car"), (100, "car"), (0, "dog"))
    ]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(rows))
    first = from_detections(path).rows
    assert [(row["object_id"], row["frame"], row["category"]) for row in first] == [
        (1, 0, "car"), (2, 0, "car"), (3, 0, "dog")
    ]  # fmt: skip
    assert len(from_detections(path, ImportOptions(keep="all")).rows) == 15


def test_a_box_without_meaning_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"one_0001.jpg": [{"bbox": [0.1, 0.2, 0.5, 0.6]}]}))
    with pytest.raises(ManifestError, match="--box-format"):
        from_detections(path)
    with pytest.raises(ManifestError, match="--size"):
        from_detections(path, box_format="xyxy", normalised=True)
    found = from_detections(path, ImportOptions(size=(100, 10), first_frame=1), box_format="xyxy", normalised=True)
    assert found.rows[0]["box"] == pytest.approx([10, 2, 40, 4])
    assert found.rows[0]["frame"] == 0
    assert "smaller than a pixel" in from_detections(path, box_format="xyxy").report()[0]


def test_text_ids_are_numbered_beside_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text("video,frame,x,y,w,h,track_id\na,0,1,1,9,9,2\na,0,50,1,9,9,left\na,0,90,1,9,9,right\n")
    rows = from_detections(path).rows
    assert [(row["object_id"], row["source_object"]) for row in rows] == [(2, "2"), (1, "left"), (3, "right")]


def table(folder: Path, text: str, name: str = "found.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(tmp_path: Path, delimiter: str) -> None:
    lines = ["\ufeffframe,X1, y1 ,x2,y2,Score,class", "0,10,20,30,40,0.9,кот", ""]
    (row,) = from_detections(table(tmp_path, "\r\n".join(lines).replace(",", delimiter))).rows
    assert (row["box"], row["category"]) == ([10, 20, 20, 20], "кот")


def test_rows_that_cannot_be_read_cost_no_other(tmp_path: Path) -> None:
    """One short row, and nothing was read; frame 6.5 was frame 6."""
    wrong = [
        "0,10,20",
        "1,nan,2,3,4,.5",
        "x,1,2,30,40,.5",
        "2,1,2,30,40,high",
        "-1,1,2,30,40,.5",
        "4,30,40,10,20,.5",
        "6.5,1,2,30,40,",
    ]
    text = "\n".join(["frame,x1,y1,x2,y2,score", *wrong, "5.0,1,2,30,40,", ""])
    found = from_detections(table(tmp_path, text))
    assert [row["frame"] for row in found.rows] == [5]
    assert sum(map(len, found.left_out.values())) == len(wrong)


def test_what_is_no_table_of_boxes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="column 'frame' twice"):
        from_detections(table(tmp_path, "frame,x1,y1,x2,y2,Frame\n0,1,2,30,40,5\n"))
    with pytest.raises(ManifestError, match="no box: there are the columns frame, left"):
        from_detections(table(tmp_path, "frame,left\n0,1\n"))
    with pytest.raises(ManifestError, match="no list of detections"):
        from_detections(table(tmp_path, "[[1, 2, 3, 4]]", "found.json"))


def test_pixels_are_not_taken_for_fractions(tmp_path: Path) -> None:
    path = table(tmp_path, "frame,x1,y1,x2,y2\n0,10,20,50,60\n")
    assert "not in fractions" in from_detections(path, ImportOptions(size=(90, 60)), normalised=True).report()[0]
    path = table(tmp_path, "frame,x1,y1,x2,y2\n0,0.1,0.2,0.5,0.6\n")
    assert "fractions of the frame, perhaps" in from_detections(path).report()[0]


@pytest.mark.parametrize(
    "data",
    [
        {"one_0003.jpg": [{"bbox": [1, 2, 31, 42]}], "one_0004.jpg": []},
        [
            {"image": "one_0003.jpg", "detections": [{"bbox": [1, 2, 31, 42]}]},
            {"image": "one_0004.jpg", "detections": []},
        ],
        {"video": "one", "frames": [{"frame": 3, "objects": [{"box": {"x1": 1, "y1": 2, "x2": 31, "y2": 42}}]}]},
        {"results": [{"file_name": "one_0003.jpg", "Box": {"x": 1, "y": 2, "width": 30, "height": 40}}]},
        [{"video": "one", "frame": 3, "bbox": "[1 2 31 42]"}],
    ],
)
def test_json_of_any_depth(tmp_path: Path, data: Any) -> None:
    found = from_detections(table(tmp_path, json.dumps(data), "found.json"), box_format="xyxy")
    assert [(row["video"], row["frame"], row["box"]) for row in found.rows] == [("one", 3, [1, 2, 30, 40])]
    assert not found.left_out


BOX = {"x1": 10, "y1": 20, "x2": 40, "y2": 60}


@pytest.mark.parametrize(
    "data",
    [
        [{"frame": 3, **BOX, "segmentation": [], "keypoints": []}],
        [{"frame": 3, **BOX, "keypoints": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}],
        [{"frame": 3, "detections": [BOX], "categories": [{"id": 1, "name": "car"}]}],
        [{"frame": 3, "detections": [BOX]}, {"frame": 4, "cameras": [{"id": 1}], "detections": []}],
        [{"frame": 3, "predictions": {"image": {"width": 90, "height": 80}, "predictions": [BOX]}}],
        {"frames": {"3": {"boxes": [BOX]}, "4": {"boxes": []}}},
        {"3.jpg": {"predictions": [BOX]}, "4.jpg": {"predictions": []}},
    ],
)
def test_json_says_by_its_boxes_what_a_detection_is(tmp_path: Path, data: Any) -> None:
    """A detection with an empty list was passed over, and one's key points were read as detections."""
    (tmp_path / "found.json").write_text(json.dumps(data))
    found = from_detections(tmp_path / "found.json")
    assert [(row["frame"], row["box"]) for row in found.rows] == [(3, [10, 20, 30, 40])]
    assert not found.left_out


def test_the_outline_of_roboflows_segmentation_is_no_detection(tmp_path: Path) -> None:
    """Each of its points became a box of the detection's size."""
    outline = [{"x": 40, "y": 35}, {"x": 60, "y": 35}, {"x": 60, "y": 45}]
    prediction = {"x": 50, "y": 40, "width": 20, "height": 10, "class": "cat", "points": outline, "detection_id": "a"}
    (tmp_path / "found.json").write_text(json.dumps({"frame": 3, "predictions": [prediction]}))
    found = from_detections(tmp_path / "found.json")
    assert [(row["frame"], row["box"], row["category"]) for row in found.rows] == [(3, [40, 35, 20, 10], "cat")]


def test_motchallenge_counts_from_one(tmp_path: Path) -> None:
    for name, kind in (("det", "det"), ("gt", "gt")):
        (tmp_path / "MOT-01" / name).mkdir(parents=True)
        lines = f"1,{-1 if kind == 'det' else 4},10.5,20,30,40,1,2,0.8\n2,5,60,20,30,40,0,1,1\n"
        table(tmp_path / "MOT-01" / name, lines, f"{name}.txt")
    table(tmp_path / "MOT-01" / "gt", "person\ncar\n", "labels.txt")
    rows = from_detections(tmp_path / "MOT-01" / "gt" / "gt.txt")
    assert [(row["video"], row["frame"], row["object_id"], row["category"]) for row in rows.rows] == [
        ("MOT-01", 0, 4, "car")
    ]
    assert "not to be considered" in rows.report()[0]
    found = from_detections(tmp_path / "MOT-01" / "det" / "det.txt", ImportOptions(min_score=0.5)).rows
    assert [(row["video"], row["frame"], row["object_id"], row["box"]) for row in found] == [
        ("MOT-01", 0, 1, [10.5, 20, 30, 40])
    ]


IDS_IN_EACH_CLASS = (
    "frame,track_id,class,x1,y1,x2,y2\n"
    "0,1,car,1,1,20,20\n0,1,person,30,10,45,40\n0,-1,person,60,10,75,40\n1,1,car,1,1,20,20\n1,1,person,30,10,45,40\n"
)


def test_ids_that_are_counted_in_each_class_are_told_apart_by_it(tmp_path: Path) -> None:
    """Of car 1 and person 1 on one frame only the car stayed, and the person was called a later annotation."""
    found = from_detections(table(tmp_path, IDS_IN_EACH_CLASS))
    assert [(row["object_id"], row["category"], row["source_object"]) for row in found.rows] == [
        (1, "car", "car 1"),
        (2, "person", "person 1"),
        (3, "person", None),
    ]
    assert found.report() == [
        "2 × later annotations of targets that have their prompt (--prompts all takes them) (row 4, row 5)"
    ]
    (warning,) = found.warnings
    assert warning.startswith("video: ids are taken to be counted in each category, as 1 is 'car' and 'person' on")
    assert len(from_detections(tmp_path / "found.csv", ImportOptions(keep="all")).rows) == 5


@pytest.mark.parametrize("keep", ["first", "all"])
def test_what_a_target_is_besides_its_first_category_is_said(tmp_path: Path, keep: Any) -> None:
    """It was dropped in silence where the first annotation of each is taken."""
    lines = ["frame,track_id,class,x1,y1,x2,y2", "0,1,car,1,1,20,20", "0,1,car,2,1,20,20", "5,1,van,1,1,20,20", ""]
    found = from_detections(table(tmp_path, "\n".join(lines)), ImportOptions(keep=keep))
    assert len(found.rows) == (1 if keep == "first" else 2)
    assert found.warnings == [
        "1 target with several categories, of which the first was taken (video, target 1: 'car' and 'van')"
    ]
    assert "1 × a second annotation of one target on one frame (row 2)" in found.report()


@pytest.mark.parametrize("known", ["predictions", "detection_id"])
def test_roboflows_boxes_go_by_their_middle(tmp_path: Path, known: str) -> None:
    """They were read as corners."""
    found: dict[str, Any] = {"x": 100.0, "y": 50.0, "width": 40.0, "height": 20.0, "class": "car", "confidence": 0.9}
    found |= {"detection_id": "a"} if known == "detection_id" else {}
    data = {"frame": 0, "image": {"width": 640, "height": 480}, "predictions": [found]}
    path = table(tmp_path, json.dumps(data if known == "predictions" else [{"frame": 0, **found}]), "found.json")
    imported = from_detections(path)
    assert [(row["video"], row["box"]) for row in imported.rows] == [("video", [80, 40, 40, 20])]
    assert "--box-format xywh" in imported.warnings[0]
    told = from_detections(path, box_format="xywh")
    assert (told.rows[0]["box"], told.warnings) == ([100, 50, 40, 20], [])


def test_an_image_beside_a_frame_says_the_video(tmp_path: Path) -> None:
    """Each image was a video of its own."""
    lines = ["one_000123.jpg,3", "one_000124.jpg,4", "front/7.png,7", "00007.png,7", "clip_2.mp4,7", "cover.png,7"]
    text = "\n".join(["image,frame,x1,y1,x2,y2", *(f"{line},1,1,20,20" for line in lines), ""])
    rows = from_detections(table(tmp_path, text), ImportOptions(keep="all")).rows
    assert [(row["video"], row["frame"], row["object_id"]) for row in rows] == [
        ("one", 3, 1),
        ("one", 4, 1),
        ("front", 7, 1),
        ("video", 7, 1),
        ("clip_2.mp4", 7, 1),
        ("cover.png", 7, 1),
    ]


@pytest.mark.parametrize(
    "line",
    ["1 3 10 10 20 20 0.9 -1 -1 -1", "1\t3\t1e1\t10.\t20\t20", " 1, 3, 10.0, 10, 20, 20", "1,3,10,10,20,+20,1,-1,.5"],
)
def test_motchallenge_however_it_is_written(tmp_path: Path, line: str) -> None:
    """Between spaces it was a header, and there were no rows and no reason."""
    rows = from_detections(
        table(tmp_path, f"{line}\n\n{line.replace('1', '2', 1)}\n", "one.txt"), ImportOptions(keep="all")
    ).rows
    assert [(row["video"], row["frame"], row["object_id"], row["box"]) for row in rows] == [
        ("one", frame, 3, [10, 10, 20, 20]) for frame in (0, 1)
    ]


def test_long_numbers_before_a_word_are_no_motchallenge_and_are_seen_at_once(tmp_path: Path) -> None:
    """That a row has a word at its end was found only after every way of dividing its digits had been tried."""
    path = tmp_path / "found.csv"
    path.write_text(",".join(["1700000000000"] * 12) + ",person\n")
    assert not is_mot(path)
    path.write_text("+1. .5 -2e+3 4.25 5 6\n")
    assert is_mot(path)
