import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers import ImportOptions, from_label_studio
from rts_batch.manifest.importers.label_studio import brush_values


def export(folder: Path, *results: dict[str, Any], data: dict[str, str]) -> Path:
    path = folder / "project.json"
    path.write_text(json.dumps([{"id": 1, "data": data, "annotations": [{"result": list(results)}]}]))
    return path


def test_a_time_line_counts_from_one_and_only_what_was_drawn(tmp_path: Path) -> None:
    drawn = [
        {"frame": frame, "enabled": True, "x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0}
        for frame in (1, 31)
    ]
    result = {
        "id": "a1b2",
        "type": "videorectangle",
        "to_name": "video",
        "from_name": "box",
        "value": {"framesCount": 60, "sequence": drawn, "labels": ["car"]},
    }
    path = export(tmp_path, result, data={"video": "/data/upload/3/1a2b3c4d-one.mp4"})
    options = ImportOptions(video="clips/{name}", keep="all", size=(200, 100))
    rows = from_label_studio(path, options).rows
    assert [(row["video"], row["frame"], row["box"], row["category"]) for row in rows] == [
        ("clips/1a2b3c4d-one.mp4", 0, [20, 20, 100, 25], "car"),
        ("clips/1a2b3c4d-one.mp4", 30, [20, 20, 100, 25], "car"),
    ]
    assert {row["object_id"] for row in rows} == {1}
    assert {row["source_object"] for row in rows} == {"a1b2"}
    without = from_label_studio(path)
    assert not without.rows
    assert "--size" in without.report()[0]
    with pytest.raises(ManifestError, match="nothing was imported"):
        without.write(str(tmp_path / "manifest.csv"))


def test_the_rate_at_which_time_lines_count_is_said(tmp_path: Path) -> None:
    """Label Studio counts 24 frames a second, unless its configuration says otherwise, whatever the video has."""
    lines = [
        {
            "id": f"a{count}",
            "type": "videorectangle",
            "value": {
                "framesCount": count,
                "duration": 21.37,
                "sequence": [{"frame": 395, "enabled": True, "x": 10, "y": 20, "width": 50, "height": 25}],
            },
        }
        for count in (535, 534, 641)
    ]
    found = from_label_studio(export(tmp_path, *lines, data={"video": "one.mp4"}), ImportOptions(size=(200, 100)))
    rates = [warning.split(" frames a second")[0] for warning in found.warnings]
    assert rates == ["a time line counts 25", "a time line counts 30"]
    del lines[0]["value"]["duration"]
    path = export(tmp_path, lines[0], data={"video": "one.mp4"})
    assert not from_label_studio(path, ImportOptions(size=(200, 100))).warnings


def test_regions_of_an_image(tmp_path: Path) -> None:
    common = {"original_width": 20, "original_height": 10}
    triangle = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["cat"]}
    box = {"x": 50, "y": 0, "width": 50, "height": 100, "rotation": 0, "rectanglelabels": ["dog"]}
    path = export(
        tmp_path,
        {"id": "p", "type": "polygonlabels", "to_name": "image", "value": triangle, **common},
        {"id": "b", "type": "rectanglelabels", "to_name": "image", "value": box, **common},
        {"id": "k", "type": "keypointlabels", "to_name": "image", "value": {"x": 1, "y": 1}, **common},
        data={"image": "/data/local-files/?d=frames/one/000007.jpg"},
    )
    found = from_label_studio(path)
    assert [(row["video"], row["frame"], row["category"]) for row in found.rows] == [
        ("one", 7, "cat"),
        ("one", 7, "dog"),
    ]
    assert found.rows[1]["box"] == [10, 0, 10, 10]
    assert found.report() == ["1 × regions of the kind keypointlabels (task 1, region k)"]


def test_uploaded_frames_are_of_one_video(tmp_path: Path) -> None:
    """Each upload got digits of its own, and so each frame became a video."""
    box = {"x": 50, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["dog"]}
    region = {"id": "b", "type": "rectanglelabels", "value": box, "original_width": 20, "original_height": 10}
    tasks = [
        {"data": {"image": f"/data/upload/3/{digits}-one_{frame:04d}.jpg"}, "annotations": [{"result": [region]}]}
        for frame, digits in ((7, "1a2b3c4d"), (8, "99aabbcc"))
    ]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    rows = from_label_studio(tmp_path / "project.json", ImportOptions(keep="all")).rows
    assert [(row["video"], row["object_id"], row["frame"]) for row in rows] == [("one", 1, 7), ("one", 1, 8)]


