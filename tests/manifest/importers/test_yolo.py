from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rts_batch.manifest.importers import ImportOptions, from_yolo


def test_boxes_of_images_beside_their_labels(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [car, dog]\n")
    for folder in ("images", "labels"):
        (tmp_path / folder / "train").mkdir(parents=True)
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(tmp_path / "images" / "train" / "one_000003.jpg")
    (tmp_path / "labels" / "train" / "one_000003.txt").write_text("1 0.5 0.5 0.2 0.4 0.9\n0 0.1 0.1 2 0.1\n0 1 2\n")
    (tmp_path / "labels" / "train" / "two_000003.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    found = from_yolo(tmp_path / "data.yaml")
    (row,) = found.rows
    assert (row["video"], row["frame"], row["category"]) == ("one", 3, "dog")
    assert row["box"] == pytest.approx([40, 15, 20, 20])
    assert len(found.left_out) == 3
    assert any("--size" in line for line in found.report())


def test_a_folder_of_labels_has_numbers_for_classes(tmp_path: Path) -> None:
    (tmp_path / "one_7.txt").write_text("2 0.5 0.5 0.2 0.4 0.9\n")
    (row,) = from_yolo(tmp_path, ImportOptions(size=(100, 50))).rows
    assert (row["video"], row["frame"], row["category"]) == ("one", 7, "2")
    assert not from_yolo(tmp_path, ImportOptions(size=(100, 50), min_score=0.95)).rows
