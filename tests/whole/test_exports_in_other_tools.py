"""Exports read by other people's libraries, as their users read them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rts_batch.export.run import export_run
from tests.support.environments import environment_with
from tests.support.run_folders import Video, write_run
from tests.support.videos import make_pair

FRAMES = 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    """Two real videos; two targets in the first."""
    folder = tmp_path_factory.mktemp("videos")
    first, second = make_pair(folder, FRAMES)
    return [
        Video("one", str(folder / "one.mp4"), first, {1: "cat", 5: "dog"}, said_absent=True),
        Video("two", str(folder / "two.mp4"), second, {2: "ant"}),
    ]


@pytest.fixture(scope="module")
def run(videos: list[Video], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers") / "run"
    write_run(folder, videos)
    return folder


def shown(videos: list[Video]) -> dict[tuple[str, str, int], NDArray[np.bool_]]:
    """The masks that are not empty, by category, video and frame."""
    return {
        (category or "object", video.video_id, frame): video.truth(object_id, frame)
        for video in videos
        for object_id, category in video.categories.items()
        for frame in range(FRAMES)
        if video.truth(object_id, frame).any()
    }


@pytest.mark.parametrize("name", ["yolo-seg", "coco"])
def test_supervision_reads(name: Any, run: Path, videos: list[Video], tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    out = tmp_path / "out"
    export_run(str(run), str(out), name, extract_frames=True)
    if name == "coco":
        data = supervision.DetectionDataset.from_coco(
            str(out / "images"), str(out / "annotations" / "instances_default.json"), True
        )
    else:
        folders = [str(out / kind / "train") for kind in ("images", "labels")]
        data = supervision.DetectionDataset.from_yolo(*folders, str(out / "data.yaml"), True)
    expected = shown(videos)
    assert len(data) == 2 * FRAMES
    assert sorted(data.classes) == ["ant", "cat", "dog"]
    for path, image, detections in data:
        video_id, frame = place(Path(path))
        assert image.shape[:2] == videos[0].masks.shape[2:]
        for mask, kind in zip(detections.mask, detections.class_id, strict=True):
            known = expected.pop((data.classes[kind], video_id, frame))
            # COCO's masks are exact; supervision fills YOLO's polygons with corners rounded its own way.
            assert (mask & known).sum() >= (1 if name == "coco" else 0.97) * (mask | known).sum()
    assert not expected


def place(path: Path) -> tuple[str, int]:
    """The video and the frame of an image's name."""
    stem = path.stem if "_" in path.stem else f"{path.parent.name}_{path.stem}"
    video_id, _, frame = stem.rpartition("_")
    return video_id, int(frame)


_DATUMARO = """
import sys
import datumaro, numpy
masks = {}
for item in datumaro.Dataset.import_from(sys.argv[1], "mots"):
    for mask in item.annotations:
        masks[f"{item.id}/{int(mask.attributes['track_id'])}"] = mask.image
numpy.savez(sys.argv[2], **masks)
"""


def test_got10ks_toolkit_reads_its_layout(run: Path, videos: list[Video], tmp_path: Path) -> None:
    toolkit = pytest.importorskip("got10k.datasets", reason="pip install --no-deps got10k shapely")
    export_run(str(run), str(tmp_path / "train"), "got10k", extract_frames=True)
    data = toolkit.GOT10k(str(tmp_path), subset="train", return_meta=True)
    targets = [(video, object_id) for video in videos for object_id in video.categories]
    assert len(data) == len(targets)
    for (images, boxes, meta), (video, object_id) in zip(data, targets, strict=True):
        masks = [video.truth(object_id, frame) for frame in range(FRAMES)]
        assert np.array_equal(boxes, [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks])
        assert np.array_equal(meta["absence"] == 1, [not mask.any() for mask in masks])
        assert meta["object_class"] == video.categories[object_id]
        assert len(images) == FRAMES