def test_where_a_time_line_ends_the_target_is_absent(tmp_path: Path) -> None:
    drawn = [
        {"frame": frame, "enabled": enabled, "x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0}
        for frame, enabled in ((50, True), (1, True), (25, False), (100, False))
    ]
    drawn.append({"frame": 7, "enabled": True, "x": None})
    value = {"framesCount": 100, "sequence": drawn, "labels": ["car"]}
    path = export(
        tmp_path, {"id": "a", "type": "videorectangle", "to_name": "video", "value": value}, data={"video": "one.mp4"}
    )
    found = from_label_studio(path, ImportOptions(keep="all", size=(200, 100)))
    assert [(row["frame"], row["prompt_kind"]) for row in found.rows] == [
        (0, "correct"),
        (24, "correct"),
        (25, "absent"),
        (49, "correct"),
        (99, "correct"),
    ]
    assert sum(map(len, found.left_out.values())) == 1
    value["sequence"] = []
    assert not from_label_studio(
        export(tmp_path, {"id": "a", "type": "videorectangle", "value": value}, data={"v": "a"})
    ).rows


def test_regions_that_cannot_be_read_cost_no_other(tmp_path: Path) -> None:
    """One relation between two regions, and nothing was read."""
    common = {"type": "rectanglelabels", "to_name": "image", "original_width": 20, "original_height": 10}
    box = {"x": 50, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["dog"]}
    path = export(
        tmp_path,
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        {"id": "n", **common, "value": {**box, "x": None}},
        {"id": "t", **common, "image_rotation": 90, "value": box},
        {"id": "s", "type": "rectanglelabels", "value": box},
        {"id": "r", **common, "type": "brushlabels", "value": {"rle": [1, 2], "brushlabels": ["dog"]}},
        {"id": "b", **common, "value": box},
        data={"image": "/data/local-files/?d=кадры/one/frame_0007.jpg"},
    )
    found = from_label_studio(path)
    assert [(row["video"], row["frame"], row["box"]) for row in found.rows] == [("one", 7, [10, 0, 10, 10])]
    assert sum(map(len, found.left_out.values())) == 5
    old = json.loads(path.read_text())
    old[0]["completions"] = old[0].pop("annotations")
    path.write_text(json.dumps(old))
    assert len(from_label_studio(path).rows) == 1


def bits(*fields: tuple[int, int]) -> bytes:
    """Values with their numbers of bits, packed as Label Studio's brush does."""
    text = "".join(f"{value:0{count}b}" for value, count in fields)
    return int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big")


def test_a_brush_has_runs_and_single_values() -> None:
    head = [(10, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4)]
    code = bits(*head, (1, 1), (0, 2), (5, 3), (255, 8), (0, 1), (1, 2), (3, 4), (1, 8), (2, 8), (3, 8), (4, 8))
    assert np.array_equal(brush_values(code, 10), [255] * 6 + [1, 2, 3, 4])
    with pytest.raises(ValueError, match="breaks off"):
        brush_values(code[:-2], 10)
    with pytest.raises(ValueError, match="10 values where"):
        brush_values(code, 12)


def test_videos_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    """What was drawn on both was the targets of one."""
    box = {"x": 50, "y": 0, "width": 50, "height": 100}
    line = {"id": "a", "type": "videorectangle", "value": {"sequence": [{"frame": 3, **box}], "labels": ["car"]}}
    region = {"id": "b", "type": "rectanglelabels", "value": {**box, "rectanglelabels": ["car"]}}
    drawn = [(f"/data/local-files/?d=cam{cam}/clip.mp4", line) for cam in "AB"]
    drawn += [(f"s3://bucket/cam{cam}/front/0003.jpg", region) for cam in "AB"]
    drawn += [("s3://bucket/camA/other/0003.jpg", region), ("/data/local-files/?d=camA/whole.mp4", line)]
    tasks = [{"data": {"image": uri}, "annotations": [{"result": [result]}]} for uri, result in drawn]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    found = from_label_studio(tmp_path / "project.json", ImportOptions(video="clips/{name}", size=(20, 10)))
    assert [(row["video"], row["video_id"], row["object_id"], row["frame"]) for row in found.rows] == [
        ("clips/camA/clip.mp4", "camA/clip.mp4", 1, 2),
        ("clips/camB/clip.mp4", "camB/clip.mp4", 1, 2),
        ("clips/camA/front", "camA/front", 1, 3),
        ("clips/camB/front", "camB/front", 1, 3),
        ("clips/other", "other", 1, 3),
        ("clips/whole.mp4", "whole.mp4", 1, 2),
    ]
    assert not found.warnings


def test_uploads_of_one_name_are_warned_of(tmp_path: Path) -> None:
    box = {"x": 50, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["dog"]}
    region = {"id": "b", "type": "rectanglelabels", "value": box, "original_width": 20, "original_height": 10}
    uris = [f"/data/upload/3/{digits}-0003.jpg" for digits in ("1a2b3c4d", "99aabbcc")]
    tasks = [{"data": {"image": uri}, "annotations": [{"result": [region]}]} for uri in uris]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    (warning,) = from_label_studio(tmp_path / "project.json", ImportOptions(size=(20, 10))).warnings
    assert warning.startswith(f"1 frame with several images, the first {uris[0]} and {uris[1]};")
