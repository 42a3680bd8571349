"""Boxes that cannot be, and what their likely mistake is called."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rts_batch.errors import ManifestError
from rts_batch.manifest import read_manifest
from rts_batch.manifest.boxes import doubt, doubts, doubts_of_frames, fault, nested_boxes
from rts_batch.masks import Box
from tests.support.running import write_manifest

FRAME = (1280, 720)


def random_boxes(count: int, seed: int = 0) -> list[Box]:
    """Boxes of all sizes anywhere in a frame, with fractions of pixels."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(20, 400, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(FRAME) - sides)
    boxes: list[Box] = [tuple(map(float, row)) for row in np.hstack([corners, sides])]  # type: ignore[misc]
    return boxes


def as_corners(box: Box) -> Box:
    x, y, w, h = box
    return x, y, x + w, y + h


def as_centre(box: Box) -> Box:
    x, y, w, h = box
    return x + w / 2, y + h / 2, w, h


def as_percent(box: Box) -> Box:
    x, y, w, h = box
    return 100 * x / FRAME[0], 100 * y / FRAME[1], 100 * w / FRAME[0], 100 * h / FRAME[1]


def as_fractions(box: Box) -> Box:
    x, y, w, h = (side / 100 for side in as_percent(box))
    return x, y, w, h


@pytest.mark.parametrize("seed", range(20))
def test_boxes_that_are_right_raise_no_doubt(seed: int) -> None:
    boxes = random_boxes(8, seed)
    assert list(doubts(boxes)) == []
    assert list(doubts_of_frames(boxes, [FRAME] * len(boxes))) == []
    assert [(fault(box, FRAME), doubt(box, FRAME)) for box in boxes] == [(None, None)] * len(boxes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("written", "likely"),
    [(as_corners, "are they the corners x1,y1,x2,y2?"), (as_percent, "are they percentages of the frame's size?")],
)
def test_a_mistake_in_all_rows_is_named_without_a_video(written: Callable[[Box], Box], likely: str, seed: int) -> None:
    found = list(doubts([written(box) for box in random_boxes(4, seed)]))
    assert any(likely in text for text in found), found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("written", "likely"),
    [
        (as_corners, "read as corners x1,y1,x2,y2 all of them would fit"),
        (as_centre, "read as centre and size all of them would fit"),
        (as_percent, "are they percentages of the frame's size?"),
    ],
)
def test_a_mistake_in_all_rows_is_named_with_their_frames(
    written: Callable[[Box], Box], likely: str, seed: int
) -> None:
    boxes = [written(box) for box in random_boxes(20, seed)]
    found = list(doubts_of_frames(boxes, [FRAME] * len(boxes)))
    assert any(likely in text for text in found), found


def test_one_row_says_nothing_of_the_others() -> None:
    assert list(doubts([(10.5, 10.5, 90.25, 80)] * 9)) == []
    assert list(doubts([*map(as_corners, random_boxes(3)), (900, 10, 40, 40)])) == []


@pytest.mark.parametrize("box", [as_fractions(box) for box in random_boxes(4)] + [(0, 0, 1, 1), (0.5, 0.5, 1, 1)])
@pytest.mark.parametrize("columns", [True, False])
def test_fractions_of_the_frame_are_refused(tmp_path: Path, box: Box, columns: bool) -> None:
    marked = dict(zip("xywh", box, strict=True)) if columns else {"box": list(box)}
    manifest = write_manifest(tmp_path / "m.jsonl", [{"video": "a.mp4", **marked}])
    with pytest.raises(ManifestError) as caught:
        read_manifest(str(manifest))
    (problem,) = caught.value.problems
    assert re.match(r"line 1: the box .* is smaller than a pixel; .* multiply fractions by the frame's width", problem)
    # Beside a mask, a box is not looked at.
    rows = [{"video": "a.mp4", **marked, "mask": "a.png"}]
    assert len(read_manifest(str(write_manifest(tmp_path / "m.jsonl", rows))).tasks) == 1


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1300, 20, 50, 50), "lies outside the frame (is it of a picture of another size?)"),
        ((20, 720, 50, 50), "lies outside the frame"),
        ((-60, 20, 50, 50), "lies outside the frame"),
        ((-3000, -3000, 9000, 9000), "is more than twice as large as the frame"),
        ((0, 0, 3840, 2160), "is more than twice as large as the frame (is it of a picture of another size?)"),
        ((1100, 600, 1250, 700), "lies outside the frame but for 2% of it (as corners x1,y1,x2,y2 it would fit)"),
    ],
)
def test_a_box_that_cannot_be_in_its_frame(box: Box, message: str) -> None:
    found = fault(box, FRAME)
    assert found is not None
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((-5, -5, 1290, 730), "covers the whole frame"),
        ((0, 0, 1280, 720), "covers the whole frame"),
        ((640, 360, 900, 500), "has 49% of it outside the frame (as corners x1,y1,x2,y2 it would fit)"),
        ((1100, 100, 300, 200), "has 40% of it outside the frame (as centre and size it would fit)"),
        ((-200, 100, 300, 200), "has 67% of it outside the frame (is it of a picture of another size?)"),
    ],
)
def test_a_box_that_is_strange_in_its_frame(box: Box, message: str) -> None:
    assert fault(box, FRAME) is None
    assert doubt(box, FRAME) == message


@pytest.mark.parametrize("box", [(-0.5, 40, 36, 36), (-2, 0, 30, 30), (1260.5, 700, 20, 20.4), (0, 0, 1200, 700)])
def test_what_rounding_makes_of_a_box_is_no_matter(box: Box) -> None:
    assert (fault(box, FRAME), doubt(box, FRAME)) == (None, None)


def test_a_part_of_another_target_is_told(tmp_path: Path) -> None:
    person, face, other = [100, 100, 200, 400], [160, 110, 60, 70], [600, 100, 50, 50]
    rows = [
        {"video": "a.mp4", "object_id": 1, "box": person},
        {"video": "a.mp4", "object_id": 2, "box": face},
        {"video": "a.mp4", "object_id": 3, "box": other},
        {"video": "b.mp4", "object_id": 1, "box": person},
        {"video": "b.mp4", "object_id": 2, "box": face, "frame": 3},
        {"video": "b.mp4", "object_id": 1, "box": face, "frame": 4},
        {"video": "c.mp4", "object_id": 1, "box": person, "prompt_kind": "annotate"},
        {"video": "c.mp4", "object_id": 2, "box": face, "prompt_kind": "annotate"},
    ]
    tasks = read_manifest(str(write_manifest(tmp_path / "m.jsonl", rows))).tasks
    (found,) = nested_boxes(tasks)
    assert "in 1 video (the one of row 2 in that of row 1, to begin with)" in found
    assert "the smaller target keeps the pixels; --overlap allow" in found
    assert list(nested_boxes(tasks[1:])) == []
