"""Annotations in which something is not what it should be: our error, or a manifest that can be read."""

from __future__ import annotations

import base64
import copy
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rts_batch.errors import RtsBatchError
from rts_batch.manifest import read_manifest
from rts_batch.manifest.importers import (
    Imported,
    ImportOptions,
    from_coco,
    from_cvat,
    from_detections,
    from_fiftyone,
    from_label_studio,
    from_labelme,
    from_voc,
    from_yolo,
)

OPTIONS = ImportOptions(keep="all", size=(90, 60))
RUBBISH = [None, "", "x", "1", "é" * 300, 0, -1, -5.5, 1e12, 1e308, 10**30, float("nan"), float("inf"), True, [], {}]
RUBBISH += [[None], [[]], [1, 2], {"a": 1}, "a\x07b"]

RLE = {"size": [60, 90], "counts": [1210, 20, 40, 20, 4110]}
COCO = {
    "images": [{"id": 1, "file_name": "v/01.jpg", "width": 90, "height": 60, "video_id": 3, "frame_index": 2}],
    "videos": [{"id": 3, "name": "a.mp4"}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": RLE, "iscrowd": 0, "score": 0.5, "track_id": 4},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "segmentation": [[1, 1, 20, 1, 20, 20]]},
    ],
}
YOUTUBE_VIS = {
    "videos": [{"id": 1, "file_names": ["a/00000.jpg", "a/00005.jpg"], "width": 90, "height": 60}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [None, RLE], "bboxes": [None, [20, 10, 30, 20]]}
    ],
}
DRAWN = {"frame": 1, "enabled": True, "rotation": 5, "x": 10, "y": 20, "width": 30, "height": 40}
ON_IMAGE = {"to_name": "image", "original_width": 90, "original_height": 60, "image_rotation": 0}
RECTANGLE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 9, "rectanglelabels": ["cat"]}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/local-files/?d=one/frame_0003.jpg"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {"id": "r", "type": "rectanglelabels", **ON_IMAGE, "meta": {"track_id": 3}, "value": RECTANGLE},
                    {"id": "p", "type": "polygon", **ON_IMAGE, "value": {"points": [[1, 1], [50, 1], [50, 50]]}},
                    {"id": "b", "type": "brush", **ON_IMAGE, "value": {"rle": [0, 0, 84, 96, 58, 1, 2]}},
                ],
            }
        ],
    },
    {
        "data": {"video": "/data/upload/3/1a2b3c4d-k.mp4"},
        "annotations": [
            {
                "result": [
                    {
                        "id": "v",
                        "type": "videorectangle",
                        "value": {"framesCount": 9, "sequence": [DRAWN, {**DRAWN, "frame": 5, "enabled": False}]},
                    }
                ]
            }
        ],
    },
]
DETECTIONS = [
    {"image": "one_03.jpg", "detections": [{"bbox": [1, 2, 30, 40], "score": 0.5, "track_id": 3, "label": "cat"}]},
    {"video": "a", "frame": 3, "xywh": "1 2 30 40"},
    {"video": "a", "frame": 3, "box": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}},
]
SHAPE = {"label": "cat", "points": [[1, 1], [30, 1], [30, 40]], "group_id": 3, "shape_type": "polygon", "score": 0.5}
PNG = base64.b64encode(cv2.imencode(".png", np.array([[0, 1], [1, 1]], np.uint8))[1].tobytes()).decode()
LABELME = {
    "shapes": [
        SHAPE,
        {**SHAPE, "shape_type": "rectangle", "points": [[1, 2], [30, 40]], "group_id": None},
        {**SHAPE, "shape_type": "mask", "points": [[1, 2], [2, 3]], "mask": PNG},
        {**SHAPE, "shape_type": "circle", "points": [[10, 20], [15, 20]]},
    ],
    "imageWidth": 90,
    "imageHeight": 60,
}
CORNERS = {"top_left": {"x": 0.1, "y": 0.1}, "bottom_right": {"x": 0.4, "y": 0.5}}
OBJECT = {"label": "cat", "index": 3, "confidence": 0.5, "bounding_box": CORNERS, "mask": [[True, False], [True, True]]}
FIFTYONE = {
    "frames": {"3": {"objects": {"objects": [OBJECT, {**OBJECT, "mask": None}]}}},
    "metadata": {"frame_size": [90, 60]},
}


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations>
<meta><task><name>t</name><original_size><width>90</width><height>60</height></original_size></task></meta>
<track id="0" label="c">
<box frame="3" outside="0" keyframe="1" xtl="1" ytl="2" xbr="30" ybr="40" rotation="10">
<attribute name="track_id">7</attribute></box>
<polygon frame="4" outside="1" keyframe="1" points="1,1;30,1;30,30"/>
<mask frame="5" outside="0" keyframe="1" rle="2,3,1" left="5" top="6" width="3" height="2"/></track>
<image id="4" name="v/0003.jpg" width="90" height="60"><polygon label="c" points="1,1;30,1;30,30"/>
<mask label="c" rle="2,3,1" left="5" top="6" width="3" height="2"/></image></annotations>"""
VOC = """<annotation><filename>one_3.jpg</filename><size><width>90</width><height>60</height></size>
<object><name>c</name><trackid>4</trackid><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>c</name><bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""
TEXTS: dict[str, tuple[str, str, Callable[[Path], Imported]]] = {
    "cvat": ("a.xml", CVAT, lambda path: from_cvat(path, OPTIONS)),
    "voc": ("one_3.xml", VOC, lambda path: from_voc(path, OPTIONS)),
    "yolo": (
        "one_3.txt",
        "0 0.2 0.2 0.5 0.2 0.5 0.5\n1 0.5 0.5 0.2 0.2 0.9\n",
        lambda path: from_yolo(path.parent, OPTIONS),
    ),
    "csv": (
        "a.csv",
        "frame,x1,y1,x2,y2,score,track_id\n1,2,3,30,40,0.5,7\n2,2,3,30,40,0.5,7\n",
        lambda path: from_detections(path, OPTIONS),
    ),
    "mot": ("a.txt", "1,2,10,20,30,40,1,1,0.8\n2,2,10,20,30,40,1,1,0.8\n", lambda path: from_detections(path, OPTIONS)),
}
WORDS = [
    "",
    "x",
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 20,
    "é",
    '"',
    "<",
    "&",
    ";",
    "[]",
    "0",
    "1.5",
    "\ufeff",
    "\x07",
    "\0",
]


