"""Every export, read back by a reader that shares no code with what wrote it, gives the masks that the run holds."""

from __future__ import annotations

import base64
import configparser
import contextlib
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from rts_batch.errors import UsageError
from rts_batch.export.names import ExportName
from rts_batch.export.row_filter import RowFilter
from rts_batch.export.run import FORMATS, export_run
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.manifest.importers.label_studio import brush_values
from rts_batch.masks import VOID, State, decode_rle
from rts_batch.runs.compaction import compact
from tests.support.run_folders import Video, begin_masks, moving_squares, row_of, write_run
from tests.support.videos import Disc, make_video

FRAMES, HEIGHT, WIDTH = 15, 120, 160
Found = dict[tuple[str, int, int], NDArray[np.bool_]]
"""Masks by video, object and frame; absent ones are left out."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    """Two real videos, two targets in the first; some masks are in two parts, some empty: nothing is there."""
    folder = tmp_path_factory.mktemp("videos")
    discs = [Disc((0.2, 0.5), (0.8, 0.5), 0.25), Disc((0.8, 0.45), (0.2, 0.55), 0.1)]
    first = make_video(folder / "one.mp4", FRAMES, discs=discs)
    second = make_video(folder / "two.mp4", FRAMES, discs=[Disc()])
    first[6:8, 1] = False
    first[4, 0, 2:9, 3:9] = True
    return [
        Video("clips/one.mp4", str(folder / "one.mp4"), first, {1: "cat & <dog>", 5: None}, {5: 3}, said_absent=True),
        Video("clips/One.mp4", str(folder / "two.mp4"), second, {2: "ant"}),
    ]


NAMES = {
    f"{video_id.replace('/', '_')}_{hashlib.sha256(video_id.encode()).hexdigest()[:8]}": video_id
    for video_id in ("clips/one.mp4", "clips/One.mp4")
}
"""What the exports call the videos: some file systems take their names for the same."""


@pytest.fixture(scope="module")
def run(videos: list[Video], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "run"
    write_run(folder, videos)
    return folder


def truth(videos: list[Video], *, every: int = 1) -> Found:
    return {
        (video.video_id, object_id, frame): video.truth(object_id, frame)
        for video in videos
        for object_id in video.categories
        for frame in range(video.first.get(object_id, 0), len(video.masks))
        if frame % every == 0 and video.truth(object_id, frame).any()
    }


def decode(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    return coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def read_coco(folder: Path) -> Found:
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(folder / "annotations" / "instances_default.json")
    names = {video["id"]: video["source_id"] for video in data.dataset["videos"]}
    found = {}
    for annotation in data.loadAnns(data.getAnnIds()):
        (image,) = data.loadImgs(annotation["image_id"])
        mask = data.annToMask(annotation).astype(bool)
        assert mask.shape == (image["height"], image["width"])
        assert annotation["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8)))
        assert annotation["area"] == mask.sum()
        found[names[image["video_id"]], annotation["track_id"], image["frame_index"]] = mask
    return found


def read_ytvis(folder: Path) -> Found:
    data = json.loads((folder / "instances.json").read_text())
    videos = {video["id"]: video for video in data["videos"]}
    found = {}
    for annotation in data["annotations"]:
        video = videos[annotation["video_id"]]
        lists = [annotation[name] for name in ("segmentations", "bboxes", "areas")]
        assert {len(values) for values in lists} == {video["length"]} == {len(video["file_names"])}
        for name, rle, box, area in zip(video["file_names"], *lists, strict=True):
            assert (rle is None) == (box is None) == (area is None)
            if rle is not None:
                packed = coco_mask.frPyObjects(
                    rle, video["height"], video["width"]
                )  # of a list of runs, as the original's
                mask = coco_mask.decode(packed).astype(bool)
                assert (mask.sum(), list(cv2.boundingRect(mask.astype(np.uint8)))) == (area, box)
                folder_name, file = name.split("/")
                found[NAMES[folder_name], annotation["track_id"], int(file.removesuffix(".jpg"))] = mask
    return found


def read_sav(folder: Path) -> Found:
    found = {}
    for path in folder.glob("*_auto.json"):
        data = json.loads(path.read_text())
        assert path.name == f"{data['video_id']}_auto.json"
        assert data["masklet_num"] == len(data["masklet_id"]) == len(data["masklet_type"])
        assert data["masklet_frame_count"] == [len(data["masklet"])] * data["masklet_num"]
        assert data["video_duration"] == pytest.approx(data["video_frame_count"] / 25)
        for place, masks in enumerate(data["masklet"]):
            for object_id, rle in zip(data["masklet_id"], masks, strict=True):
                mask = decode(rle)
                assert mask.shape == (data["video_height"], data["video_width"])
                if mask.any():
                    found[NAMES[data["video_id"]], object_id, place * data["annotated_every"]] = mask
    return found


def read_pngs(folder: Path, mode: str, number: Callable[[int], int]) -> Found:
    found = {}
    for path in folder.glob("*/*.png"):
        with Image.open(path) as image:
            assert image.mode == mode
            labels = np.asarray(image)
        for value in np.unique(labels[labels > 0]).tolist():
            found[NAMES[path.parent.name], number(value), int(path.stem)] = labels == value
    return found


def read_davis(folder: Path) -> Found:
    names = (folder / "ImageSets" / "2017" / "train.txt").read_text().split()
    frames = folder / "Annotations" / "Full-Resolution"
    assert sorted(names) == sorted(path.name for path in frames.iterdir())
    with Image.open(next(frames.glob("*/*.png"))) as image:
        assert image.getpalette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
    return read_pngs(frames, "P", lambda value: value)


def read_mots_png(folder: Path) -> Found:
    return read_pngs(folder / "instances", "I;16", lambda value: value % 1000)


def read_mots_txt(folder: Path) -> Found:
    found = {}
    for path in (folder / "instances_txt").glob("*.txt"):
        for line in path.read_text().splitlines():
            frame, number, kind, height, width, counts = line.split(" ")
            assert int(number) // 1000 == int(kind)
            mask = decode({"size": [int(height), int(width)], "counts": counts})
            found[NAMES[path.stem], int(number) % 1000, int(frame)] = mask
    return found


def read_cvat(folder: Path) -> Found:
    found = {}
    for path in folder.glob("*.xml"):
        root = ElementTree.parse(path).getroot()
        assert root.findtext("version") == "1.1"
        size = root.find("meta/task/original_size")
        labels = {label.findtext("name") for label in root.iterfind("meta/task/labels/label")}
        assert root.findtext("meta/task/size") == str(FRAMES)
        for track in root.iterfind("track"):
            (shape,) = track.findall("mask")  # CVAT reads the first mask of a track only
            assert (shape.get("keyframe"), shape.get("outside")) == ("1", "0")
            assert track.get("label") in labels
            x, y, w, h = (int(shape.get(name)) for name in ("left", "top", "width", "height"))
            runs = [int(run) for run in shape.get("rle").split(",")]
            values = np.repeat(np.arange(len(runs)) % 2, runs).reshape(h, w)
            mask = np.zeros((int(size.findtext("height")), int(size.findtext("width"))), bool)
            mask[y : y + h, x : x + w] = values
            object_id = int(shape.find("attribute[@name='object_id']").text)
            assert track.get("group_id") == str(object_id)
            found[root.findtext("meta/task/name"), object_id, int(shape.get("frame"))] = mask
    return found


def read_burst(folder: Path) -> Found:
    data = json.loads((folder / "annotations.json").read_text())
    kinds = {category["id"] for category in data["categories"]}
    found = {}
    for sequence in data["sequences"]:
        assert set(sequence["track_category_ids"].values()) <= kinds
        frames = zip(sequence["annotated_image_paths"], sequence["segmentations"], strict=True)
        for name, masks in frames:
            for track, about in masks.items():
                mask = decode({"size": [sequence["height"], sequence["width"]], "counts": about["rle"]})
                found[NAMES[sequence["seq_name"]], int(track), int(name.removesuffix(".jpg"))] = mask
    return found


def read_fiftyone(folder: Path) -> Found:
    found = {}
    for entry in json.loads((folder / "manifest.json").read_text())["index"]:
        assert Path(entry["data"]).exists()
        labels = json.loads((folder / entry["labels"]).read_text())
        for number, frame in labels["frames"].items():
            assert frame["frame_number"] == int(number)
            for item in frame["objects"]["objects"]:
                part = np.load(io.BytesIO(zlib.decompress(base64.b64decode(item["mask"]))))
                corner = item["bounding_box"]["top_left"]
                x, y = round(corner["x"] * WIDTH), round(corner["y"] * HEIGHT)
                mask = np.zeros((HEIGHT, WIDTH), bool)
                mask[y : y + part.shape[0], x : x + part.shape[1]] = part
                assert round(item["bounding_box"]["bottom_right"]["x"] * WIDTH) == x + part.shape[1]
                found[NAMES[Path(entry["labels"]).stem], item["index"], int(number) - 1] = mask
    return found


def read_labelme(folder: Path) -> Found:
    found = {}
    for path in folder.glob("*/*.json"):
        data = json.loads(path.read_text())
        assert data["imagePath"] == f"{path.stem}.jpg"
        for shape in data["shapes"]:
            (left, top), (right, bottom) = shape["points"]
            part = cv2.imdecode(np.frombuffer(base64.b64decode(shape["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
            mask = np.zeros((data["imageHeight"], data["imageWidth"]), bool)
            mask[top : bottom + 1, left : right + 1] = part > 0
            found[NAMES[path.parent.name], shape["group_id"], int(path.stem)] = mask
    return found


def read_label_studio(folder: Path) -> Found:
    found = {}
    for task in json.loads((folder / "tasks.json").read_text()):
        prefix, name, frame = task["data"]["image"].rsplit("/", 2)
        assert prefix == "/data/local-files/?d=images"
        for region in task["annotations"][0]["result"]:
            height, width = region["original_height"], region["original_width"]
            values = brush_values(bytes(region["value"]["rle"]), 4 * height * width).reshape(height, width, 4)
            assert (values == values[..., :1]).all()
            found[NAMES[name], region["meta"]["track_id"], int(frame.removesuffix(".jpg"))] = values[..., 3] > 0
    labels = ElementTree.parse(folder / "labels.xml").getroot().iter("Label")
    assert [label.get("value") for label in labels] == ["ant", "cat & <dog>", "object"]
    return found


def read_datumaro(folder: Path) -> Found:
    data = json.loads((folder / "annotations" / "default.json").read_text())
    assert [label["name"] for label in data["categories"]["label"]["labels"]] == ["ant", "cat & <dog>", "object"]
    return {
        (item["attr"]["video_id"], mask["attributes"]["object_id"], item["attr"]["frame"]): decode(mask["rle"])
        for item in data["items"]
        for mask in item["annotations"]
    }


READERS: dict[str, Callable[[Path], Found]] = {
    "coco": read_coco,
    "ytvis": read_ytvis,
    "sav": read_sav,
    "davis": read_davis,
    "mots-png": read_mots_png,
    "mots-txt": read_mots_txt,
    "cvat": read_cvat,
    "burst": read_burst,
    "fiftyone": read_fiftyone,
    "labelme": read_labelme,
    "label-studio": read_label_studio,
    "datumaro": read_datumaro,
}
LOSSLESS = sorted(READERS)


def assert_same(found: Found, expected: Found) -> None:
    assert found.keys() == expected.keys()
    for key, mask in found.items():
        assert np.array_equal(mask, expected[key]), key


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("name", LOSSLESS)
def test_masks_come_back_without_loss(name: Any, every: int, run: Path, videos: list[Video], tmp_path: Path) -> None:
    summary = export_run(str(run), str(tmp_path / "out"), name, row_filter=RowFilter(every=every))
    expected = truth(videos, every=every)
    assert_same(READERS[name](tmp_path / "out"), expected)
    assert (summary.videos, summary.targets, summary.masks) == (2, 3, len(expected))
    assert summary.warnings == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_compacted_run_gives_the_same_files(name: Any, run: Path, tmp_path: Path) -> None:
    compact(str(run), str(tmp_path / "few"))
    for source, out in ((run, "a"), (tmp_path / "few", "b")):
        export_run(str(source), str(tmp_path / out), name)
    first, second = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in "ab"
    )
    assert first == second
    assert first


def test_categories_are_the_manifests_in_alphabetical_order(run: Path, tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "coco"), "coco")
    data = json.loads((tmp_path / "coco" / "annotations" / "instances_default.json").read_text())
    assert [(kind["id"], kind["name"]) for kind in data["categories"]] == [
        (1, "ant"),
        (2, "cat & <dog>"),
        (3, "object"),
    ]
    kinds = {(entry["video_id"], entry["track_id"], entry["category_id"]) for entry in data["annotations"]}
    numbers = {video["source_id"]: video["id"] for video in data["videos"]}
    one, two = numbers["clips/one.mp4"], numbers["clips/One.mp4"]
    assert kinds == {(one, 1, 2), (one, 5, 3), (two, 2, 1)}
    export_run(str(run), str(tmp_path / "mots"), "mots-txt")
    assert (tmp_path / "mots" / "classes.txt").read_text() == "1 ant\n2 cat & <dog>\n3 object\n"


def read_yolo(folder: Path) -> Iterator[tuple[str, int, int, NDArray[np.bool_]]]:
    """From the format's description: a line is a class and a closed polygon in fractions of width and height."""
    for path in (folder / "labels" / "train").glob("*.txt"):
        name, _, frame = path.stem.rpartition("_")
        for line in path.read_text().splitlines():
            kind, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2)
            assert len(points) >= 3
            assert points.min() >= 0
            assert points.max() < 1
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            pixels = (points * (WIDTH, HEIGHT)).astype(np.int32)  # some readers cut off, others round
            assert np.array_equal(pixels, np.rint(points * (WIDTH, HEIGHT)))
            cv2.fillPoly(mask, [pixels], 1)
            yield NAMES[name], int(kind), int(frame), mask.astype(bool)


