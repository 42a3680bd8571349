import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from rts_batch.errors import ManifestError
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
