"""Files that other people's libraries wrote, imported as prompts: the same boxes and masks on the same frames."""

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

from rts_batch.manifest import read_manifest
from rts_batch.manifest.importers import (
    Imported,
    ImportOptions,
    from_coco,
    from_cvat,
    from_detections,
    from_fiftyone,
    from_label_studio,
    from_masks,
    from_yolo,
)
from rts_batch.masks import decode_rle
from tests.support.environments import environment_with

ALL = ImportOptions(keep="all")
HEIGHT, WIDTH = 60, 90
CLASSES = ["cat", "собака"]
FRAMES = (2, 3)


def square(frame: int, kind: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10 + frame : 30, 10 + 40 * kind : 30 + 40 * kind + frame] = True
    return mask


def box_of(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(cv2.boundingRect(mask.astype(np.uint8)))


def marked(found: Imported, folder: Path) -> dict[tuple[str, str, int], Any]:
    """Masks, or boxes, by video, category and frame, as a manifest gives them."""
    found.write(str(folder / "manifest.jsonl"))
    prompts = {}
    for task in read_manifest(str(folder / "manifest.jsonl")).tasks:
        for target in task.targets:
            for prompt in target.prompts:
                rle = prompt.mask_rle
                mark = prompt.box if rle is None else decode_rle(rle["counts"].encode(), *rle["size"])
                prompts[task.video_id, target.category or "", prompt.frame or 0] = mark
    return prompts


def check_masks(found: Imported, folder: Path, video: str = "one", least: float = 1.0) -> None:
    prompts = marked(found, folder)
    assert set(prompts) == {(video, CLASSES[kind], frame) for kind in (0, 1) for frame in FRAMES}
    for (_, category, frame), mask in prompts.items():
        known = square(frame, CLASSES.index(category))
        assert (mask & known).sum() >= least * (mask | known).sum()


def check_boxes(found: Imported, folder: Path, video: str = "one", first: int = 2) -> None:
    prompts = marked(found, folder)
    assert set(prompts) == {(video, CLASSES[kind], frame + first - 2) for kind in (0, 1) for frame in FRAMES}
    for (_, category, frame), box in prompts.items():
        assert box == pytest.approx(box_of(square(frame - first + 2, CLASSES.index(category))), abs=0.01)


# supervision


def detections(frame: int) -> Any:
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    masks = np.stack([square(frame, kind) for kind in (0, 1)])
    corners = [(x, y, x + w, y + h) for x, y, w, h in map(box_of, masks)]
    return supervision.Detections(
        xyxy=np.array(corners, np.float32),
        mask=masks,
        confidence=np.array([0.9, 0.8]),
        class_id=np.array([0, 1]),
        tracker_id=np.array([7, 3]),
        data={"class_name": np.array(CLASSES)},
    )


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_supervisions_data_sets(tmp_path: Path, kind: str) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    images = {str(tmp_path / f"one_{frame:06d}.png"): detections(frame) for frame in FRAMES}
    for path in images:
        cv2.imwrite(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    data = supervision.DetectionDataset(classes=CLASSES, images=list(images), annotations=images)
    if kind == "coco":
        data.as_coco(str(tmp_path / "images"), str(tmp_path / "annotations.json"))
        found = from_coco(tmp_path / "annotations.json", ALL)
    else:
        data.as_yolo(str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "data.yaml"))
        found = from_yolo(tmp_path / "data.yaml", ALL)
    check_masks(found, tmp_path, least=0.85)  # its polygons run through the middles of pixels
    assert not found.left_out


@pytest.mark.parametrize("kind", ["CSVSink", "JSONSink"])
def test_supervisions_sinks(tmp_path: Path, kind: str) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    path = tmp_path / ("found.csv" if kind == "CSVSink" else "found.json")
    with getattr(supervision, kind)(str(path)) as sink:
        for frame in FRAMES:
            found = detections(frame)
            found.mask = None
            sink.append(found, custom_data={"frame_number": frame, "video": "one"})
    check_boxes(from_detections(path, ALL), tmp_path)
    assert {row["object_id"] for row in from_detections(path).rows} == {7, 3}


# datumaro

_DATUMARO = """
import sys
import datumaro, numpy
from datumaro.components.annotation import Bbox, Mask
squares = numpy.load(sys.argv[1])
frames = {}
for name, mask in squares.items():
    frame, kind = map(int, name.split())
    known = {"label": kind, "id": kind + 1, "group": kind + 1, "attributes": {"track_id": 3 + kind}}
    boxes = sys.argv[2] in ("yolo", "mot_seq_gt")
    mark = Bbox(*Mask(mask).get_bbox(), **known) if boxes else Mask(mask, **known)
    frames.setdefault(frame, []).append(mark)
media = datumaro.components.media.Image.from_numpy(data=numpy.zeros((60, 90, 3), numpy.uint8))
items = [datumaro.DatasetItem(f"one_{frame:06d}", media=media, annotations=marks) for frame, marks in frames.items()]
data = datumaro.Dataset.from_iterable(items, categories=sys.argv[4:])
data.export(sys.argv[3], sys.argv[2], save_media=True)
"""


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("squares") / "squares.npz"
    np.savez(path, **{f"{frame} {kind}": square(frame, kind) for frame in FRAMES for kind in (0, 1)})
    return path


@pytest.fixture(scope="module")
def datumaro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(tmp_path_factory.mktemp("datumaro") / "environment", "datumaro==1.13.12")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coco", "cvat", "yolo", "mots_png", "mot_seq_gt"])
def test_datumaros_data_sets(tmp_path: Path, squares: Path, datumaro: Path, kind: str) -> None:
    out = tmp_path / "out"
    program = [datumaro, "-c", _DATUMARO, squares, kind, out, *CLASSES]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    if kind == "coco":  # it marks every mask as a crowd
        found = from_coco(out / "annotations" / "instances_default.json", ALL)
        assert {row["object_id"] for row in found.rows} == {3, 4}
        check_masks(found, tmp_path)
    elif kind == "cvat":
        check_masks(from_cvat(out / "default.xml", ALL), tmp_path)
    elif kind == "mots_png":
        check_masks(from_masks(out, ALL), tmp_path, "instances")
    elif kind == "yolo":
        check_boxes(from_yolo(out, ALL), tmp_path)
    else:  # a folder of MOTChallenge is a video, whose frames it numbers anew
        check_boxes(from_detections(out / "gt" / "gt.txt", ALL), tmp_path, "out", first=0)


# Label Studio

_LABEL_STUDIO = """
import json, pathlib, sys
from label_studio_sdk.converter.brush import image2annotation
from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
folder = pathlib.Path(sys.argv[1])
tasks = []
for image in sorted(folder.glob("*.png")):
    name, label = image.stem.split("@")
    data = {"image": f"/data/local-files/?d=кадры/{name}.jpg"}
    tasks.append({"data": data, "annotations": [image2annotation(str(image), label, "mask", "image")]})
(folder / "brushes.json").write_text(json.dumps(tasks))
convert_coco_to_ls(str(folder / "coco.json"), str(folder / "converted.json"))
"""


@pytest.mark.slow
def test_label_studios_own_converters(tmp_path: Path) -> None:
    """Brushes and polygons; time lines are written by its server only, which is not a library."""
    python = environment_with(tmp_path / "environment", "label-studio-sdk==2.1.2")
    annotations = []
    for frame in FRAMES:
        for kind in (0, 1):
            mask = square(frame, kind)
            cv2.imwrite(str(tmp_path / f"one_{frame:06d}@{CLASSES[kind]}.png"), mask.astype(np.uint8) * 255)
            x, y, w, h = box_of(mask)
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            known = {"image_id": frame, "category_id": kind, "bbox": [x, y, w, h], "iscrowd": 0, "area": w * h}
            annotations.append({"id": len(annotations), "segmentation": [outline], **known})
    images = [{"id": f, "file_name": f"one_{f:06d}.jpg", "width": WIDTH, "height": HEIGHT} for f in FRAMES]
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(data))
    subprocess.run([python, "-c", _LABEL_STUDIO, tmp_path], check=True, stdout=subprocess.DEVNULL)
    check_masks(from_label_studio(tmp_path / "brushes.json", ALL), tmp_path, "кадры/one")
    check_masks(from_label_studio(tmp_path / "converted.json", ALL), tmp_path)