def test_yolo_polygons_fill_to_the_masks(run: Path, videos: list[Video], tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), "yolo-seg")
    text = (tmp_path / "out" / "data.yaml").read_text()
    assert text.endswith('names:\n  0: "ant"\n  1: "cat & <dog>"\n  2: "object"\n')
    objects = {1: 1, 2: 5, 0: 2}
    expected = truth(videos)
    parts = exact = 0
    found = list(read_yolo(tmp_path / "out"))
    for video_id, kind, frame, mask in found:
        known = expected.pop((video_id, objects[kind], frame))
        whole = cv2.connectedComponents(known.astype(np.uint8))[0] == 2
        exact += whole and np.array_equal(mask, known)
        parts += not whole
        assert (mask & known).sum() >= 0.98 * (mask | known).sum()
    assert not expected
    assert parts > 0
    assert exact == len(found) - parts


@pytest.mark.parametrize("every", [1, 4])
def test_mot_boxes_come_back_and_each_line_names_its_class(
    every: int, run: Path, videos: list[Video], tmp_path: Path
) -> None:
    export_run(str(run), str(tmp_path / "out"), "mot", row_filter=RowFilter(every=every))
    found = {}
    for folder in (path for path in (tmp_path / "out").iterdir() if path.is_dir()):
        (video,) = [video for video in videos if video.video_id == NAMES[folder.name]]
        labels = (folder / "gt" / "labels.txt").read_text().splitlines()
        info = configparser.ConfigParser()
        info.read(folder / "seqinfo.ini")
        assert info["Sequence"]["seqlength"] == str(len(range(0, FRAMES, every)))
        for line in (folder / "gt" / "gt.txt").read_text().splitlines():
            frame, number, *box, taken, kind, seen = map(float, line.split(","))
            key = int(number)
            assert (taken, labels[int(kind) - 1], seen) == (1, video.categories[key] or "object", 1)
            found[video.video_id, key, (int(frame) - 1) * every] = box
    expected = truth(videos, every=every)
    assert {key: list(cv2.boundingRect(mask.astype(np.uint8))) for key, mask in expected.items()} == found


