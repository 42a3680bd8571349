"""Whole evaluations: each benchmark's layout on disk, its manifest, its scores, its tables, plots and archives."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.errors import ResultsError, UsageError
from rts_batch.evaluation.layouts.sequences import read_boxes, read_labels
from rts_batch.evaluation.prepare import prepare
from rts_batch.evaluation.scoring import score
from rts_batch.evaluation.tables import to_markdown
from rts_batch.io.video.opening import FrameRange, open_video
from rts_batch.manifest import read_manifest
from rts_batch.masks import LABEL_PALETTE, decode_rle, mask_box
from tests.support.cluster import SharedCluster
from tests.support.places import REPOSITORY, shared_folder
from tests.support.run_folders import write_plain_masks
from tests.support.running import STUB

Mask = NDArray[np.bool_]
SIZE = (48, 64)
BOX_BENCHMARKS = ("lasot", "nfs", "uav123", "trackingnet", "got10k")


def box_of(frame: int) -> tuple[int, int, int, int]:
    return 5 + 2 * frame, 7, 20, 16


def rectangle(frame: int, *, row: int = 7) -> Mask:
    mask = np.zeros(SIZE, bool)
    x, _, w, h = box_of(frame)
    mask[row : row + h, x : x + w] = True
    return mask


def write_frames(folder: Path, count: int, pattern: str = "{:05d}.jpg", first: int = 0) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", SIZE[::-1], (index, 0, 0)).save(folder / pattern.format(index + first))


def write_text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_labels(path: Path, masks: Mapping[int, Mask]) -> None:
    labels = np.zeros(SIZE, np.uint8)
    for label, mask in masks.items():
        labels[mask] = label
    image = Image.fromarray(labels)
    image.putpalette(LABEL_PALETTE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_boxes(root: Path, benchmark: str, frames: int = 6) -> str:
    """One sequence in the benchmark's layout; returns its name. Frame 3 is absent where the layout can say so."""
    lines = [",".join(map(str, box_of(frame))) for frame in range(frames)]
    if benchmark == "lasot":
        folder = root / "cat" / "cat-3"
        write_frames(folder / "img", frames)
        write_text(folder / "groundtruth.txt", lines)
        write_text(folder / "full_occlusion.txt", ["0,0,0,1,0,0"])
        write_text(folder / "out_of_view.txt", ["0,0,0,0,0,0"])
        return "cat-3"
    if benchmark == "nfs":
        write_frames(root / "ball" / "30" / "ball", frames)
        corners = [(x, y, x + w, y + h) for x, y, w, h in map(box_of, range(frames))]
        write_text(
            root / "ball" / "30" / "ball.txt",
            [f'0 {" ".join(map(str, corners[line // 8]))} {line} 0 0 0 "ball"' for line in range(8 * frames)],
        )
        return "ball"
    if benchmark == "uav123":
        lines[3] = "NaN,NaN,NaN,NaN"
        write_frames(root / "data_seq" / "UAV123" / "car1", 760, "{:06d}.jpg", first=1)
        write_text(root / "anno" / "UAV123" / "car1_2.txt", lines)
        return "car1_2"
    if benchmark == "trackingnet":
        write_frames(root / "TEST" / "frames" / "abc_0", frames, "{}.jpg")
        write_text(root / "TEST" / "anno" / "abc_0.txt", lines)
        return "abc_0"
    write_frames(root / "GOT-10k_Val_000001", frames, "{:08d}.jpg", first=1)
    write_text(root / "list.txt", ["GOT-10k_Val_000001"])
    write_text(root / "GOT-10k_Val_000001" / "groundtruth.txt", lines)
    write_text(root / "GOT-10k_Val_000001" / "cover.label", ["8", "8", "8", "0", "8", "8"])
    return "GOT-10k_Val_000001"


