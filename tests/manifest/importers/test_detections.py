import json
from pathlib import Path

import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest import read_manifest
from rts_batch.manifest.importers import ImportOptions, from_detections


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