@pytest.mark.parametrize("name", ["lasot", "got10k"])
def test_boxes_come_back_for_every_target(name: Any, run: Path, videos: list[Video], tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(str(run), str(out), name)
    lines = (out / "sequences.csv").read_text().splitlines()[1:]
    by_id = {video.video_id: video for video in videos}
    seen = set()
    for line in lines:
        sequence, video_id, object_id, first, every = line.split(",")
        video, key = by_id[video_id], int(object_id)
        seen.add((video_id, key))
        assert (int(first), every) == (video.first.get(key, 0), "1")
        folder = out / sequence.split("-")[0] / sequence if name == "lasot" else out / sequence
        boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",")
        known = [cv2.boundingRect(video.truth(key, n).astype(np.uint8)) for n in range(int(first), FRAMES)]
        assert np.array_equal(boxes, known)
        if name == "lasot":
            absent = np.loadtxt(folder / "full_occlusion.txt", delimiter=",")
            assert len(np.loadtxt(folder / "out_of_view.txt", delimiter=",")) == len(boxes)
        else:
            absent = np.loadtxt(folder / "absence.label")
            info = configparser.ConfigParser()
            info.read(folder / "meta_info.ini")
            assert info["METAINFO"]["resolution"] == f"({WIDTH}, {HEIGHT})"
            assert info["METAINFO"]["object_class"] == (video.categories[key] or "object")
            assert np.array_equal(np.loadtxt(folder / "cover.label") == 0, absent == 1)
        assert np.array_equal(absent == 1, [not any(box) for box in known])
    assert seen == {("clips/one.mp4", 1), ("clips/one.mp4", 5), ("clips/One.mp4", 2)}
    assert len(lines) == 3


