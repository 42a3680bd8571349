import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rts_batch.manifest.importers import ImportOptions, from_coco, from_cvat, from_label_studio, from_yolo

POLYGON = [[160, 160, 320, 160, 320, 320, 160, 320]]


def resized(folder: Path, **annotation: Any) -> Path:
    """COCO of a picture of 640×640, as Roboflow makes them of frames of any size."""
    image = {"id": 1, "file_name": "clip_mp4-0012_jpg.rf.abcdef.jpg", "width": 640, "height": 640}
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, **annotation}]
    path = folder / "a.json"
    path.write_text(json.dumps({"images": [image], "categories": [], "annotations": annotations}))
    return path


def test_boxes_of_pictures_whose_size_the_file_says_are_warned_of(tmp_path: Path) -> None:
    """A box of 640×640 was one of the video's 1920×1080 without a word."""
    path = resized(tmp_path, bbox=[320, 320, 64, 64])
    found = from_coco(path)
    assert [row["box"] for row in found.rows] == [[320, 320, 64, 64]]
    (warning,) = found.warnings
    assert "pictures of 640×640; if" in warning
    assert "--size" in warning
    assert not from_coco(resized(tmp_path, segmentation=POLYGON)).warnings


def test_what_was_drawn_on_resized_pictures_is_scaled_to_the_size_that_is_given(tmp_path: Path) -> None:
    options = ImportOptions(size=(1920, 1080))
    found = from_coco(resized(tmp_path, bbox=[320, 320, 64, 64]), options)
    assert found.rows[0]["box"] == pytest.approx([960, 540, 192, 108])
    assert not found.warnings
    for polygon in (POLYGON, POLYGON[0], [[160, 160], [320, 160], [320, 320], [160, 320]]):
        (row,) = from_coco(resized(tmp_path, segmentation=polygon), options).rows
        whole = resized(tmp_path, segmentation=[[480, 270, 960, 270, 960, 540, 480, 540]])
        whole.write_text(whole.read_text().replace('"width": 640, "height": 640', '"width": 1920, "height": 1080'))
        assert row["mask"] == from_coco(whole).rows[0]["mask"]
    rle = {"size": [640, 640], "counts": [10, 20, 640 * 640 - 30]}
    assert "not scaled" in from_coco(resized(tmp_path, segmentation=rle, bbox=[0, 0, 9, 9]), options).report()[0]


def test_sizes_of_images_beside_labels_are_said(tmp_path: Path) -> None:
    for side in (64, 32):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / f"one_{side}.jpg")
        (tmp_path / f"one_{side}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (warning,) = from_yolo(tmp_path).warnings
    assert "pictures of 32×32, 64×64; if" in warning
    assert not from_yolo(tmp_path, ImportOptions(size=(64, 64))).warnings


def drawn_in_label_studio(folder: Path, kind: str, value: dict[str, Any]) -> Path:
    """A region of a picture of 640×640, in percent of it."""
    region = {"id": "r", "type": kind, "value": value, "original_width": 640, "original_height": 640}
    task = {"data": {"image": "frames/clip/0012.jpg"}, "annotations": [{"result": [region]}]}
    path = folder / "project.json"
    path.write_text(json.dumps([task]))
    return path


def test_percent_of_resized_pictures_are_percent_of_the_frames_whose_size_is_given(tmp_path: Path) -> None:
    """A box of 640×640 was one of the video's 1920×1080 without a word, and with --size as well."""
    options = ImportOptions(size=(1920, 1080))
    path = drawn_in_label_studio(tmp_path, "rectanglelabels", {"x": 50, "y": 50, "width": 10, "height": 10})
    found = from_label_studio(path)
    assert [row["box"] for row in found.rows] == [[320, 320, 64, 64]]
    (warning,) = found.warnings
    assert "pictures of 640×640; if" in warning
    found = from_label_studio(path, options)
    assert (found.rows[0]["box"], found.warnings) == ([960, 540, 192, 108], [])
    path = drawn_in_label_studio(tmp_path, "polygonlabels", {"points": [[25, 25], [50, 25], [50, 50], [25, 50]]})
    assert [row["mask"]["size"] for row in from_label_studio(path).rows] == [[640, 640]]
    (row,) = from_label_studio(path, options).rows
    assert row["mask"] == from_coco(resized(tmp_path, segmentation=POLYGON), options).rows[0]["mask"]
    path = drawn_in_label_studio(tmp_path, "brushlabels", {"rle": [0] * 9})
    assert "a brush is not scaled to --size" in from_label_studio(path, options).report()[0]


def test_a_time_line_in_percent_is_of_the_frames_whose_size_is_given(tmp_path: Path) -> None:
    value = {"sequence": [{"frame": 1, "x": 50, "y": 50, "width": 10, "height": 10}]}
    path = drawn_in_label_studio(tmp_path, "videorectangle", value)
    assert from_label_studio(path, ImportOptions(size=(1920, 1080))).rows[0]["box"] == [960, 540, 192, 108]


def test_what_cvat_has_on_resized_pictures_is_scaled_as_well(tmp_path: Path) -> None:
    def drawn(shape: str, name: str = "clip/0012.jpg") -> Path:
        path = tmp_path / "a.xml"
        image = f'<image id="0" name="{name}" width="640" height="640">{shape}</image>'
        path.write_text(f"<annotations>{image}</annotations>")
        return path

    options = ImportOptions(size=(1920, 1080))
    box = '<box label="cat" xtl="320" ytl="320" xbr="384" ybr="384"/>'
    found = from_cvat(drawn(box))
    assert [row["box"] for row in found.rows] == [[320, 320, 64, 64]]
    assert "pictures of 640×640; if" in found.warnings[0]
    assert not from_cvat(drawn(box, "frame_000012")).warnings, "a frame of the task's own video"
    found = from_cvat(drawn(box), options)
    assert (found.rows[0]["box"], found.warnings) == ([960, 540, 192, 108], [])
    (row,) = from_cvat(drawn('<polygon label="cat" points="160,160;320,160;320,320;160,320"/>'), options).rows
    assert row["mask"] == from_coco(resized(tmp_path, segmentation=POLYGON), options).rows[0]["mask"]
    mask = '<mask label="cat" rle="0, 4" left="1" top="1" width="2" height="2"/>'
    assert "a mask is not scaled to --size" in from_cvat(drawn(mask), options).report()[0]