@pytest.mark.parametrize("benchmark", BOX_BENCHMARKS)
def test_a_box_benchmark_is_prepared_and_scored(tmp_path: Path, benchmark: str) -> None:
    name = make_boxes(tmp_path / "data", benchmark)
    manifest = tmp_path / "manifest.csv"
    prepare(benchmark, tmp_path / "data", str(manifest))
    (task,) = read_manifest(str(manifest)).tasks
    assert task.targets[0].extras == {"init": "box"}
    start = 750 if benchmark == "uav123" else 0
    assert (task.video_id, task.start, task.end) == (name, start, start + 6)
    assert task.targets[0].prompts[0].box == box_of(0)
    assert Path(task.uri).is_dir()

    absent = benchmark in ("lasot", "uav123", "got10k")
    masks = [rectangle(frame) for frame in range(6)]
    masks[3] = np.zeros(SIZE, bool)  # missing where the target is absent, else two pixels behind
    write_plain_masks(tmp_path / "run", name, {1: masks}, {1: start})
    report = score(benchmark, tmp_path / "data", str(tmp_path / "run"))
    overlap = 18 / 22
    if benchmark == "got10k":
        assert report.measures == {"ao": 1, "sr50": 1, "sr75": 1}
    elif benchmark == "lasot":
        assert report.measures["precision"] == pytest.approx(5 / 6)
        assert report.measures["success"] == pytest.approx(5 / 6 * 20 / 21)
    elif absent:
        assert report.measures["success"] == pytest.approx(20 / 21)
    elif benchmark == "nfs":
        passed = sum(overlap > step / 20 for step in range(21))
        assert report.measures["success"] == pytest.approx((5 * 20 + passed) / 6 / 21)
        assert report.measures["normalised_precision"] == 1
    else:
        assert 0.9 < report.measures["success"] < 1
        # TrackingNet's precision is an area: 2 pixels count as wrong at 0 pixels only.
        assert report.measures["precision"] == pytest.approx(1 - 1 / 6 / 20 / 2)
    assert report.sequences[name] == pytest.approx(dict(report.measures))


def test_polygons_become_the_boxes_around_them(tmp_path: Path) -> None:
    path = tmp_path / "boxes.txt"
    write_text(path, ["1,2,3,4", "10\t20\t30\t20\t30\t50\t10\t50", "NaN,NaN,NaN,NaN", "1 2 3.5 4"])
    boxes = read_boxes(path)
    assert boxes[1].tolist() == [10, 20, 20, 30]
    assert np.isnan(boxes[2]).all()
    assert boxes[3, 2] == 3.5
    for wrong, message in (("1,2,3", "3 numbers"), ("a,b,c,d", "not a list"), ("NaN,1,2,3", "first line")):
        write_text(path, [wrong])
        with pytest.raises(UsageError, match=message):
            read_boxes(path)


def test_davis_is_prepared_and_scored_from_the_real_layout(tmp_path: Path) -> None:
    root = shared_folder("data/davis-dev")
    prepare("davis2016", root, str(tmp_path / "masks.csv"))
    prepare("davis2016", root, str(tmp_path / "boxes.csv"), init="box")
    tasks = {task.video_id: task for task in read_manifest(str(tmp_path / "masks.csv")).tasks}
    boxes = {task.video_id: task for task in read_manifest(str(tmp_path / "boxes.csv")).tasks}
    assert len(tasks) == 10

    name = "libby"
    paths = sorted((root / "Annotations" / "480p" / name).glob("*.png"))
    truths = [read_labels(path) > 0 for path in paths]
    rle = tasks[name].targets[0].prompts[0].mask_rle
    assert rle is not None
    assert (decode_rle(rle["counts"].encode(), *rle["size"]) == truths[0]).all()
    assert boxes[name].targets[0].prompts[0].box == mask_box(truths[0])

    masks = [cv2.dilate(mask.view(np.uint8), np.ones((9, 9), np.uint8)).view(bool) for mask in truths]
    masks[0], masks[-1] = np.zeros_like(masks[0]), np.zeros_like(masks[0])  # these two do not count
    write_plain_masks(tmp_path / "run", name, {1: masks}, {1: 0})
    with pytest.raises(ResultsError, match=r"lacks 9 of the 10 sequences.*--partial"):
        score("davis2016", root, str(tmp_path / "run"))
    report = score("davis2016", root, str(tmp_path / "run"), partial=True)
    expected = np.mean([(m & t).sum() / (m | t).sum() for m, t in zip(masks[1:-1], truths[1:-1], strict=True)])
    assert report.measures["j_mean"] == pytest.approx(expected, abs=1e-9)
    assert report.measures["j_and_f"] == pytest.approx((expected + report.measures["f_mean"]) / 2, abs=1e-9)
    assert len(report.missing) == 9
    assert "Partial: 9 of 10" in to_markdown(report)