@pytest.mark.parametrize("name", ["lasot", "got10k"])
def test_sequences_of_boxes_begin_with_a_box(name: ExportName, tmp_path: Path) -> None:
    masks = moving_squares(5, 2)
    with begin_masks(tmp_path / "run", targets=2, covers="both") as writer:
        for frame in (3, 4, 2, 1, 0):  # the first target is found from frame 2 on, the second nowhere
            state: State = "lost" if frame < 2 else "prompt" if frame == 3 else "tracked"
            mask = masks[frame, 0] if frame > 1 else np.zeros_like(masks[0, 0])
            writer.add(row_of(mask, frame, state, score=0.5))
            writer.add(row_of(np.zeros_like(mask), frame, "lost", object_id=2, score=0.5))
        writer.close(frames=5)
    summary = export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    assert (summary.masks, summary.doubted) == (3, 2 + 5)
    (path,) = (tmp_path / "out").rglob("groundtruth.txt")
    boxes = np.loadtxt(path, delimiter=",")
    assert boxes.tolist() == [list(cv2.boundingRect(masks[frame, 0].astype(np.uint8))) for frame in (2, 3, 4)]
    (line,) = (tmp_path / "out" / "sequences.csv").read_text().splitlines()[1:]
    assert line == f"{path.parent.name},a,1,2,1"


