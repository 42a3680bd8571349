import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rts_batch.errors import ManifestError
from rts_batch.manifest.importers import ImportOptions, from_masks
from rts_batch.masks import decode_rle


def save(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels if labels.dtype == np.uint16 else labels.astype(np.uint8)).save(path)


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
    with pytest.raises(ManifestError, match="no folders of mask images"):
        from_masks(tmp_path)


ROWS, COLUMNS = np.mgrid[:60, :90]
DISC = (ROWS - 30) ** 2 + (COLUMNS - 40) ** 2 <= 18**2


def masks_in(path: Path, **options: Any) -> dict[tuple[str, int, int], np.ndarray]:
    return {
        (row["video_id"], row["object_id"], row["frame"]): decode_rle(row["mask"]["counts"].encode(), 60, 90)
        for row in from_masks(path, ImportOptions(keep="all", **options)).rows
    }


def soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), 1.2)


@pytest.mark.parametrize("kind", ["soft.png", "jpeg.jpg", "sixteen.png", "white.bmp", "cut.png"])
def test_one_target_in_white_is_read_however_it_was_drawn(tmp_path: Path, kind: str) -> None:
    """Every grey of a soft edge was a target of its own, and JPEGs were not seen."""
    (tmp_path / "one").mkdir()
    drawn = {
        "soft.png": soft(DISC),
        "jpeg.jpg": DISC * np.uint8(255),
        "sixteen.png": DISC * np.uint16(65535),
        "white.bmp": DISC * np.uint8(255),
        "cut.png": np.dstack([np.full((60, 90, 3), 90), DISC * 255]).astype(np.uint8),
    }[kind]
    for frame in (3, 4):
        Image.fromarray(drawn).save(tmp_path / "one" / f"{frame:05d}{Path(kind).suffix}")
    found = masks_in(tmp_path)
    assert list(found) == [("one", 1, 3), ("one", 1, 4)]
    assert all((mask != DISC).sum() <= 0.02 * DISC.sum() for mask in found.values())
    warnings = from_masks(tmp_path).warnings
    assert len(warnings) == (kind != "white.bmp"), warnings


def test_what_is_no_mask_is_left_out_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path / "one" / "1.png", DISC)
    colours = np.zeros((60, 90, 3), np.uint8)
    colours[DISC], colours[:10, :10] = (255, 0, 0), (0, 255, 0)
    Image.fromarray(colours).save(tmp_path / "one" / "2.png")
    (tmp_path / "one" / "3.png").write_bytes(b"no picture")
    save(tmp_path / "one" / "4.png", np.random.default_rng(1).integers(0, 256, (60, 90)))
    found = from_masks(tmp_path, ImportOptions(keep="all"))
    assert [row["frame"] for row in found.rows] == [1]
    assert sorted(place for places in found.left_out.values() for place in places) == [
        f"one/{number}.png" for number in (2, 3, 4)
    ]
    assert any(reason.endswith("neither one colour on black nor grey") for reason in found.left_out), found.left_out


def test_void_alone_on_a_frame_is_no_target_where_others_are_numbered(tmp_path: Path) -> None:
    save(tmp_path / "one" / "0.png", DISC * 3)
    save(tmp_path / "one" / "1.png", DISC * 255)
    assert list(masks_in(tmp_path)) == [("one", 3, 0)]


def test_mots_numbers_that_two_classes_share_are_two_targets(tmp_path: Path) -> None:
    """Car 1 and pedestrian 1 became one target, and number 0 of a class none."""
    values = np.zeros((60, 90), np.uint16)
    values[:10], values[20:30], values[40:45], values[50:], values[15] = 1001, 2001, 1000, 10000, 26
    save(tmp_path / "instances" / "0001" / "000000.png", values)
    found = from_masks(tmp_path)
    assert {(row["object_id"], row["category"]) for row in found.rows} == {(1001, "1"), (2001, "2"), (1000, "1")}
    assert list(found.left_out) == ["values below 1000 in images of class · 1000 + id"]
    values[20:30], values[40:45] = 2002, 0
    save(tmp_path / "instances" / "0001" / "000000.png", values)
    (tmp_path / "classes.txt").write_text("1 car\r\n2 pedestrian\r\n\r\n")
    rows = from_masks(tmp_path).rows
    assert [(row["object_id"], row["category"]) for row in rows] == [(1, "car"), (2, "pedestrian")]


def test_a_thin_target_along_anothers_edge_is_one_in_mots(tmp_path: Path) -> None:
    """What lies between dark and light along an edge was taken for soft edges of one target."""
    values = np.zeros((60, 90), np.uint16)
    values[10:40, 20:50] = 2003
    values[40:42, 20:50] = 1001
    save(tmp_path / "instances" / "0001" / "000000.png", values)
    found = masks_in(tmp_path)
    assert {target: int(mask.sum()) for (_, target, _), mask in found.items()} == {3: 900, 1: 60}


def test_a_video_whose_name_ends_as_a_pictures_is_no_picture(tmp_path: Path) -> None:
    save(tmp_path / "Annotations" / "Full-Resolution" / "frame_000001.jpg" / "00000.png", DISC)
    found = from_masks(tmp_path)
    assert [row["video"] for row in found.rows] == ["frame_000001.jpg"]
    assert not found.left_out