def test_davis_2017_scores_each_object(tmp_path: Path) -> None:
    root = tmp_path / "DAVIS"
    write_frames(root / "JPEGImages" / "480p" / "pair", 5)
    write_frames(root / "JPEGImages" / "480p" / "unlisted", 5)
    first, second = [rectangle(frame) for frame in range(5)], [rectangle(frame, row=30) for frame in range(5)]
    for frame in range(5):
        void = rectangle(0, row=25) & ~first[frame] & ~second[frame]
        labels = {1: first[frame], 2: second[frame], 255: void}
        write_labels(root / "Annotations" / "480p" / "pair" / f"{frame:05d}.png", labels)
    write_text(root / "ImageSets" / "2017" / "val.txt", ["pair"])
    assert prepare("davis2017", root, str(tmp_path / "m.csv")).targets == 2
    write_plain_masks(tmp_path / "run", "pair", {1: first, 2: [np.zeros(SIZE, bool)] * 5}, {1: 0, 2: 0})
    report = score("davis2017", root, str(tmp_path / "run"))
    assert report.sequences["pair/1"]["j_and_f"] == 1
    assert report.sequences["pair/2"]["j_and_f"] == 0
    assert report.measures["j_and_f"] == 0.5
    assert report.published == {"j_and_f": 80.2}
    assert "- weights: `0123abcd`\n- each target given by a mask\n" in to_markdown(report)
    write_plain_masks(tmp_path / "run", "pair", {1: first, 2: second}, {1: 0, 2: 0}, init="box")
    report = score("davis2017", root, str(tmp_path / "run"))
    assert (report.measures["j_and_f"], report.published) == (1, {})
    assert "paper" not in to_markdown(report)
    # The year before, the same folder means one object: all that is marked, void too.
    assert prepare("davis2016", root, str(tmp_path / "m.csv")).targets == 1


def make_youtubevos(root: Path) -> None:
    """Object 1 (seen) from frame 0 on, object 2 (unseen) from frame 2 on, 5 frames."""
    write_frames(root / "valid" / "JPEGImages" / "vid", 5, "{:05d}.jpg")
    for frame in range(5):
        masks = {1: rectangle(frame)} | ({2: rectangle(frame, row=30)} if frame >= 2 else {})
        write_labels(root / "valid" / "Annotations" / "vid" / f"{frame:05d}.png", masks)
    frames = [f"{frame:05d}" for frame in range(5)]
    objects = {"1": {"category": "cat", "frames": frames}, "2": {"category": "yak", "frames": frames[2:]}}
    write_text(root / "valid" / "meta.json", [json.dumps({"videos": {"vid": {"objects": objects}}})])
    train = {"videos": {"other": {"objects": {"1": {"category": "cat", "frames": ["00000"]}}}}}
    write_text(root / "train" / "meta.json", [json.dumps(train)])


