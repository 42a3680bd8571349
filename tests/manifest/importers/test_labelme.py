import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers import ImportOptions, from_labelme
from rts_batch.masks import decode_rle

SQUARE = [[20, 10], [50, 10], [50, 30], [20, 30]]


def shape(points: Any = SQUARE, kind: str | None = "polygon", **others: Any) -> dict[str, Any]:
    return {"label": "кот", "points": points, "group_id": None, "shape_type": kind, "flags": {}, **others}


def picture(path: Path, *shapes: dict[str, Any], image: bool = False, **others: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"version": "5.5.0", "shapes": list(shapes), "imagePath": f"{path.stem}.jpg", "imageData": None}
    path.write_text(json.dumps({**data, "imageHeight": 60, "imageWidth": 90, **others}), encoding="utf-8")
    if image:
        Image.new("RGB", (90, 60)).save(path.with_suffix(".jpg"))
    return path


def area(row: dict[str, Any]) -> int:
    return int(decode_rle(row["mask"]["counts"].encode(), *row["mask"]["size"]).sum())


def test_shapes_of_every_kind(tmp_path: Path) -> None:
    png = base64.b64encode(cv2.imencode(".png", np.array([[0, 1], [1, 1]], np.uint8))[1].tobytes()).decode()
    shapes = [
        shape(),
        shape(kind=None),  # as versions before 3.4 wrote polygons
        shape([[50, 30], [20, 10]], "rectangle"),
        shape(SQUARE, "rectangle"),  # X-AnyLabeling gives all four corners
        shape([[40, 30], [40, 40]], "circle"),
        shape([[88, 58], [89, 59]], "mask", mask=png),
        shape([[1, 1], [9, 9]], "line"),
    ]
    found = from_labelme(picture(tmp_path / "one_7.json", *[{**s, "group_id": n} for n, s in enumerate(shapes, 1)]))
    rows = {row["object_id"]: row for row in found.rows}
    assert {(row["video"], row["frame"], row["category"]) for row in found.rows} == {("one", 7, "кот")}
    assert [area(rows[number]) for number in (1, 2, 6)] == [600, 600, 3]
    assert rows[3]["box"] == rows[4]["box"] == [20, 10, 30, 20]
    assert area(rows[5]) == pytest.approx(np.pi * 100, rel=0.03)
    assert list(found.left_out) == ["shapes of the kind line"]


def test_the_parts_of_a_group_are_one_mask(tmp_path: Path) -> None:
    """What passes before a target cuts it in two; a box around both parts is no target of its own."""
    beside = [[x + 35, y] for x, y in SQUARE]
    shapes = [
        shape(group_id=4), shape(beside, group_id=4), shape([[20, 10], [85, 30]], "rectangle", group_id=4)
    ]  # fmt: skip
    other = shape(label="dog", group_id=4, points=[[0, 0], [5, 0], [5, 5]])
    picture(tmp_path / "000001.json", *shapes[::-1])
    picture(tmp_path / "000002.json", *shapes, other)
    rows = from_labelme(tmp_path, ImportOptions(keep="all")).rows
    assert [(row["frame"], row["category"], area(row)) for row in rows][:2] == [(1, "кот", 1200), (2, "кот", 1200)]
    assert [row["category"] for row in rows[2:]] == ["dog"]


@pytest.mark.parametrize("group", [None, "", -1])
def test_shapes_without_a_group_are_targets_of_their_own(tmp_path: Path, group: Any) -> None:
    beside = [[x + 35, y] for x, y in SQUARE]
    found = from_labelme(picture(tmp_path / "000001.json", shape(group_id=group), shape(beside, group_id=group)))
    assert [(row["object_id"], area(row)) for row in found.rows] == [(1, 600), (2, 600)]


def test_numbered_pictures_beside_the_files_are_the_video(tmp_path: Path) -> None:
    """Every tenth frame was kept: that of 000020 is the third picture, unless the video is elsewhere."""
    for number in (0, 10, 20):
        picture(tmp_path / "one" / f"{number:06d}.json", *([shape()] if number else []), image=True)
    (row,) = from_labelme(tmp_path).rows
    assert (row["video"], row["video_id"], row["frame"]) == (str(tmp_path / "one"), "one", 1)
    (row,) = from_labelme(tmp_path / "one", ImportOptions(video="clips/{name}.mp4")).rows
    assert (row["video"], row["frame"]) == ("clips/one.mp4", 10)


def test_shapes_are_scaled_to_the_frames_and_boxes_warned_of(tmp_path: Path) -> None:
    path = picture(tmp_path / "one_7.json", shape([[20, 10], [50, 30]], "rectangle"), shape(group_id=5))
    found = from_labelme(path)
    assert any("90×60" in warning for warning in found.warnings)
    found = from_labelme(path, ImportOptions(size=(180, 120)))
    assert not found.warnings
    boxed, masked = sorted(found.rows, key=lambda row: row["object_id"])
    assert boxed["box"] == [40, 20, 60, 40]
    assert (masked["mask"]["size"], area(masked)) == ([120, 180], 2400)


def test_what_cannot_be_read_costs_no_other_and_is_named(tmp_path: Path) -> None:
    wrong = [
        shape([[1, 2, 3]]),
        shape([[1, 2]]),
        shape([["a", 2]] * 3),
        shape([[float("nan"), 2]] * 3),
        shape([[1, 2]], "circle"),
        shape([[1, 1], [2, 2]], "mask"),
        shape([[1, 1], [2, 2]], "mask", mask="no picture"),
        {"label": "кот"},
        shape(score="high"),
    ]
    picture(tmp_path / "one_7.json", *wrong, shape(score=0.9), shape(score=0.1, group_id=9))
    (tmp_path / "other.json").write_text("[]")
    found = from_labelme(tmp_path, ImportOptions(min_score=0.5))
    assert [area(row) for row in found.rows] == [600]
    assert found.left_out.pop("JSON files that are none of LabelMe") == ["other.json"]
    assert found.left_out.pop("scores below 0.5") == ["one_7.json, shape 10"]
    places = sorted(place for places in found.left_out.values() for place in places)
    assert places == [f"one_7.json, shape {number}" for number in range(len(wrong))]


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no JSON files of LabelMe"):
        from_labelme(tmp_path)