@pytest.mark.parametrize(
    ("row_filter", "passes"),
    [
        (RowFilter(min_score=0.5), lambda video, key, n: video.state(key, n) == "prompt" or video.score(n) >= 0.5),
        (RowFilter(min_confidence=0.8), lambda video, key, n: video.state(key, n) == "prompt"),
        (RowFilter(min_area=1000), lambda video, key, n: video.truth(key, n).sum() >= 1000),
        (RowFilter(states=frozenset({"tracked"})), lambda video, key, n: video.state(key, n) == "tracked"),
        (RowFilter(objects=frozenset({5, 9})), lambda video, key, n: key == 5),
    ],
    ids=["score", "confidence", "area", "states", "objects"],
)
@pytest.mark.parametrize("name", ["coco", "ytvis", "cvat", "davis"])
def test_filters_leave_out_rows(
    row_filter: RowFilter,
    passes: Callable[[Video, int, int], bool],
    name: Any,
    run: Path,
    videos: list[Video],
    tmp_path: Path,
) -> None:
    export_run(str(run), str(tmp_path / "out"), name, row_filter=row_filter)
    by_id = {video.video_id: video for video in videos}
    expected = {key: mask for key, mask in truth(videos).items() if passes(by_id[key[0]], *key[1:])}
    if name == "coco" and row_filter.objects is None and not row_filter.min_area:
        # A picture with an object that is not annotated would teach that it is background.
        doubted = {
            (video.video_id, n)
            for video in videos
            for key in video.categories
            for n in range(video.first.get(key, 0), FRAMES)
            if video.state(key, n) != "lost" and not passes(video, key, n)
        }
        expected = {key: mask for key, mask in expected.items() if (key[0], key[2]) not in doubted}
    assert len(expected) < len(truth(videos))
    found = READERS[name](tmp_path / "out")
    assert_same({key: mask for key, mask in found.items() if key[1] != VOID}, expected)


