"""What is not known of a video never becomes background, whatever the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rts_batch.export.names import ExportName
from rts_batch.export.row_filter import RowFilter
from rts_batch.export.run import export_run
from rts_batch.io.results.writer import Covers
from rts_batch.masks import State
from tests.support.run_folders import begin_masks, moving_squares, row_of


def labels_of(folder: Path) -> dict[str, set[int]]:
    """The values that the label images of a folder hold, by their names."""
    return {path.stem: set(np.unique(np.asarray(Image.open(path))).tolist()) for path in folder.rglob("*.png")}


@pytest.mark.parametrize("states", [None, frozenset[State]({"prompt", "tracked"})], ids=["all", "default"])
def test_what_has_no_mask_is_void_whatever_states_are_taken(states: frozenset[State] | None, tmp_path: Path) -> None:
    masks = moving_squares(5, 2)
    none = np.zeros_like(masks[0, 0])
    found: list[State] = ["mask_lost", "lost"]
    with begin_masks(tmp_path / "run", targets=2) as writer:
        for frame in range(5):
            writer.add(row_of(masks[frame, 0], frame, "tracked" if frame else "prompt", score=0.8))
        writer.add(row_of(masks[0, 1], 0, "prompt", object_id=2))
        for frame, state in enumerate(found, start=1):
            writer.add(row_of(none, frame, state, object_id=2, score=0.3))
        for frame in (3, 4):  # a person has said so, of the first of them
            writer.add(row_of(none, frame, "lost", object_id=2))
        writer.close(frames=5)
    for name in ("davis", "coco", "burst"):
        chosen = RowFilter(states=states)
        assert export_run(str(tmp_path / "run"), str(tmp_path / name), name, row_filter=chosen).doubted == 2, name  # type: ignore[arg-type]
    known, doubted = {0, 1}, {1, 255}
    expected = {"00000": {0, 1, 2}, "00001": doubted, "00002": doubted, "00003": known, "00004": known}
    assert labels_of(tmp_path / "davis") == expected
    images = json.loads((tmp_path / "coco" / "annotations" / "instances_default.json").read_text())["images"]
    assert [image["frame_index"] for image in images] == [0, 3, 4]
    (sequence,) = json.loads((tmp_path / "burst" / "annotations.json").read_text())["sequences"]
    assert sequence["annotated_image_paths"] == ["000000.jpg", "000003.jpg", "000004.jpg"]


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """A run with `prompt_kind=annotate`: one target is marked on the frames 0 and 5, another on 2 and 5."""
    masks = moving_squares(6, 2)
    with begin_masks(tmp_path / "annotated", targets=2, covers="prompts") as writer:
        for object_id, frame in ((1, 0), (2, 2), (1, 5), (2, 5)):
            writer.add(row_of(masks[frame, object_id - 1], frame, "prompt", object_id=object_id))
        writer.close(frames=6)
    return tmp_path / "annotated"


def test_where_nobody_marked_a_target_is_no_background(annotated: Path, tmp_path: Path) -> None:
    for name in ("davis", "mots-png", "mots-txt", "burst", "coco", "yolo-seg", "labelme", "ytvis"):
        summary = export_run(str(annotated), str(tmp_path / name), name)  # type: ignore[arg-type]
        assert (summary.doubted, summary.unmarked) == (0, 5), name
    assert labels_of(tmp_path / "davis") == {"00000": {1, 255}, "00002": {2, 255}, "00005": {0, 1, 2}}
    assert labels_of(tmp_path / "mots-png") == {
        "000000": {1001, 10_000},
        "000002": {1002, 10_000},
        "000005": {0, 1001, 1002},
    }
    lines = (tmp_path / "mots-txt" / "instances_txt" / "a.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines if line.split()[1] == "10000"} == set("01234")
    (sequence,) = json.loads((tmp_path / "burst" / "annotations.json").read_text())["sequences"]
    assert sequence["annotated_image_paths"] == ["000005.jpg"]
    assert [sorted(masks) for masks in sequence["segmentations"]] == [["1", "2"]]
    images = json.loads((tmp_path / "coco" / "annotations" / "instances_default.json").read_text())["images"]
    assert [image["frame_index"] for image in images] == [5]
    assert [path.stem for path in (tmp_path / "yolo-seg" / "labels" / "train").iterdir()] == ["a_000005"]
    assert [path.stem for path in (tmp_path / "labelme" / "a").iterdir()] == ["000005"]
    for annotation in json.loads((tmp_path / "ytvis" / "instances.json").read_text())["annotations"]:
        known = [place for place, rle in enumerate(annotation["segmentations"]) if rle is not None]
        assert known == [2 * annotation["track_id"] - 2, 5]


def test_where_an_annotated_target_is_said_to_be_absent_is_background(tmp_path: Path) -> None:
    masks = moving_squares(6, 2)
    with begin_masks(tmp_path / "run", targets=2, covers="prompts") as writer:
        for frame in (0, 5):
            writer.add(row_of(masks[frame, 0], frame, "prompt"))
        writer.add(row_of(np.zeros_like(masks[0, 1]), 0, "lost", object_id=2))
        writer.add(row_of(masks[2, 1], 2, "prompt", object_id=2))
        writer.close(frames=6)
    summary = export_run(str(tmp_path / "run"), str(tmp_path / "davis"), "davis")
    assert (summary.doubted, summary.unmarked) == (0, 5)
    assert labels_of(tmp_path / "davis") == {"00000": {0, 1}, "00002": {2, 255}, "00005": {1, 255}}


def test_one_target_alone_is_known_where_it_is_marked(annotated: Path, tmp_path: Path) -> None:
    chosen = RowFilter(objects=frozenset({2}))
    assert export_run(str(annotated), str(tmp_path / "davis"), "davis", row_filter=chosen).unmarked == 2
    assert labels_of(tmp_path / "davis") == {"00002": {0, 2}, "00005": {0, 2}}
    chosen = RowFilter(objects=frozenset({2}), every=5)
    assert export_run(str(annotated), str(tmp_path / "some"), "davis", row_filter=chosen).unmarked == 0


@pytest.mark.parametrize("name", ["lasot", "got10k"])
def test_lines_of_boxes_follow_the_frames_also_where_nobody_marked_the_target(
    name: ExportName, annotated: Path, tmp_path: Path
) -> None:
    export_run(str(annotated), str(tmp_path / "out"), name)
    firsts = [line.split(",")[3] for line in (tmp_path / "out" / "sequences.csv").read_text().splitlines()[1:]]
    assert firsts == ["0", "2"]
    for first, path in zip(firsts, sorted((tmp_path / "out").rglob("groundtruth.txt")), strict=True):
        shown = np.loadtxt(path, delimiter=",").any(axis=1)
        assert (int(first) + np.flatnonzero(shown)).tolist() == [int(first), 5]
        flags = path.with_name("full_occlusion.txt") if name == "lasot" else path.with_name("absence.label")
        assert np.array_equal(np.loadtxt(flags, delimiter="," if name == "lasot" else None) == 1, ~shown)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_target_is_not_there_before_its_first_prompt_and_unknown_after_a_backward_pass(
    direction: Covers, tmp_path: Path
) -> None:
    masks = moving_squares(4, 2)
    part = range(2, 4) if direction == "forward" else range(2)
    with begin_masks(tmp_path / "run", targets=2, covers=direction) as writer:
        for object_id, frames in ((1, range(4)), (2, part)):
            order = list(frames if direction == "forward" else reversed(frames))
            for frame in order:
                state: State = "prompt" if frame == order[0] else "tracked"
                writer.add(row_of(masks[frame, object_id - 1], frame, state, object_id=object_id))
        writer.close(frames=4)
    export_run(str(tmp_path / "run"), str(tmp_path / "out"), "davis")
    alone, both = ({0, 1}, {0, 1, 2}) if direction == "forward" else ({1, 255}, {0, 1, 2})
    assert labels_of(tmp_path / "out") == {f"0000{n}": both if n in part else alone for n in range(4)}
