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
        Video("one", str(folder / "one.mp4"), first, {1: "cat", 5: "dog"}),
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