QUALITIES = {(1, 0): None, (2, 0): None, (1, 1): 0.9, (2, 1): 0.3, (1, 2): 0.2, (2, 2): 0.1, (1, 3): 0.8, (2, 3): 0.9}
"""By object and frame: on the second frame one of two masks is good, on the third none."""


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two targets with qualities, and its masks in `masks.npy`."""
    masks = moving_squares(4, 2)
    (tmp_path / "judged" / "masks").mkdir(parents=True)
    np.save(tmp_path / "masks.npy", masks)
    path = tmp_path / "judged" / "masks" / "a-0123456789abcdef.parquet"
    with ResultsWriter(path, targets={1: {}, 2: {}}, weights="0123") as writer:
        for (key, frame), quality in QUALITIES.items():
            state: State = "prompt" if frame == 0 else "tracked"
            writer.add(row_of(masks[frame, key - 1], frame, state, object_id=key, quality=quality))
        writer.close(frames=4)
    return tmp_path / "judged"


def test_what_is_left_out_for_its_quality_is_void_and_never_background(judged: Path, tmp_path: Path) -> None:
    masks = np.load(tmp_path / "masks.npy")
    chosen = RowFilter(min_quality=0.5)
    for name in ("davis", "mots-png", "mots-txt", "burst", "coco", "yolo-seg"):
        summary = export_run(str(judged), str(tmp_path / name), name, row_filter=chosen)  # type: ignore[arg-type]
        assert summary.doubted == 3, name
    (folder,) = (tmp_path / "davis" / "Annotations" / "Full-Resolution").iterdir()
    labels = {path.stem: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}
    assert list(labels) == ["00000", "00001", "00003"]  # of the third frame nothing is known
    assert set(np.unique(labels["00000"])) == {0, 1, 2}
    assert np.array_equal(labels["00001"], np.where(masks[1, 0], 1, 255))
    (folder,) = (path for path in (tmp_path / "mots-png" / "instances").iterdir() if path.is_dir())
    assert set(np.unique(np.asarray(Image.open(folder / "000001.png")))) == {1001, 10_000}
    (text,) = (tmp_path / "mots-txt" / "instances_txt").iterdir()
    ignored = [line.split() for line in text.read_text().splitlines() if line.split()[1] == "10000"]
    assert [(line[0], line[2]) for line in ignored] == [("1", "10"), ("2", "10")]
    rest = decode_rle(ignored[0][5].encode(), *masks.shape[2:])
    assert np.array_equal(rest, ~masks[1, 0])
    (sequence,) = json.loads((tmp_path / "burst" / "annotations.json").read_text())["sequences"]
    assert sequence["annotated_image_paths"] == ["000000.jpg", "000003.jpg"]
    assert len(sequence["all_image_paths"]) == 4
    assert len(sequence["segmentations"]) == 2
    images = json.loads((tmp_path / "coco" / "annotations" / "instances_default.json").read_text())["images"]
    assert [image["frame_index"] for image in images] == [0, 3]
    assert len(list((tmp_path / "yolo-seg" / "labels" / "train").iterdir())) == 2


@pytest.mark.parametrize("least", [0.9, 0.3])
def test_a_value_that_equals_the_threshold_passes(least: float, judged: Path, tmp_path: Path) -> None:
    """Whether it lies above or below its number as the table's float32."""
    below = sum(quality is not None and quality < least for quality in QUALITIES.values())
    summary = export_run(str(judged), str(tmp_path / "ytvis"), "ytvis", row_filter=RowFilter(min_quality=least))
    assert (summary.masks, summary.doubted) == (len(QUALITIES) - below, below)