# FiftyOne

_FIFTYONE = """
import sys
import fiftyone.core.labels as labels
import fiftyone.utils.data as data
import numpy
frames = {}
for name, mask in numpy.load(sys.argv[1]).items():
    frame, kind = map(int, name.split())
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    x, y, w, h = columns[0], rows[0], len(columns), len(rows)
    box = [x / mask.shape[1], y / mask.shape[0], w / mask.shape[1], h / mask.shape[0]]
    part = mask[y : y + h, x : x + w]
    found = labels.Detection(label=sys.argv[4 + kind], index=kind + 1, bounding_box=box, mask=part, confidence=0.9)
    frames.setdefault(frame + 1, []).append(found)
with data.FiftyOneVideoLabelsDatasetExporter(export_dir=sys.argv[2], export_media="symlink") as exporter:
    known = {frame: {"detections": labels.Detections(detections=found)} for frame, found in frames.items()}
    exporter.export_sample(sys.argv[3], None, known)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a gigabyte to install
def test_fiftyones_own_exporter(tmp_path: Path, squares: Path) -> None:
    python = environment_with(tmp_path / "environment", "fiftyone==1.22.1")
    (tmp_path / "one.mp4").write_bytes(b"")
    program = [python, "-c", _FIFTYONE, squares, tmp_path / "out", tmp_path / "one.mp4", *CLASSES]
    quiet = {**os.environ, "FIFTYONE_DO_NOT_TRACK": "1", "FIFTYONE_CONFIG_PATH": str(tmp_path / "config.json")}
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env=quiet)
    found = from_fiftyone(tmp_path / "out", ALL)
    check_masks(found, tmp_path)
    assert {row["video"] for row in found.rows} == {str((tmp_path / "one.mp4").resolve())}