def test_frames_are_numbered_as_the_pipeline_numbers_them(tmp_path: Path) -> None:
    """By their numbers, not their names, and without what macOS leaves beside them."""
    root = tmp_path / "DAVIS"
    write_frames(root / "JPEGImages" / "480p" / "one", 12, "{}.jpg", first=1)
    for path in list((root / "JPEGImages" / "480p" / "one").iterdir()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7mac")
    masks = [rectangle(frame) for frame in range(12)]
    for frame, mask in enumerate(masks):
        write_labels(root / "Annotations" / "480p" / "one" / f"{frame + 1}.png", {1: mask})
    prepare("davis2017", root, str(tmp_path / "manifest.csv"))
    (task,) = read_manifest(str(tmp_path / "manifest.csv")).tasks
    with open_video(task.uri, FrameRange()) as video:
        shown = [float(frame.image[..., 0].mean()) for frame in video]
    assert len(shown) == 12
    assert shown == sorted(shown)
    (row,) = csv.DictReader((tmp_path / "manifest.csv").open())
    assert row["frames"] == "12"
    write_plain_masks(tmp_path / "run", "one", {1: masks}, {1: 0})
    assert score("davis2017", root, str(tmp_path / "run")).measures["j_and_f"] == 1


def test_youtubevos_scores_seen_and_unseen_objects_and_writes_the_servers_archive(tmp_path: Path) -> None:
    root, run = tmp_path / "ytvos", tmp_path / "run"
    make_youtubevos(root)
    prepare("youtubevos2019", root, str(tmp_path / "m.csv"))
    (task,) = read_manifest(str(tmp_path / "m.csv")).tasks
    assert [(one.object_id, one.prompts[0].frame, one.category) for one in task.targets] == [
        (1, 0, "cat"),
        (2, 2, "yak"),
    ]
    first = [rectangle(frame) for frame in range(5)]
    second = [rectangle(2, row=30), rectangle(3, row=30), np.zeros(SIZE, bool)]
    write_plain_masks(run, "vid", {1: first, 2: second}, {1: 0, 2: 2})
    measures = score("youtubevos2019", root, str(run)).measures
    assert measures["j_seen"] == measures["f_seen"] == 1
    assert measures["j_unseen"] == measures["f_unseen"] == 0.5
    assert measures["g"] == 0.75
    (root / "train" / "meta.json").unlink()
    assert set(score("youtubevos2019", root, str(run)).measures) == {"j", "f"}

    (root / "valid" / "Annotations" / "vid" / "00003.png").unlink()
    with pytest.raises(UsageError, match=r"00003\.jpg has no annotation.*--archive"):
        score("youtubevos2019", root, str(run))
    arguments = ["score", "youtubevos2019", str(root), str(run), "--archive", str(tmp_path / "a.zip")]
    assert CliRunner().invoke(app, ["evaluate", *arguments]).exit_code == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"Annotations/vid/{frame:05d}.png" for frame in range(5)]
        archive.extractall(tmp_path)
    labels = read_labels(tmp_path / "Annotations" / "vid" / "00003.png")
    assert ((labels == 1) == first[3]).all()
    assert ((labels == 2) == second[1]).all()
    assert Image.open(tmp_path / "Annotations" / "vid" / "00003.png").getpalette()[:9] == [
        0,
        0,
        0,
        128,
        0,
        0,
        0,
        128,
        0,
    ]


def test_an_object_that_is_annotated_once_is_left_out_and_named(tmp_path: Path) -> None:
    root, run = tmp_path / "ytvos", tmp_path / "run"
    make_youtubevos(root)
    meta = root / "valid" / "meta.json"
    content = json.loads(meta.read_text())
    content["videos"]["vid"]["objects"]["2"]["frames"] = ["00002"]
    meta.write_text(json.dumps(content))
    masks = {1: [rectangle(frame) for frame in range(5)], 2: [rectangle(frame, row=30) for frame in range(2, 5)]}
    write_plain_masks(run, "vid", masks, {1: 0, 2: 2})
    report = score("youtubevos2019", root, str(run))
    assert (report.measures, report.uncounted) == ({"j": 1, "f": 1}, ("vid/2",))
    assert "Not counted, as annotated on the given frame only: vid/2." in to_markdown(report)
    content["videos"]["vid"]["objects"]["1"]["frames"] = ["00000"]
    meta.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="vid/1, vid/2: no object has an annotated frame that counts"):
        score("youtubevos2019", root, str(run))