@pytest.mark.slow
def test_datumaro_reads_mots(run: Path, videos: list[Video], tmp_path: Path) -> None:
    python = environment_with(tmp_path / "environment", "datumaro==1.13.12")
    export_run(str(run), str(tmp_path / "out"), "mots-png", extract_frames=True)
    program = [python, "-c", _DATUMARO, tmp_path / "out", tmp_path / "masks.npz"]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    expected = {
        f"{video.video_id}/{frame:06d}/{object_id}": video.truth(object_id, frame)
        for video in videos
        for object_id in video.categories
        for frame in range(FRAMES)
        if video.truth(object_id, frame).any()
    }
    with np.load(tmp_path / "masks.npz") as found:
        assert set(found) == set(expected)
        for name, mask in expected.items():
            assert ((found[name] > 0) == mask).all(), name


_FIFTYONE = """
import pathlib, sys
import fiftyone.utils.data as data, numpy
masks = {}
with data.FiftyOneVideoLabelsDatasetImporter(dataset_dir=sys.argv[1]) as importer:
    for path, metadata, label, frames in importer:
        for number, fields in frames.items():
            for detections in fields.values():
                for found in detections.detections:
                    x, y, w, h = found.bounding_box
                    lines, columns = found.mask.shape
                    height, width = round(lines / h), round(columns / w)
                    mask = numpy.zeros((height, width), bool)
                    top, left = round(y * height), round(x * width)
                    mask[top : top + lines, left : left + columns] = found.mask
                    masks[f"{pathlib.Path(path).stem}/{number - 1}/{found.index}/{found.label}"] = mask
numpy.savez(sys.argv[2], **masks)
"""


_DATUMARO_COCO = """
import sys
import datumaro, numpy
masks = {}
data = datumaro.Dataset.import_from(sys.argv[1], "coco")
names = [category.name for category in data.categories()[datumaro.AnnotationType.label]]
for item in data:
    for mask in item.annotations:
        if mask.type == datumaro.AnnotationType.mask:
            masks[f"{item.id}/{names[mask.label]}"] = mask.image
numpy.savez(sys.argv[2], **masks)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coco", "datumaro"])
def test_datumaro_reads_coco_and_its_own_format(run: Path, videos: list[Video], tmp_path: Path, kind: Any) -> None:
    python = environment_with(tmp_path / "environment", "datumaro==1.13.12")
    export_run(str(run), str(tmp_path / "out"), kind, extract_frames=True)
    program = [python, "-c", _DATUMARO_COCO.replace('"coco"', f'"{kind}"'), tmp_path / "out", tmp_path / "masks.npz"]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    expected = {
        f"{video_id}/{frame:06d}/{category}": mask for (category, video_id, frame), mask in shown(videos).items()
    }
    with np.load(tmp_path / "masks.npz") as found:
        assert set(found) == set(expected)
        for name, mask in expected.items():
            assert np.array_equal(found[name], mask), name


_DATUMARO_MOT = """
import json, sys
import datumaro
found = {}
for folder in sys.argv[2:]:
    data = datumaro.Dataset.import_from(folder, "mot_seq")
    names = [category.name for category in data.categories()[datumaro.AnnotationType.label]]
    for item in data:
        for box in item.annotations:
            found[f"{folder}/{item.id}/{names[box.label]}"] = box.get_bbox()
