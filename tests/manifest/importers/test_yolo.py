from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from rts_batch.manifest.importers import ImportOptions, from_yolo
from rts_batch.masks import decode_rle


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


def data_set(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(path.name.replace("_txt", ".txt").replace("_yaml", ".yaml"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return folder


BOX = "1 0.5 0.5 0.2 0.4\r\n"
SIZE = ImportOptions(size=(100, 50), keep="all")


@pytest.mark.parametrize(
    "files",
    [
        {"data_yaml": "\ufeffnames: [car, dög]\r\n", "labels__one_3_txt": "\ufeff" + BOX},
        {"data_yaml": "names: {0: car, 1: dög}\n", "train__labels__one_3_txt": BOX, "README_txt": "of this\n"},
        {"coco8_yaml": "path: .\nnames:\n  0: car\n  1: dög\n", "labels__val__one_3_txt": BOX},
        {"classes_txt": "car\ndög\n", "one_3_txt": BOX},
        {"obj.names": "car\ndög\n", "train_txt": "data/one_3.jpg\n", "obj_train_data__one_3_txt": BOX},
        {"data_yaml": "path: elsewhere\nnames: [car, dög]\n", "elsewhere__labels__one_3_txt": BOX},
    ],
)
def test_layouts(tmp_path: Path, files: dict[str, str]) -> None:
    found = from_yolo(data_set(tmp_path, **files), SIZE)
    assert [(row["video"], row["frame"], row["category"]) for row in found.rows] == [("one", 3, "dög")]
    assert found.rows[0]["box"] == pytest.approx([40, 15, 20, 20])
    assert not found.left_out


def test_numbers_of_a_tracker_are_targets(tmp_path: Path) -> None:
    """A box with a score and the number 1 was a triangle."""
    lines = "0 0.5 0.5 0.2 0.4 0.9 {}\n0 0.2 0.2 0.1 0.2 0.8 1\n"
    folder = data_set(tmp_path, labels__one_1_txt=lines.format(7), labels__one_9_txt=lines.format(4))
    rows = from_yolo(folder, SIZE).rows
    assert [(row["object_id"], row["frame"]) for row in rows] == [(7, 1), (1, 1), (4, 9), (1, 9)]
    assert all(row["mask"] is None for row in rows)


def test_whole_scores_are_no_numbers_of_targets(tmp_path: Path) -> None:
    folder = data_set(tmp_path, labels__one_1_txt="0 0.5 0.5 0.2 0.4 1\n0 0.2 0.2 0.1 0.2 1\n")
    assert [row["object_id"] for row in from_yolo(folder, SIZE).rows] == [1, 2]


def test_of_key_points_the_box_is_taken(tmp_path: Path) -> None:
    folder = data_set(
        tmp_path,
        data_yaml="names: [car]\nkpt_shape: [2, 3]\n",
        labels__one_1_txt="0 0.5 0.5 0.2 0.4 0.5 0.5 1 0.6 0.5 2\n",
    )
    (row,) = from_yolo(folder, SIZE).rows
    assert row["box"] == pytest.approx([40, 15, 20, 20])


def test_lines_that_are_none_cost_no_other(tmp_path: Path) -> None:
    text = (
        "x 1 2 3 4\n0\n0.5 0.5 0.5 0.2 0.2\n0 nan 0.5 0.2 0.2\n0 40 30 20 20\n0 0.5 0.5 0 0.2\n\n1.0 0.5 0.5 0.2 0.4\n"
    )
    found = from_yolo(data_set(tmp_path, labels__one_1_txt=text), SIZE)
    assert [row["category"] for row in found.rows] == ["1"]
    assert sum(map(len, found.left_out.values())) == 6


def test_a_size_that_is_given_is_the_frames(tmp_path: Path) -> None:
    """Pictures that were resized for training gave boxes in their own pixels, whatever --size said."""
    folder = data_set(tmp_path, data_yaml="names: [car]\n", labels__one_3_txt="0 0.5 0.25 0.2 0.1\n")
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "images" / "one_3.jpg")
    (row,) = from_yolo(folder, ImportOptions(size=(1920, 1080))).rows
    assert row["box"] == pytest.approx([768, 216, 384, 108])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_have_the_size_that_they_are_shown_in(tmp_path: Path, orientation: int) -> None:
    folder = data_set(tmp_path, data_yaml="names: [car]\n", labels__one_3_txt="0 0.5 0.25 0.2 0.1\n")
    (folder / "images").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.zeros((480, 640), np.uint8)).save(folder / "images" / "one_3.jpg", exif=exif.tobytes())
    (row,) = from_yolo(folder).rows
    assert row["box"] == pytest.approx([192, 128, 96, 64] if orientation > 4 else [256, 96, 128, 48])


@pytest.mark.parametrize("line", ["0 0.1 0.1 0.9 0.1 0.9 1", "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 1"])
def test_a_polygon_that_ends_at_the_pictures_edge_is_no_targets_line(tmp_path: Path, line: str) -> None:
    """The triangle was a box that began left of the picture."""
    (row,) = from_yolo(data_set(tmp_path, labels__one_3_txt=line), SIZE).rows
    assert row["mask"] is not None
    assert decode_rle(row["mask"]["counts"].encode(), 50, 100)[-2:].any()


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.2 0.4 0.9 1", "0 0.9 0.5 0.2 0.4 1", "0 0.9 0.5 0.2 0.4 1 1"])
def test_a_single_target_of_a_tracker_is_one(tmp_path: Path, line: str) -> None:
    folder = data_set(tmp_path, labels__one_3_txt=line, labels__one_4_txt=line)
    rows = from_yolo(folder, SIZE).rows
    assert [(row["object_id"], row["frame"], row["mask"]) for row in rows] == [(1, 3, None), (1, 4, None)]


@pytest.mark.parametrize("below", ["labels", "train/labels", "labels/train"])
def test_a_folder_of_labels_finds_images_and_names(tmp_path: Path, below: str) -> None:
    folder = data_set(tmp_path, data_yaml="names: [car, dög]\n", **{f"{below}/one_3_txt": BOX})
    images = folder / below.replace("labels", "images")
    images.mkdir(parents=True)
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(images / "one_3.jpg")
    (row,) = from_yolo(folder / below).rows
    assert row["box"] == pytest.approx([40, 15, 20, 20])
    assert (row["video"], row["category"]) == ("one", "dög")


def pose(rng: np.random.Generator, *, tail: str) -> str:
    """A line of a pose prediction: seventeen points in a box, some not seen, each with how sure it is."""
    middle, half = rng.uniform(0.3, 0.7, 2), rng.uniform(0.05, 0.25, 2)
    points = np.concatenate([middle + half * rng.uniform(-0.9, 0.9, (17, 2)), rng.uniform(0.2, 1, (17, 1))], axis=1)
    points[rng.random(17) < 0.2, :2] = 0
    numbers = [*middle, *(2 * half), *points.ravel()]
    return " ".join(["0", *(f"{number:.6g}" for number in numbers)]) + tail + "\n"


@pytest.mark.parametrize("tail", ["", " 0.87", " 0.87 4", " 4"])
def test_pose_predictions_are_their_boxes(tmp_path: Path, tail: str) -> None:
    """Without a data.yaml that says so their numbers were taken for the corners of a polygon."""
    rng = np.random.default_rng(3)
    lines = [pose(rng, tail=tail) for _ in range(6)]
    found = from_yolo(data_set(tmp_path, **{f"one_{n}_txt": line for n, line in enumerate(lines)}), SIZE)
    assert any("key points" in warning for warning in found.warnings)
    boxes = {row["frame"]: row["box"] for row in found.rows}
    for number, line in enumerate(lines):
        x, y, w, h = (float(word) for word in line.split()[1:5])
        assert boxes[number] == pytest.approx([(x - w / 2) * 100, (y - h / 2) * 50, w * 100, h * 50])


@pytest.mark.parametrize("corners", [9, 12, 27, 60])
def test_polygons_of_one_count_stay_polygons(tmp_path: Path, corners: int) -> None:
    """Tools that give each outline as many corners; near the middle their first two look like a box around the rest."""
    rng = np.random.default_rng(corners)
    for sample in range(100):
        files = {}
        for number in range(5):
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
            outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.6, 1, (corners, 1))
            points = rng.uniform(0.4, 0.7, 2) + outline * rng.uniform(0.05, 0.28, 2)
            files[f"one_{number}_txt"] = "0 " + " ".join(f"{value:.6g}" for value in points.ravel()) + "\n"
        found = from_yolo(data_set(tmp_path / str(sample), **files), SIZE)
        assert all(row["mask"] is not None for row in found.rows), sample
