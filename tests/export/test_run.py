"""Exports of runs that are damaged, empty, large or incomplete."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.errors import ResultsError, UsageError, VideoError
from rts_batch.export.formats.yolo import mask_polygon
from rts_batch.export.row_filter import RowFilter
from rts_batch.export.run import FORMATS, export_run
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.runs import video_masks
from tests.support.run_folders import Video, begin_masks, moving_squares, row_of, write_run
from tests.support.videos import make_video


def command(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["export", *(str(word) for word in words)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", [Video("a", "/nowhere/a.mp4", moving_squares(5, 2), {1: "cat", 2: None})])
    return tmp_path / "run"


@pytest.mark.parametrize("name", FORMATS)
def test_runs_without_a_single_mask_are_valid_exports(name: Any, tmp_path: Path) -> None:
    empty = np.zeros((4, 2, 10, 12), bool)
    write_run(tmp_path / "run", [Video("a", "/a.mp4", empty, {1: "cat", 2: None})])
    summary = export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    assert (summary.videos, summary.masks) == (1, 0)
    for path in (tmp_path / "out").rglob("*.json"):
        json.loads(path.read_text())
    for path in (tmp_path / "out").rglob("*.png"):
        assert not np.asarray(Image.open(path)).any()


@pytest.mark.parametrize("name", FORMATS)
def test_filters_that_nothing_passes_are_valid_exports(name: Any, run: Path, tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "a"), name, row_filter=RowFilter(objects=frozenset({77})))
    export_run(str(run), str(tmp_path / "b"), name, row_filter=RowFilter(every=1000, states=frozenset({"uncertain"})))
    for path in tmp_path.rglob("[ab]/**/*.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.needs_mask])
@pytest.mark.parametrize("rle", [b"zz\x01", b"", b"a", b"0"], ids=["byte", "empty", "cut", "short"])
def test_a_damaged_mask_is_named_and_nothing_is_left_behind(name: Any, rle: bytes, tmp_path: Path) -> None:
    masks = tmp_path / "run" / "masks"
    masks.mkdir(parents=True)
    good = row_of(np.eye(8, dtype=bool), 0, object_id=4, category="cat")
    with ResultsWriter(masks / "a-1.parquet", targets={4: {}}) as writer:
        writer.add(good)
        writer.add(good._replace(frame=1, rle=rle))
        writer.close(frames=2)
    with pytest.raises(ResultsError, match=r"video 'a', object 4, frame 1: .*(RLE|count)"):
        export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_no_run_is_named(run: Path, tmp_path: Path) -> None:
    assert "is not a run's folder" in command(tmp_path / "nothing", "--format", "coco", "--out", tmp_path / "o", code=1)
    pq.write_table(pa.table({"a": [1]}), run / "masks" / "zz.parquet")
    message = command(run, "--format", "coco", "--out", tmp_path / "out", code=1)
    assert "zz.parquet is not a masks file of rts-batch" in message
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_explained(run: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    message = command(run, "--format", "voc", *out, code=2)
    assert all(name in message for name in FORMATS)
    with pytest.raises(UsageError, match="'voc' is no export format; there are coco, ytvis"):
        export_run(str(run), str(tmp_path / "out"), "voc")  # type: ignore[arg-type]
    assert "none of prompt, tracked" in command(run, "--format", "coco", *out, "--states", "found", code=2)
    assert "'-x' is not an object id" in command(run, "--format", "coco", *out, "--objects", "1,-x", code=2)
    for option in ("--states", "--objects"):
        assert f"{option}: nothing is named" in command(run, "--format", "coco", *out, option, "", code=2)
    assert "less than or equal to 1" in command(run, "--format", "coco", *out, "--min-confidence", "95", code=2)
    assert "those that do: coco" in command(run, "--format", "cvat", *out, "--frames", "extract", code=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert "exists already" in command(run, "--format", "coco", *out, code=2)
    assert (tmp_path / "out" / "mine").exists()


def test_an_empty_folder_is_taken_and_the_summary_printed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    options = ("--format", "coco", "--out", tmp_path / "out", "--states", "tracked", "--objects", "2")
    first, second = command(run, *options).splitlines()
    assert first == f"{tmp_path / 'out'}: 4 masks of 1 target in 1 video"
    assert second.startswith("left out ")
    assert second.endswith("which is not background. To take what they hold: --states all")
    blank = Video("a", "/a.mp4", np.zeros((3, 1, 10, 12), bool), {1: None})
    write_run(tmp_path / "blank", [blank])
    text = command(tmp_path / "blank", "--format", "coco", "--out", tmp_path / "all", "--states", "all")
    assert text.splitlines()[1].endswith("which is not background")  # there is no more to take
    event = json.loads(command(run, "--format", "burst", "--out", tmp_path / "b", "--json"))
    assert (event["event"], event["masks"], event["left_out"]) == ("summary", 10, [])


def test_frames_on_which_not_every_target_is_marked_are_told(tmp_path: Path) -> None:
    square = np.ones((4, 4), bool)
    with begin_masks(tmp_path / "run", targets=1, covers="prompts") as writer:
        for frame in (0, 2):
            writer.add(row_of(square, frame, "prompt"))
        writer.close(frames=3)
    text = command(tmp_path / "run", "--format", "coco", "--out", tmp_path / "out")
    assert text.splitlines()[1].startswith("on 1 frame not every target is marked")
    event = json.loads(command(tmp_path / "run", "--format", "burst", "--out", tmp_path / "b", "--json"))
    assert (event["unmarked"], event["doubted"]) == (1, 0)


def test_videos_that_are_gone_are_left_out_of_an_export_with_frames(tmp_path: Path) -> None:
    masks = make_video(tmp_path / "b.mp4", 4)
    gone = Video("a", str(tmp_path / "a.mp4"), moving_squares(5, 1), {1: "cat"})
    write_run(tmp_path / "run", [gone, Video("b", str(tmp_path / "b.mp4"), masks, {1: "cat"})])
    options = (tmp_path / "run", "--format", "coco", "--frames", "extract", "--out")
    text = command(*options, tmp_path / "out", code=3)
    assert "4 masks of 1 target in 1 video, 4 images" in text
    assert f"left out video 'a': {tmp_path / 'a.mp4'} does not exist" in text
    data = json.loads((tmp_path / "out" / "annotations" / "instances_default.json").read_text())
    assert {image["file_name"] for image in data["images"]} == {f"b/00000{n}.jpg" for n in range(4)}
    (tmp_path / "b.mp4").write_bytes(b"no video any more")
    assert "left out video 'b'" in command(*options, tmp_path / "none", code=1)


def test_a_video_that_has_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    masks = make_video(path, 6)
    write_run(tmp_path / "run", [Video("a", str(path), masks, {1: "cat"})])
    make_video(path, 4)
    with pytest.raises(VideoError, match="has no frame 4, for which there are masks"):
        export_run(str(tmp_path / "run"), str(tmp_path / "out"), "ytvis", extract_frames=True)
    make_video(path, 6, size=(96, 64))
    with pytest.raises(VideoError, match="frames of 96×64 pixels, its masks 160×120"):
        export_run(str(tmp_path / "run"), str(tmp_path / "out"), "ytvis", extract_frames=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_three_hundred_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_masks, "ROWS_IN_MEMORY", 500)
    masks = np.zeros((4, 300, 30, 40), bool)
    for target in range(300):
        masks[:, target, target // 10, 4 * (target % 10) : 4 * (target % 10) + 4] = True
    write_run(tmp_path / "run", [Video("a", "/a.mp4", masks, dict.fromkeys(range(1, 301), "cat"))])
    with pytest.raises(UsageError, match=r"object 256 does not fit into a palette PNG.*mots-png"):
        export_run(str(tmp_path / "run"), str(tmp_path / "davis"), "davis")
    few = RowFilter(objects=frozenset(range(1, 256)))
    assert export_run(str(tmp_path / "run"), str(tmp_path / "davis"), "davis", row_filter=few).masks == 4 * 255
    assert export_run(str(tmp_path / "run"), str(tmp_path / "mots"), "mots-png").masks == 4 * 300
    labels = np.asarray(Image.open(tmp_path / "mots" / "instances" / "a" / "000003.png"))
    assert np.array_equal(np.unique(labels), np.arange(1001, 1301))
    assert np.array_equal(labels == 1300, masks[3, 299])
    assert export_run(str(tmp_path / "run"), str(tmp_path / "sav"), "sav").masks == 4 * 300
    data = json.loads((tmp_path / "sav" / "a_auto.json").read_text())
    assert data["masklet_id"] == list(range(1, 301))


def test_object_ids_that_a_format_cannot_hold(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [Video("a", "/a.mp4", moving_squares(2, 1), {1000: "cat"})])
    for name in ("mots-png", "mots-txt"):
        with pytest.raises(UsageError, match="object 1000 of class 1: MOTS holds the object ids 1 to 999"):
            export_run(str(tmp_path / "run"), str(tmp_path / "out"), name)  # type: ignore[arg-type]


def test_exports_go_to_buckets(run: Path) -> None:
    from rts_batch.io.storage import files

    assert export_run(str(run), "memory://exports/davis", "davis").masks == 10
    assert files.list_names("memory://exports/davis/Annotations/Full-Resolution/a") == [
        f"0000{n}.png" for n in range(5)
    ]
    with pytest.raises(UsageError, match="holds files already"):
        export_run(str(run), "memory://exports/davis/ImageSets/2017", "davis")


@pytest.mark.parametrize("shape", ["ring", "parts", "pixel", "line"])
def test_polygons_hold_holes_and_parts(shape: str) -> None:
    mask = np.zeros((60, 80), np.uint8)
    if shape == "ring":
        cv2.circle(mask, (40, 30), 25, 1, -1)
        cv2.circle(mask, (40, 30), 10, 0, -1)
    elif shape == "parts":
        mask[5:25, 5:25] = mask[30:55, 50:75] = 1
    elif shape == "pixel":
        mask[7, 9] = 1
    else:
        mask[7, 9:30] = 1
    polygon = mask_polygon(mask.astype(bool))
    assert len(polygon) >= 3
    filled = cv2.fillPoly(np.zeros_like(mask), [polygon.astype(np.int32)], 1)
    # The line that joins parts is all that is more.
    assert (filled >= mask).all()
    assert (filled > mask).sum() <= (30 if shape == "parts" else 0)


@pytest.mark.parametrize("name", ["coco", "burst"])
@pytest.mark.long
def test_memory_does_not_grow_with_the_rows(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_masks, "ROWS_IN_MEMORY", 500)
    row = row_of(np.eye(20, dtype=bool), 0, score=0.5, confidence=0.5)
    peaks = []
    for frames in (10, 1000, 2000):
        masks = tmp_path / str(frames) / "masks"
        masks.mkdir(parents=True)
        with ResultsWriter(masks / "a-1.parquet", targets={1: {}, 2: {}}) as writer:
            for frame in range(frames):
                for object_id, category in ((1, "cat"), (2, "dog")):
                    writer.add(row._replace(object_id=object_id, category=category, frame=frame))
            writer.close(frames=frames)
        tracemalloc.start()
        try:
            summary = export_run(str(tmp_path / str(frames)), str(tmp_path / f"out{frames}"), name)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert summary.masks == 2 * frames
    # The first is there to load what is loaded once.
    assert peaks[2] < 1.3 * peaks[1] + 150_000, peaks


_PEAK = """
import resource, sys
from rts_batch.export.run import export_run
masks = export_run(sys.argv[1], sys.argv[2], sys.argv[3]).masks
print(masks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_rows_stay_in_bounded_memory(tmp_path: Path) -> None:
    """The whole process, not only Python's objects: Parquet's buffers count, too."""
    row = row_of(np.eye(20, dtype=bool), 0, score=0.5, confidence=0.5, category="cat")
    peaks = {}
    for rows in (50_000, 1_000_000):
        run = tmp_path / str(rows)
        (run / "masks").mkdir(parents=True)
        for number in range(10):
            path = run / "masks" / f"v{number}-1.parquet"
            with ResultsWriter(path, targets={1: {}}) as writer:
                for frame in range(rows // 10):
                    writer.add(row._replace(video_id=f"v{number}", frame=frame))
                writer.close(frames=rows // 10)
        command = [sys.executable, "-c", _PEAK, str(run), str(tmp_path / f"out{rows}"), "coco"]
        masks, peaks[rows] = map(int, subprocess.check_output(command, text=True).split())
        assert masks == rows
    assert peaks[1_000_000] < peaks[50_000] + 64_000, f"KiB: {peaks}"


NAMED = {"coco": "annotations/*.json", "ytvis": "*.json", "datumaro": "annotations/*.json", "cvat": "*.xml"}
NAMED |= {"labelme": "a/*.json", "label-studio": "tasks.json", "fiftyone": "labels/*.json"}


@pytest.mark.parametrize("name", FORMATS)
def test_named_targets_are_named_beside_and_within_exports(name: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "masks").mkdir(parents=True)
    extras = {1: {"object_name": "left rider & co"}, 2: {}}
    path = tmp_path / "run" / "masks" / "a-0.parquet"
    square = np.zeros((10, 12), bool)
    square[2:6, 3:8] = True
    with ResultsWriter(path, targets=extras, extras={"object_name": "string"}) as writer:
        for object_id in (1, 2):
            writer.add(row_of(square, 0, "prompt", object_id=object_id))
        writer.close(frames=1)
    chosen = RowFilter(objects=frozenset({"left rider & co"}))
    assert export_run(str(tmp_path / "run"), str(tmp_path / "out"), name, row_filter=chosen).targets == 1
    chosen = RowFilter(objects=frozenset({"lost rider", 77}))
    none = export_run(str(tmp_path / "run"), str(tmp_path / "none"), name, row_filter=chosen)
    assert none.warnings[-2:] == [f"no target of the finished videos is called {it}" for it in ("77", "'lost rider'")]
    assert "a,a,1,1,left rider & co" in (tmp_path / "out" / "targets.csv").read_text()
    if name in NAMED:
        (found,) = [file.read_text() for file in (tmp_path / "out").glob(NAMED[name])]
        assert "left rider &" in found


def test_polygons_in_coco_are_the_same_masks(run: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export_run(str(run), str(tmp_path / "rle"), "coco")
    command(run, "--format", "coco", "--out", tmp_path / "polygons", "--polygons")
    rle, polygons = (COCO(tmp_path / name / "annotations" / "instances_default.json") for name in ("rle", "polygons"))
    assert len(rle.anns) == len(polygons.anns) > 3
    for key, annotation in polygons.anns.items():
        assert isinstance(annotation["segmentation"], list)
        assert np.array_equal(polygons.annToMask(annotation), rle.annToMask(rle.anns[key]))
    message = command(run, "--format", "ytvis", "--out", tmp_path / "no", "--polygons", code=2)
    assert "ytvis takes no polygons; those that do: coco" in message
