import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers import ImportOptions, from_masks
from rts_batch.masks import decode_rle


def save(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


def test_youtube_vos_counts_the_images_of_the_video(tmp_path: Path) -> None:
    labels = np.zeros((10, 12))
    labels[2:5, 3:6], labels[7:, 7:], labels[0] = 1, 2, 255
    for number in range(0, 30, 5):
        save(tmp_path / "JPEGImages" / "a1" / f"{number:05d}.jpg", labels)
    save(tmp_path / "Annotations" / "a1" / "00010.png", labels)
    objects = {"1": {"category": "cat", "frames": ["00010"]}, "2": {"category": "dog", "frames": ["00010"]}}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {"a1": {"objects": objects}}}))
    rows = from_masks(tmp_path).rows
    assert [(row["object_id"], row["frame"], row["category"]) for row in rows] == [(1, 2, "cat"), (2, 2, "dog")]
    assert {row["video"] for row in rows} == {str(tmp_path / "JPEGImages" / "a1")}
    assert np.array_equal(decode_rle(rows[1]["mask"]["counts"].encode(), 10, 12), labels == 2)


def test_a_folder_for_each_target(tmp_path: Path) -> None:
    for object_id in (1, 3):
        mask = np.zeros((10, 12))
        mask[object_id : object_id + 2, 4:8] = 255
        save(tmp_path / "one" / str(object_id) / "0001.png", mask)
    found = from_masks(tmp_path, ImportOptions(first_frame=1, video="{name}.mp4"))
    assert [(row["video"], row["object_id"], row["frame"]) for row in found.rows] == [
        ("one.mp4", 1, 0),
        ("one.mp4", 3, 0),
    ]


def test_white_on_black_is_one_target(tmp_path: Path) -> None:
    mask = np.zeros((10, 12))
    mask[2:4, 4:8] = 255
    save(tmp_path / "one" / "mask_000007.png", mask)
    (row,) = from_masks(tmp_path).rows
    assert (row["video_id"], row["object_id"], row["frame"]) == ("one", 1, 7)


def test_a_folder_without_masks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no folders of PNG masks"):
        from_masks(tmp_path)
