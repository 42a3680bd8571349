import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers import ImportOptions, from_fiftyone
from rts_batch.masks import decode_rle


def detection(mask: Any = None, **others: Any) -> dict[str, Any]:
    box = {"top_left": {"x": 20 / 90, "y": 10 / 60}, "bottom_right": {"x": 50 / 90, "y": 30 / 60}}
    return {"label": "кот", "index": 3, "bounding_box": box, "mask": mask, **others}


def folder_of(folder: Path, *objects: dict[str, Any], **others: Any) -> Path:
    index = [{"data": "data/кот 1.mp4", "labels": "labels/кот 1.json"}]
    (folder / "labels").mkdir()
    (folder / "manifest.json").write_text(json.dumps({"index": index}))
    labels = {"frames": {"3": {"frame_number": 3, "objects": {"objects": list(objects)}}}, **others}
    (folder / "labels" / "кот 1.json").write_text(json.dumps(labels))
    return folder


def test_masks_as_lists_of_truth_values(tmp_path: Path) -> None:
    """As FiftyOne 1.22 writes them; they were refused, and all of the folder with them."""
    part = np.ones((20, 30), bool)
    part[:, :3] = False
    (row,) = from_fiftyone(folder_of(tmp_path, detection(part.tolist()))).rows
    assert (row["video"], row["frame"], row["object_id"], row["category"]) == (
        str(tmp_path / "data" / "кот 1.mp4"), 2, 3, "кот"
    )  # fmt: skip
    mask = decode_rle(row["mask"]["counts"].encode(), *row["mask"]["size"])
    assert mask.shape == (60, 90)
    assert np.array_equal(mask[10:30, 20:50], part)
    assert mask.sum() == part.sum()


def test_closed_lines_are_masks(tmp_path: Path) -> None:
    """FiftyOne's `Polylines`, of which nothing was said."""
    ring = [[20 / 90, 10 / 60], [50 / 90, 10 / 60], [50 / 90, 30 / 60], [20 / 90, 30 / 60]]
    hole = [[0.0, 0.0], [5 / 90, 0.0], [5 / 90, 5 / 60], [0.0, 5 / 60]]
    line = {"label": "кот", "index": 3, "points": [ring, hole], "closed": True, "filled": True}
    frames = {"3": {"polylines": {"polylines": [line, {**line, "closed": False, "filled": False}]},
                    "keypoints": {"keypoints": [{"points": [[0.5, 0.5]]}]}}}  # fmt: skip
    found = from_fiftyone(folder_of(tmp_path, frames=frames, metadata={"frame_size": [90, 60]}))
    ((row,), reasons) = found.rows, sorted(found.left_out)
    mask = decode_rle(row["mask"]["counts"].encode(), *row["mask"]["size"])
    assert (row["frame"], row["object_id"], int(mask.sum())) == (2, 3, 30 * 20 + 5 * 5)
    assert reasons == ["key points", "objects that cannot be read: a line that is not closed"]


def test_objects_that_cannot_be_read_cost_no_other(tmp_path: Path) -> None:
    wrong = [
        detection(bounding_box={}),
        detection(bounding_box=None),
        detection([1, 2]),
        detection("no array"),
        detection([[True], [True, False]]),
    ]
    found = from_fiftyone(folder_of(tmp_path, *wrong, detection()), ImportOptions(size=(90, 60)))
    assert [row["box"] for row in found.rows] == [pytest.approx([20, 10, 30, 20])]
    assert sum(map(len, found.left_out.values())) == len(wrong)


def test_boxes_need_a_size(tmp_path: Path) -> None:
    found = from_fiftyone(folder_of(tmp_path, detection()))
    assert not found.rows
    assert "--size" in found.report()[0]


def test_another_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ManifestError, match="no FiftyOneVideoLabelsDataset"):
        from_fiftyone(tmp_path)
