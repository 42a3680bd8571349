import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rts_batch.io.video.opening import open_video
from rts_batch.manifest.importers import Imported, ImportOptions, from_coco, from_masks

LABELS = np.zeros((48, 64), np.uint8)
LABELS[5:20, 5:20] = 1
ALL = ImportOptions(keep="all")


def data_set(root: Path, stems: Sequence[str], strays: Sequence[str], marked: Sequence[int]) -> Path:
    """A video of pictures with other files among them, and what masks and YouTube-VIS mark of it."""
    images, masks = root / "JPEGImages" / "one", root / "Annotations" / "one"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for number, stem in enumerate(stems):
        noise = np.random.default_rng(number).integers(0, 255, (*LABELS.shape, 3)).astype(np.uint8)
        Image.fromarray(noise).save(images / f"{stem}.jpg")
    for stray in strays:
        Image.fromarray(LABELS).save(images / stray, "PNG")
    for number in marked:
        Image.fromarray(LABELS).save(masks / f"{stems[number]}.png")
    names = [f"one/{stems[number]}.jpg" for number in marked]
    video = {"id": 1, "width": 64, "height": 48, "file_names": names}
    annotation = {"id": 1, "video_id": 1, "category_id": 1, "bboxes": [[5, 5, 15, 15]] * len(names)}
    (root / "i.json").write_text(json.dumps({"videos": [video], "categories": [], "annotations": [annotation]}))
    return root


def read_both(root: Path) -> tuple[Imported, Imported]:
    return from_masks(root, ALL), from_coco(root / "i.json", ALL)


PLAIN = [f"{number:05d}" for number in range(6)]


@pytest.mark.parametrize(
    ("stems", "strays"),
    [
        (PLAIN, []),
        ([f"frame_{stem}" for stem in PLAIN], [".DS_Store", "Thumbs.db"]),
        ([f"frame_{stem}" for stem in PLAIN], [f"._frame_{stem}.jpg" for stem in PLAIN]),
        (PLAIN, [f"{stem}.png" for stem in PLAIN]),
        (PLAIN, [f"{stem}_mask.png" for stem in PLAIN]),
        (["10.05", "10.1", "10.15", "10.2", "10.25", "10.3"], []),
    ],
    ids=["plain", "strays", "macos", "masks", "named masks", "times"],
)
def test_a_place_is_counted_among_the_frames_that_a_run_reads(
    tmp_path: Path, stems: Sequence[str], strays: Sequence[str]
) -> None:
    """Strays, masks and time stamps moved every prompt to another frame."""
    root = data_set(tmp_path, stems, strays, marked=(0, 3))
    with open_video(str(root / "JPEGImages" / "one")) as source:
        assert source.info.frames == 6
        warned = [f"{root / 'JPEGImages' / 'one'}: {warning}" for warning in source.warnings]
    for found in read_both(root):
        assert [row["frame"] for row in found.rows] == [0, 3]
        assert [warning for warning in found.warnings if "boxes are in pixels" not in warning] == warned


def test_pictures_of_which_the_frames_are_not_clear_are_left_out_with_the_reason(tmp_path: Path) -> None:
    root = data_set(tmp_path, [f"{side}_{stem}" for side in ("left", "right") for stem in PLAIN], [], marked=(0, 3))
    for found in read_both(root):
        assert not found.rows
        assert "left_00000.jpg" in found.report()[0]


def test_a_frame_without_a_picture_is_reported(tmp_path: Path) -> None:
    root = data_set(tmp_path, PLAIN, [], marked=(0, 3))
    (root / "JPEGImages" / "one" / "00003.jpg").unlink()
    for found in read_both(root):
        assert [row["frame"] for row in found.rows] == [0]
        assert "without an image of their name" in found.report()[0]


def test_an_exports_frames_are_those_of_the_video_that_it_names(tmp_path: Path) -> None:
    """With every fifth frame written, frame 5 of the mp4 became frame 1."""
    root = data_set(tmp_path, ["00001", "00005", "00010"], [], marked=(0, 1, 2))
    (root / "names.csv").write_text("name,video_id,video\none,clips/one,/clips/one.mp4\n")
    for found in read_both(root):
        assert [(row["video"], row["video_id"], row["frame"]) for row in found.rows] == [
            ("/clips/one.mp4", "clips/one", frame) for frame in (1, 5, 10)
        ]
        assert not found.warnings


@pytest.mark.parametrize("part", ["Annotations", "Annotations/one"])
def test_frames_are_counted_alike_whichever_folder_of_a_data_set_is_named(tmp_path: Path, part: str) -> None:
    """Given `Annotations` itself, the fifth frame of YouTube-VOS, its second picture, became the sixth picture."""
    root = data_set(tmp_path, ["00000", "00005", "00010"], [], marked=(0, 1))
    (root / "meta.json").write_text(json.dumps({"videos": {"one": {"objects": {"1": {"category": "ball"}}}}}))
    assert from_masks(root / part, ALL).rows == from_masks(root, ALL).rows
    assert [(row["frame"], row["category"]) for row in from_masks(root, ALL).rows] == [(0, "ball"), (1, "ball")]


def test_a_place_of_the_videos_that_was_asked_for_is_not_replaced_by_that_of_a_table(tmp_path: Path) -> None:
    """The table of an export that came from another machine won over `--video`, without a word."""
    root, elsewhere = data_set(tmp_path, PLAIN, [], marked=(0, 3)), ImportOptions(video="s3://new/{name}.mp4")
    for found in (from_masks(root, elsewhere), from_coco(root / "i.json", elsewhere)):
        assert {row["video"] for row in found.rows} == {str(root / "JPEGImages" / "one")}
        assert any("--video" in warning for warning in found.warnings)
    (root / "names.csv").write_text("name,video_id,video\none,clips/one,/gone/one.mp4\n")
    for found in (from_masks(root, elsewhere), from_coco(root / "i.json", elsewhere)):
        assert {(row["video"], row["video_id"]) for row in found.rows} == {("s3://new/one.mp4", "clips/one")}
        assert not any("--video" in warning for warning in found.warnings)


@pytest.mark.parametrize("part", ["Annotations", "Annotations/one"])
def test_a_videos_folders_of_targets_are_no_videos_where_its_pictures_are_known(tmp_path: Path, part: str) -> None:
    """Given the one video's folder, its two targets were two videos called 1 and 2."""
    root = data_set(tmp_path, ["00000", "00005"], [], marked=(0, 1))
    for target in ("1", "2"):
        shutil.copytree(root / "Annotations" / "one", root / "instances" / "one" / target)
    shutil.rmtree(root / "Annotations")
    (root / "instances").rename(root / "Annotations")
    assert from_masks(root / part, ALL).rows == from_masks(root, ALL).rows
    found = [(row["video_id"], row["object_id"], row["frame"]) for row in from_masks(root, ALL).rows]
    assert sorted(found) == [("one", 1, 0), ("one", 1, 1), ("one", 2, 0), ("one", 2, 1)]