def test_videos_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    for part in ("left", "right"):
        save(tmp_path / part / "Ünï 1" / "00002.png", DISC)
    save(tmp_path / "left" / "other" / "00002.png", DISC)
    assert sorted(masks_in(tmp_path)) == [("left/Ünï 1", 1, 2), ("other", 1, 2), ("right/Ünï 1", 1, 2)]


def test_a_folder_of_masks_is_a_video_of_its_name(tmp_path: Path) -> None:
    for frame in (2, 10):
        save(tmp_path / "clip" / f"frame{frame}.png", DISC)
    assert list(masks_in(tmp_path / "clip", pattern=r"frame(?P<frame>\d+)")) == [("clip", 1, 2), ("clip", 1, 10)]


def test_masks_of_several_videos_in_one_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(tmp_path / "all" / f"{name}_00002.png", DISC)
    assert sorted(masks_in(tmp_path)) == [("one", 1, 2), ("two", 1, 2)]


def test_folders_of_targets_may_count_from_zero(tmp_path: Path) -> None:
    for number in (0, 1, 255):
        save(tmp_path / "one" / f"{number:03d}" / "00002.png", DISC * 255)
    rows = from_masks(tmp_path).rows
    assert [(row["object_id"], row["source_object"]) for row in rows] == [(2, "0"), (1, "1"), (255, "255")]


def test_names_of_two_numbers_are_asked_about(tmp_path: Path) -> None:
    """`00000_1.png` may be target 1 on frame 0, or frame 1 of video 0."""
    for name in ("00000_1", "00000_2"):
        save(tmp_path / "one" / f"{name}.png", DISC)
    found = from_masks(tmp_path)
    assert not found.rows
    assert "--pattern" in found.report()[0]
    told = r"(?P<video>\d+)_(?P<frame>\d+)"
    assert list(masks_in(tmp_path, pattern=told)) == [("one", 1, 1), ("one", 1, 2)]


def test_tables_of_other_people_are_let_be(tmp_path: Path) -> None:
    """A `names.csv` with other columns ended the import."""
    save(tmp_path / "one" / "00002.png", DISC)
    for content in (b"id,label\n1,cat\n", "id,label\n1,K\xe4\n".encode("latin-1"), b""):
        (tmp_path / "names.csv").write_bytes(content)
        assert list(masks_in(tmp_path)) == [("one", 1, 2)]


def test_an_import_writes_text(tmp_path: Path) -> None:
    save(tmp_path / "one" / "00002.png", DISC)
    found = from_masks(tmp_path)
    with pytest.raises(ManifestError, match="writes CSV or JSON lines"):
        found.write(str(tmp_path / "m.parquet"))
    found.write(str(tmp_path / "M.JSONL"))
    assert json.loads((tmp_path / "M.JSONL").read_text())["video_id"] == "one"


def palette(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def number_videos(root: Path, parent: str, draw: Any, numbers: tuple[int, ...] = (1, 1)) -> None:
    for name, number in zip(("0001", "0002"), numbers, strict=True):
        draw(root / "Annotations" / parent / name / "00000.png", DISC * number)


def test_videos_whose_names_are_numbers_are_videos(tmp_path: Path) -> None:
    """They became the targets of one, called as the folder above them."""
    cases = ("resolution", "p", "table", "images", "palette")
    number_videos(tmp_path / "resolution", "Full-Resolution", save)
    number_videos(tmp_path / "p", "480p", save)
    number_videos(tmp_path / "table", "all", save)
    (tmp_path / "table" / "names.csv").write_text("name,video_id,video\n0002,0002,\n0001,0001,\n")
    number_videos(tmp_path / "images", "all", save)
    save(tmp_path / "images" / "JPEGImages" / "all" / "0002" / "00000.png", DISC)
    number_videos(tmp_path / "palette", "all", palette)
    for case in cases:
        assert list(masks_in(tmp_path / case)) == [("0001", 1, 0), ("0002", 1, 0)], case
        assert not from_masks(tmp_path / case).warnings


@pytest.mark.parametrize(
    ("draw", "numbers", "sure"),
    [(save, (1, 1), False), (save, (255, 255), True), (save, (1, 2), True), (palette, (1, 2), True)],
)
def test_folders_that_may_be_videos_or_targets_are_warned_of(
    tmp_path: Path, draw: Any, numbers: tuple[int, int], sure: bool
) -> None:
    number_videos(tmp_path, "one", draw, numbers)
    assert list(masks_in(tmp_path)) == [("one", 1, 0), ("one", 2, 0)]
    warnings = from_masks(tmp_path).warnings
    assert [warning.partition(":")[0] for warning in warnings] == [str(tmp_path / "Annotations" / "one")] * (not sure)
    assert list(masks_in(tmp_path / "Annotations" / "one")) == [
        (name, number, 0) for name, number in zip(("0001", "0002"), [n if n < 255 else 1 for n in numbers], strict=True)
    ]