def test_where_a_person_said_that_the_target_is_absent_the_rest_is_background(tmp_path: Path) -> None:
    masks = moving_squares(4, 1)
    (tmp_path / "run" / "masks").mkdir(parents=True)
    with ResultsWriter(tmp_path / "run" / "masks" / "a-0123456789abcdef.parquet", targets={1: {}}) as writer:
        writer.add(row_of(masks[0, 0], 0, "prompt"))
        writer.add(row_of(masks[1, 0], 1, "tracked", score=0.8, quality=0.9))
        writer.add(row_of(np.zeros_like(masks[2, 0]), 2, "lost"))  # a person's word: nothing was searched
        writer.add(row_of(np.zeros_like(masks[3, 0]), 3, "lost", score=0.1, quality=0.4))  # the tracker's
        writer.close(frames=4)
    chosen = RowFilter(states=frozenset({"prompt", "tracked"}))
    for name in ("davis", "burst"):
        assert export_run(str(tmp_path / "run"), str(tmp_path / name), name, row_filter=chosen).doubted == 1  # type: ignore[arg-type]
    (folder,) = (tmp_path / "davis" / "Annotations" / "Full-Resolution").iterdir()
    labels = {path.stem: set(np.unique(np.asarray(Image.open(path)))) for path in sorted(folder.iterdir())}
    assert labels == {"00000": {0, 1}, "00001": {0, 1}, "00002": {0}}
    (sequence,) = json.loads((tmp_path / "burst" / "annotations.json").read_text())["sequences"]
    assert sequence["annotated_image_paths"] == ["000000.jpg", "000001.jpg", "000002.jpg"]


def test_object_255_and_void_do_not_go_together(judged: Path, tmp_path: Path) -> None:
    path = next((judged / "masks").iterdir())
    path.unlink()
    with ResultsWriter(path, targets={255: {}}, weights="0123") as writer:
        for frame in range(2):
            mask = np.load(tmp_path / "masks.npy")[frame, 0]
            writer.add(row_of(mask, frame, "tracked", object_id=255, quality=0.1 + frame / 2))
        writer.close(frames=2)
    export_run(str(judged), str(tmp_path / "all"), "davis")
    with pytest.raises(UsageError, match="object 255 has DAVIS's value"):
        export_run(str(judged), str(tmp_path / "some"), "davis", row_filter=RowFilter(min_quality=0.5))


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.has_images])
def test_extracted_frames_are_those_the_labels_name(name: Any, run: Path, videos: list[Video], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = export_run(str(run), str(out), name, row_filter=RowFilter(every=5), extract_frames=True)
    images = sorted(out.rglob("*.jpg"))
    assert summary.images == len(images)
    # Each target of a box data set has its frames to itself.
    assert len(images) == (3 + 3 + 2 if name in ("lasot", "got10k") else 6)
    if name == "coco":
        data = json.loads((out / "annotations" / "instances_default.json").read_text())
        assert {out / "images" / image["file_name"] for image in data["images"]} == set(images)
    from rts_batch.io.video.opening import open_video

    with open_video(videos[1].uri) as source:
        frames = {frame.index: frame.image for frame in source}
    if name == "davis":
        (folder,) = (out / "JPEGImages/Full-Resolution").glob("clips_One.mp4_*")
        image = np.asarray(Image.open(folder / "00010.jpg"))
        differences = {index: np.abs(image.astype(int) - frame).mean() for index, frame in frames.items()}
        assert min(differences, key=differences.__getitem__) == 10
        assert differences[10] < 4


@pytest.mark.parametrize("larger", [0, 1])
@pytest.mark.parametrize("name", ["davis", "mots-png", "mots-txt"])
def test_where_masks_overlap_the_smaller_target_is_on_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: ExportName, larger: int
) -> None:
    """These formats give a pixel to one target only, whatever its object id."""
    masks = moving_squares(4, 2)
    masks[2, larger] |= masks[2, 1 - larger]
    masks[3, 1] = masks[3, 0]
    video_id = "One.mp4"
    monkeypatch.setitem(NAMES, video_id, video_id)  # alone in its run, it keeps its own name
    write_run(tmp_path / "run", [Video(video_id, "/a.mp4", masks, {1: "cat", 2: "cat"})])
    summary = export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    shared = masks[2, 1 - larger].sum() + masks[3, 0].sum()
    assert summary.warnings == [
        f"video {video_id!r}: {shared} pixels belong to several targets; the smaller one has them"
    ]
    found = {(frame, object_id): mask for (_, object_id, frame), mask in READERS[name](tmp_path / "out").items()}
    assert np.array_equal(found[2, 2 - larger], masks[2, 1 - larger])
    assert np.array_equal(found[2, 1 + larger], masks[2, larger] & ~masks[2, 1 - larger])
    assert np.array_equal(found[3, 1], masks[3, 0])
    assert (3, 2) not in found