@pytest.mark.parametrize("name", ["full_occlusion.txt", "out_of_view.txt"])
def test_lasot_needs_to_say_where_the_target_is_absent(tmp_path: Path, name: str) -> None:
    make_boxes(tmp_path, "lasot")
    (tmp_path / "cat" / "cat-3" / name).unlink()
    with pytest.raises(UsageError, match=f"{name} is missing: it says in which frames the target is to be seen"):
        prepare("lasot", tmp_path, str(tmp_path / "m.csv"))


def test_masks_of_davis_2016_are_none_of_davis_2017(tmp_path: Path) -> None:
    write_frames(tmp_path / "JPEGImages" / "480p" / "one", 3)
    for frame in range(3):
        write_labels(tmp_path / "Annotations" / "480p" / "one" / f"{frame:05d}.png", {255: rectangle(frame)})
    with pytest.raises(UsageError, match=r"00000.png has no object.*those of davis2016"):
        prepare("davis2017", tmp_path, str(tmp_path / "m.csv"))
    assert prepare("davis2016", tmp_path, str(tmp_path / "m.csv")).targets == 1


def test_trackingnet_without_annotations_gives_the_servers_archive(tmp_path: Path) -> None:
    name = make_boxes(tmp_path / "data", "trackingnet")
    write_text(tmp_path / "data" / "TEST" / "anno" / f"{name}.txt", ["5,7,20,16"])
    prepare("trackingnet", tmp_path / "data", str(tmp_path / "m.csv"))
    assert read_manifest(str(tmp_path / "m.csv")).tasks[0].end is None
    masks = [rectangle(frame) for frame in range(5)] + [np.zeros(SIZE, bool)]
    write_plain_masks(tmp_path / "run", name, {1: masks}, {1: 0})
    with pytest.raises(UsageError, match=r"first frame only.*--archive"):
        score("trackingnet", tmp_path / "data", str(tmp_path / "run"))
    arguments = ["score", "trackingnet", str(tmp_path / "data"), str(tmp_path / "run"), "--archive"]
    assert CliRunner().invoke(app, ["evaluate", *arguments, str(tmp_path / "a.zip")]).exit_code == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        rows = archive.read(f"{name}.txt").decode().split()
    assert [row.split(".")[0] for row in rows] == ["5", "7", "9", "11", "13", "13"]  # the last is the one before
    result = CliRunner().invoke(app, ["evaluate", "score", "nfs", str(tmp_path), "run", "--archive", "a.zip"])
    assert result.exit_code == 2


def test_an_archive_is_promised_of_no_benchmark_that_has_none(tmp_path: Path) -> None:
    """Of GOT-10k's test set the score sent to --archive, and --archive away again."""
    name = make_boxes(tmp_path / "data", "got10k")
    write_text(tmp_path / "data" / name / "groundtruth.txt", ["5,7,20,16"])
    (tmp_path / "data" / name / "cover.label").unlink()
    write_plain_masks(tmp_path / "run", name, {1: [rectangle(frame) for frame in range(6)]}, {1: 0})
    with pytest.raises(UsageError, match="GOT-10k's one that this version does not write"):
        score("got10k", tmp_path / "data", str(tmp_path / "run"))


