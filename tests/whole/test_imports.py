"""What an export writes, imported as prompts again: the same masks on the same frames of the same videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.export.names import ExportName
from rts_batch.export.row_filter import RowFilter
from rts_batch.export.run import export_run
from rts_batch.manifest import read_manifest
from rts_batch.masks import decode_rle
from tests.support.run_folders import Video, write_run
from tests.support.videos import make_pair

FRAMES = 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    """Two real videos; the first has a target in two parts and one that is away for a frame."""
    folder = tmp_path_factory.mktemp("videos")
    first, second = make_pair(folder, FRAMES)
    return [
        Video("clips/one.mp4", str(folder / "one.mp4"), first, {1: "cat & <dog>", 5: "ant"}, {5: 1}, said_absent=True),
        Video("two", str(folder / "two.mp4"), second, {2: "ant"}),
    ]


@pytest.fixture(scope="module")
def run(videos: list[Video], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports") / "run"
    write_run(folder, videos)
    return folder


Found = dict[tuple[str, str, int, int], NDArray[np.bool_]]
"""Masks by the video's path, category, object and frame."""


def truth(videos: list[Video]) -> Found:
    return {
        (video.uri, category or "", object_id, frame): video.truth(object_id, frame)
        for video in videos
        for object_id, category in video.categories.items()
        for frame in range(video.first.get(object_id, 0), FRAMES)
        if video.truth(object_id, frame).any()
    }


def imported(command: str, source: Path, out: Path, *options: str) -> Found:
    result = CliRunner().invoke(app, ["manifest", command, str(source), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    found = {}
    for task in read_manifest(str(out)).tasks:
        for target in task.targets:
            for prompt in target.prompts:
                assert prompt.mask_rle is not None
                height, width = prompt.mask_rle["size"]
                mask = decode_rle(prompt.mask_rle["counts"].encode(), height, width)
                assert prompt.frame is not None
                found[task.uri, target.category or "", target.object_id, prompt.frame] = mask
    return found


CASES: list[tuple[ExportName, str, str]] = [
    ("coco", "from-coco", "annotations/instances_default.json"),
    ("ytvis", "from-coco", "instances.json"),
    ("cvat", "from-cvat", ""),
    ("fiftyone", "from-fiftyone", ""),
    ("mots-png", "from-masks", ""),
    ("label-studio", "from-label-studio", "tasks.json"),
    ("labelme", "from-labelme", ""),
]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(("name", "command", "file"), CASES)
def test_an_export_comes_back(
    name: ExportName, command: str, file: str, ending: str, run: Path, videos: list[Video], tmp_path: Path
) -> None:
    export_run(str(run), str(tmp_path / "out"), name)
    expected = truth(videos)
    found = imported(command, tmp_path / "out" / file, tmp_path / f"manifest.{ending}", "--prompts", "all")
    assert set(found) == set(expected)
    assert all(np.array_equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize(("name", "command", "file"), CASES)
def test_the_first_prompt_of_each_target_is_taken_unless_told(
    name: ExportName, command: str, file: str, run: Path, videos: list[Video], tmp_path: Path
) -> None:
    export_run(str(run), str(tmp_path / "out"), name)
    found = imported(command, tmp_path / "out" / file, tmp_path / "manifest.csv")
    assert sorted(key[2:] for key in found) == [(1, 0), (2, 0), (5, 1)]


def test_davis_comes_back_without_categories(run: Path, videos: list[Video], tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), "davis")
    found = imported("from-masks", tmp_path / "out", tmp_path / "manifest.csv", "--prompts", "all")
    expected = {(uri, "", *rest): mask for (uri, _, *rest), mask in truth(videos).items()}
    assert set(found) == set(expected)
    assert all(np.array_equal(found[key], expected[key]) for key in found)


def test_yolo_comes_back_with_targets_found_by_overlap(run: Path, videos: list[Video], tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), "yolo-seg")
    size = "x".join(map(str, videos[0].masks.shape[:1:-1]))
    found = imported("from-yolo", tmp_path / "out", tmp_path / "m.csv", "--prompts", "all", "--size", size)
    # YOLO names no targets: they are numbered anew.
    expected = {(uri, category, frame): mask for (uri, category, _, frame), mask in truth(videos).items()}
    assert {(uri, category, frame) for uri, category, _, frame in found} == set(expected)
    assert all(np.array_equal(mask, expected[uri, kind, frame]) for (uri, kind, _, frame), mask in found.items())
    assert {object_id for _, _, object_id, _ in found} == {1, 2}


def test_mot_comes_back_as_the_boxes_of_its_videos(run: Path, videos: list[Video], tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), "mot")
    source = tmp_path / "out" / "clips_one.mp4" / "gt" / "gt.txt"
    result = CliRunner().invoke(app, ["manifest", "from-detections", str(source), "-o", str(tmp_path / "m.csv")])
    assert result.exit_code == 0, result.output
    (task,) = read_manifest(str(tmp_path / "m.csv")).tasks
    assert (task.video_id, task.uri) == (videos[0].video_id, videos[0].uri)
    assert {target.object_id: target.category for target in task.targets} == videos[0].categories


def test_mot_of_every_second_frame_comes_back_on_these_frames(run: Path, tmp_path: Path) -> None:
    export_run(str(run), str(tmp_path / "out"), "mot", row_filter=RowFilter(every=2))
    source = tmp_path / "out" / "two" / "gt" / "gt.txt"
    words = ["manifest", "from-detections", str(source), "-o", str(tmp_path / "m.csv"), "--prompts", "all"]
    assert CliRunner().invoke(app, words).exit_code == 0
    (target,) = read_manifest(str(tmp_path / "m.csv")).tasks[0].targets
    assert [prompt.frame for prompt in target.prompts] == list(range(0, FRAMES, 2))


def test_videos_get_their_names_back_wherever_the_command_is_given(
    run: Path, videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(str(run), str(tmp_path / "out"), "coco")
    monkeypatch.chdir(tmp_path / "out" / "annotations")
    found = imported("from-coco", Path("instances_default.json"), tmp_path / "m.csv")
    assert {uri for uri, *_ in found} == {video.uri for video in videos}