json.dump(found, open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_datumaro_reads_mot(run: Path, videos: list[Video], tmp_path: Path) -> None:
    python = environment_with(tmp_path / "environment", "datumaro==1.13.12")
    export_run(str(run), str(tmp_path / "out"), "mot", extract_frames=True)
    folders = [str(tmp_path / "out" / video.video_id) for video in videos]
    program = [python, "-c", _DATUMARO_MOT, tmp_path / "boxes.json", *folders]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    expected = {
        f"{tmp_path / 'out' / video_id}/{frame + 1}/{kind}": list(cv2.boundingRect(mask.astype(np.uint8)))
        for (kind, video_id, frame), mask in shown(videos).items()
    }
    assert json.loads((tmp_path / "boxes.json").read_text()) == expected


_LABEL_STUDIO = """
import json, sys
import numpy
from label_studio_sdk.converter.brush import decode_rle
masks = {}
for task in json.load(open(sys.argv[1])):
    name = task["data"]["image"].removeprefix("/data/local-files/?d=images/").removesuffix(".jpg")
    for region in task["annotations"][0]["result"]:
        height, width = region["original_height"], region["original_width"]
        alpha = decode_rle(region["value"]["rle"]).reshape(height, width, 4)[..., 3]
        masks[f"{name}/{region['value']['brushlabels'][0]}"] = alpha
numpy.savez(sys.argv[2], **masks)
"""


@pytest.mark.slow
def test_label_studios_converter_reads_its_brushes(run: Path, videos: list[Video], tmp_path: Path) -> None:
    python = environment_with(tmp_path / "environment", "label-studio-sdk==2.1.2")
    export_run(str(run), str(tmp_path / "out"), "label-studio")
    program = [python, "-c", _LABEL_STUDIO, tmp_path / "out" / "tasks.json", tmp_path / "masks.npz"]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    expected = {f"{video_id}/{frame:06d}/{kind}": mask for (kind, video_id, frame), mask in shown(videos).items()}
    with np.load(tmp_path / "masks.npz") as found:
        assert set(found) == set(expected)
        for name, mask in expected.items():
            assert np.array_equal(found[name] > 0, mask), name


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a gigabyte to install
def test_fiftyone_reads_its_folder(run: Path, videos: list[Video], tmp_path: Path) -> None:
    """With FiftyOne's own importer: its data sets would need a database server as well."""
    python = environment_with(tmp_path / "environment", "fiftyone==1.22.1")
    export_run(str(run), str(tmp_path / "out"), "fiftyone")
    program = [python, "-c", _FIFTYONE, tmp_path / "out", tmp_path / "masks.npz"]
    quiet = {**os.environ, "FIFTYONE_DO_NOT_TRACK": "1", "FIFTYONE_CONFIG_PATH": str(tmp_path / "config.json")}
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env=quiet)
    expected = {
        f"{Path(video.uri).stem}/{frame}/{object_id}/{category}": video.truth(object_id, frame)
        for video in videos
        for object_id, category in video.categories.items()
        for frame in range(FRAMES)
        if video.truth(object_id, frame).any()
    }
    with np.load(tmp_path / "masks.npz") as found:
        assert set(found) == set(expected)
        for name, mask in expected.items():
            assert np.array_equal(found[name], mask), name


_TRACKEVAL = """
import pathlib, sys
import numpy, trackeval.datasets as datasets
from pycocotools import mask as coco
kind, out, frames = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
common = {"TRACKERS_TO_EVAL": [], "PRINT_CONFIG": False, "TRACKERS_FOLDER": str(out)}
known = {**common, "SEQ_INFO": {"one": frames, "two": frames}}
if kind == "mots-txt":
    folder = str(out / "instances_txt")
    data = datasets.KittiMOTS({**known, "GT_FOLDER": folder, "GT_LOC_FORMAT": "{gt_folder}/{seq}.txt"})
elif kind == "mot":
    data = datasets.MotChallenge2DBox({**known, "GT_FOLDER": str(out), "SKIP_SPLIT_FOL": True})
elif kind == "davis":
    data = datasets.DAVIS({**known, "GT_FOLDER": str(out / "Annotations" / "Full-Resolution")})
else:
    split = out.parent / "youtube_vis_train"
    split.mkdir()
    (split / "train.json").write_bytes((out / "instances.json").read_bytes())
    folder = f"{out.parent}/"
    data = datasets.YouTubeVIS({**common, "GT_FOLDER": folder, "TRACKERS_FOLDER": folder, "SPLIT_TO_EVAL": "train"})
found = {}
for video in ("one", "two"):
    read = data._load_raw_file(None, video, True)
    for frame, (ids, marks) in enumerate(zip(read["gt_ids"], read["gt_dets"])):
        for number, mark in zip(ids, marks):
            found[f"{video}/{frame}/{number}"] = mark if kind == "mot" else coco.decode(mark)
numpy.savez(sys.argv[3 + 1], **found)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mots-txt", "mot", "davis", "ytvis"])
def test_trackeval_reads(run: Path, videos: list[Video], tmp_path: Path, trackeval: Path, kind: Any) -> None:
    out = tmp_path / "out"
    export_run(str(run), str(out), kind, extract_frames=kind == "mot", classes={"cat": 1, "dog": 2, "ant": 3})
    program = [trackeval, "-c", _TRACKEVAL, kind, out, str(FRAMES), tmp_path / "found.npz"]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    numbers = {"cat": 1001, "dog": 2005, "ant": 3002}
    expected = {
        (video.video_id, frame, numbers[video.categories[object_id]] if kind == "mots-txt" else object_id): truth
        for video in videos
        for object_id in video.categories
        for frame in range(FRAMES)
        if (truth := video.truth(object_id, frame)).any()
    }
    with np.load(tmp_path / "found.npz") as found:
        marks = {(name.split("/")[0], int(name.split("/")[1]), int(name.split("/")[2])): found[name] for name in found}
    if kind == "ytvis":  # whose annotations have numbers of their own
        assert len(marks) == len(expected)
        for (video, frame, _), mask in expected.items():
            assert any(np.array_equal(mask, other) for name, other in marks.items() if name[:2] == (video, frame))
        return
    assert set(marks) == set(expected)
    for name, mask in expected.items():
        known = cv2.boundingRect(mask.astype(np.uint8)) if kind == "mot" else mask
        assert np.array_equal(marks[name], known), name


@pytest.fixture(scope="module")
def trackeval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(tmp_path_factory.mktemp("trackeval") / "environment", "trackeval==1.3.0")


_ULTRALYTICS = """
import sys
import numpy
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1], autodownload=False)
found = {}
for part in ("train", "val"):
    for label in YOLODataset(img_path=data[part], data=data, task="segment", augment=False).labels:
        for kind, outline in zip(label["cls"][:, 0], label["segments"]):
            found[f"{label['im_file']}@{data['names'][int(kind)]}"] = outline * label["shape"][::-1]