def test_scores_come_as_table_json_markdown_and_plots(tmp_path: Path) -> None:
    name = make_boxes(tmp_path / "data", "lasot")
    write_plain_masks(tmp_path / "run", name, {1: [rectangle(frame) for frame in range(6)]}, {1: 0})
    base = ["score", "lasot", str(tmp_path / "data"), str(tmp_path / "run")]
    files = ["--markdown", str(tmp_path / "s.md"), "--plots", str(tmp_path / "plots")]
    result = CliRunner().invoke(app, ["evaluate", *base, "--json", *files])
    event = json.loads(result.output)
    assert event["event"] == "scores"
    assert event["measures"]["precision"] == pytest.approx(5 / 6)
    assert event["published"]["success"] == 69.7
    assert "| precision | 83.3 | 73.7 ? |" in (tmp_path / "s.md").read_text()
    assert f"| {name} | " in (tmp_path / "s.md").read_text()
    for plot in ("success", "precision", "normalised_precision"):
        root = xml.etree.ElementTree.parse(tmp_path / "plots" / f"{plot}.svg").getroot()
        (line,) = root.findall("{http://www.w3.org/2000/svg}polyline")
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert len(points) == (21 if plot == "success" else 51)
        assert all(0 <= x <= 480 and 0 <= y <= 360 for x, y in points)
    assert "| success (AUC) | " in CliRunner().invoke(app, ["evaluate", *base]).output


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    make_boxes(tmp_path / "data", "nfs")
    runner = CliRunner()
    for arguments, code, message in (
        (["prepare", "coco", str(tmp_path), "-o", "m.csv"], 2, "there is no benchmark 'coco'; choose one of lasot"),
        (["prepare", "davis2017", "s3://bucket/DAVIS", "-o", "m.csv"], 2, "is no local folder"),
        (["prepare", "davis2017", str(tmp_path / "nowhere"), "-o", "m.csv"], 2, "is no local folder"),
        (["prepare", "davis2017", str(tmp_path), "-o", "m.csv"], 2, "expected Annotations/480p/<name>/"),
        (["prepare", "davis2017", str(tmp_path), "-o", "m.parquet"], 2, "a name that ends in .csv"),
        (["prepare", "nfs", str(tmp_path / "data"), "-o", "m.csv", "--init", "mask"], 2, "gives boxes, no masks"),
        (["prepare", "got10k", str(tmp_path), "-o", "m.csv"], 2, "GOT-10k/val"),
        (["score", "nfs", str(tmp_path / "data"), str(tmp_path / "none")], 1, "holds no masks"),
    ):
        result = runner.invoke(app, ["evaluate", *arguments])
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    write_plain_masks(tmp_path / "run", "ball", {1: [rectangle(frame) for frame in range(4)]}, {1: 0})
    result = runner.invoke(app, ["evaluate", "score", "nfs", str(tmp_path / "data"), str(tmp_path / "run"), "--json"])
    assert "covers 4 frames from 0 on, the benchmark needs 6" in json.loads(result.stdout)["message"]
    write_plain_masks(tmp_path / "other", "ball", {2: [rectangle(frame) for frame in range(6)]}, {2: 0})
    with pytest.raises(ResultsError, match="object 1: the run covers no frame"):
        score("nfs", tmp_path / "data", str(tmp_path / "other"))
    (tmp_path / "run" / "masks" / "ball-0123456789abcdef.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(ResultsError):
        score("nfs", tmp_path / "data", str(tmp_path / "run"))


@pytest.mark.ray
def test_the_job_prepares_tracks_and_scores(tmp_path: Path, cluster: SharedCluster) -> None:
    root = tmp_path / "DAVIS"
    write_frames(root / "JPEGImages" / "480p" / "one", 5)
    for frame in range(5):
        write_labels(root / "Annotations" / "480p" / "one" / f"{frame:05d}.png", {1: rectangle(frame)})
    out = tmp_path / "out"
    arguments = ["davis2017", root, "--out", out, *STUB, "--workers", 1, "--json"]
    outcome = cluster.run(*arguments, program=[str(REPOSITORY / "jobs" / "evaluate.py")])
    assert outcome.code == 0, outcome.err
    scores = json.loads(outcome.out.splitlines()[-1])
    assert 0 < scores["measures"]["j_and_f"] <= 1
    assert scores["init"] == "mask"
    assert scores["published"] == {"j_and_f": 80.2}
    assert (out / "scores.md").read_text().startswith("# DAVIS 2017")
    with (out / "manifest.csv").open() as file:
        assert [row["video_id"] for row in csv.DictReader(file)] == ["one"]