def places(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inside:
        yield (*above, key)
        yield from places(value, (*above, key))


def spoiled(data: Any, rng: random.Random) -> Any:
    """A copy in which one or two values are others, or gone."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 2))):
        *above, last = rng.choice(list(places(data)))
        holder = data
        for key in above:
            holder = holder[key]
        if rng.random() < 0.25:
            del holder[last]
        else:
            holder[last] = rng.choice(RUBBISH)
        if not data:
            break
    return data


def fiftyone(path: Path) -> Imported:
    (path.parent / "manifest.json").write_text(json.dumps({"index": [{"data": "a.mp4", "labels": path.name}]}))
    return from_fiftyone(path.parent, OPTIONS)


def labelme(path: Path) -> Imported:
    shutil.copy(path, path.with_name("one_3.json"))
    return from_labelme(path.with_name("one_3.json"), OPTIONS)


READERS: dict[str, tuple[Any, Callable[[Path], Imported]]] = {
    "coco": (COCO, lambda path: from_coco(path, OPTIONS, crowds=True)),
    "youtube-vis": (YOUTUBE_VIS, lambda path: from_coco(path, OPTIONS)),
    "label-studio": (LABEL_STUDIO, lambda path: from_label_studio(path, OPTIONS)),
    "detections": (DETECTIONS, lambda path: from_detections(path, OPTIONS, box_format="xyxy")),
    "fiftyone": (FIFTYONE, fiftyone),
    "labelme": (LABELME, labelme),
}


def spoiled_text(text: str, rng: random.Random) -> str:
    """One or two words, or what lies anywhere, are others, or gone."""
    for _ in range(rng.choice((1, 1, 2))):
        begin, end = rng.choice([found.span() for found in re.finditer(r"[\w.-]+", text)])
        if rng.random() < 0.15:
            begin = rng.randrange(len(text))
            end = begin + rng.randrange(20)
        text = text[:begin] + rng.choice(WORDS) + text[end:]
    return text


def read_back(read: Callable[[], Imported], folder: Path) -> bool:
    """Whether annotations are read at all; what they give must be a manifest."""
    try:
        found = read()
    except RtsBatchError:
        return False
    if found.rows:
        found.write(str(folder / "manifest.jsonl"))
        read_manifest(str(folder / "manifest.jsonl"))
    return True


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.long
def test_spoiled_text_gives_our_error_or_a_manifest(tmp_path: Path, name: str) -> None:
    file, text, reader = TEXTS[name]
    path = tmp_path / "of" / file
    path.parent.mkdir()
    path.write_text(text)
    assert reader(path).rows
    rng = random.Random(name)
    for _ in range(300):
        path.write_text(spoiled_text(text, rng))
        read_back(lambda: reader(path), tmp_path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.long
def test_rubbish_gives_our_error_or_a_manifest(tmp_path: Path, name: str) -> None:
    data, reader = READERS[name]
    rng = random.Random(name)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data))
    assert reader(path).rows
    refused = 0
    for _ in range(300):
        path.write_text(json.dumps(spoiled(data, rng)))
        refused += not read_back(lambda: reader(path), tmp_path)
    assert refused < 150, "what cannot be read costs itself, and seldom the whole file"