numpy.savez(sys.argv[2], **found)
"""


@pytest.mark.slow
def test_ultralytics_reads_its_data_set(run: Path, videos: list[Video], tmp_path: Path) -> None:
    """By the classes that its training reads with; they need a torchvision of some version, and never load it."""
    python = environment_with(
        tmp_path / "environment", "ultralytics==8.4.190", "torchvision", "polars", beside_ours=True
    )
    export_run(str(run), str(tmp_path / "out"), "yolo-seg", extract_frames=True, split=(0.5, 0.5))
    program = [python, "-c", _ULTRALYTICS, tmp_path / "out" / "data.yaml", tmp_path / "found.npz"]
    quiet = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env=quiet)
    expected = shown(videos)
    with np.load(tmp_path / "found.npz") as found:
        for name, outline in found.items():
            image, _, kind = name.rpartition("@")
            known = expected.pop((kind, *place(Path(image))))
            mask = cv2.fillPoly(np.zeros(known.shape, np.uint8), [outline.astype(np.int32)], 1).astype(bool)
            assert (mask & known).sum() >= 0.97 * (mask | known).sum()
    assert not expected


_LABELME = """
import pathlib, sys
import numpy
from labelme._label_file import LabelFile
found = {}
for path in pathlib.Path(sys.argv[1]).rglob("*.json"):
    read = LabelFile(str(path))
    for shape in read.shapes:
        (x, y), _ = shape["points"]
        mask = shape["mask"]
        found[f"{path.parent.name}/{int(path.stem)}/{shape['label']}/{int(x)}/{int(y)}"] = mask
numpy.savez(sys.argv[2], **found)
"""


@pytest.mark.slow
def test_labelme_reads(run: Path, videos: list[Video], tmp_path: Path) -> None:
    python = environment_with(tmp_path / "environment", "labelme==6.3.1")
    export_run(str(run), str(tmp_path / "out"), "labelme", extract_frames=True)
    program = [python, "-c", _LABELME, tmp_path / "out", tmp_path / "found.npz"]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})
    expected = shown(videos)
    with np.load(tmp_path / "found.npz") as found:
        for name, part in found.items():
            video, frame, kind, x, y = name.split("/")
            known = expected.pop((kind, video, int(frame)))
            mask = np.zeros_like(known)
            mask[int(y) : int(y) + part.shape[0], int(x) : int(x) + part.shape[1]] = part
            assert np.array_equal(mask, known), name
    assert not expected
