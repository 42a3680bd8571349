"""What is said of a video's prompts before its first frame is tracked."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rts_batch.config import Overlap
from rts_batch.errors import PromptError
from rts_batch.io.storage import files
from rts_batch.io.video.frames import Frame, Moment, VideoInfo
from rts_batch.manifest import read_manifest
from rts_batch.masks import encode_rle
from rts_batch.worker.overlaps import shared_pixels
from rts_batch.worker.prompts import PromptBook
from tests.support.running import write_manifest

HEIGHT, WIDTH = 120, 160


def rle(mask: NDArray[np.bool_]) -> str:
    return json.dumps({"size": list(mask.shape), "counts": encode_rle(mask).decode()})


def rectangle(x: int, y: int, w: int, h: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def open_book(
    tmp_path: Path, *rows: dict[str, Any], boxes: bool = True, overlap: Overlap = "merge", **info: Any
) -> PromptBook:
    """The prompts of one video, whose rows say everything but `video`."""
    manifest = write_manifest(tmp_path / "manifest.jsonl", [{"video": "a.mp4", **row} for row in rows])
    (task,) = read_manifest(str(manifest)).tasks
    known: dict[str, Any] = {"frames": 20, "fps": 25.0, "first_time": 0.0, "duration": 0.8, "decoder": "pyav"}
    return PromptBook(
        task, VideoInfo(**{"width": WIDTH, "height": HEIGHT, **known, **info}), boxes=boxes, overlap=overlap
    )


def frame(index: int) -> Frame:
    moment = Moment(index, index / 25, (index - 1) / 25 if index else None, (index + 1) / 25)
    return Frame(moment, np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_masks_that_share_pixels_are_told(tmp_path: Path) -> None:
    whole, part = rectangle(20, 20, 50, 50), rectangle(60, 30, 20, 10)
    rows = [{"mask": rle(whole)}, {"mask": rle(part), "object_id": 2}]
    book = open_book(tmp_path, *rows)
    lost = shared_pixels(book.due(frame(0)))
    for _ in range(2):  # the second pass of `both` says it again
        book.note_divided(0, lost)
    assert book.warnings == ["frame 0: 100 pixels of object 1's mask are left to smaller targets on top of it"]
    allowed = open_book(tmp_path, *rows, overlap="allow")
    annotated = open_book(tmp_path, *({**row, "prompt_kind": "annotate"} for row in rows))
    for book in (allowed, annotated):
        book.note_divided(0, shared_pixels(book.due(frame(0))))
        assert book.warnings == []


def test_masks_that_wait_for_their_frames_take_little_memory(tmp_path: Path) -> None:
    """Two megabytes each of 1080p, and all of a video's at once."""
    masks = [rectangle(20, 20, 50, 20 + index) for index in range(20)]
    rows = [{"mask": rle(mask), "frame": index} for index, mask in enumerate(masks)]
    open_book(tmp_path, *rows)
    tracemalloc.start()
    book = open_book(tmp_path, *rows)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 0.5 * sum(mask.nbytes for mask in masks)
    for index, mask in enumerate(masks):
        (due,) = book.due(frame(index)).values()
        assert due.mask is not None
        assert due.mask.dtype == bool
        assert (due.mask == mask).all()


def test_a_mask_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    mask = rle(rectangle(20, 20, 50, 50))
    rows = [{"mask": mask}, {"mask": mask, "object_id": 2}]
    with pytest.raises(PromptError, match=r"object 2, frame 0: the mask lies wholly under .* --overlap allow"):
        open_book(tmp_path, *rows).due(frame(0))
    open_book(tmp_path, *rows, overlap="allow").due(frame(0))
    open_book(tmp_path, *({**row, "prompt_kind": "annotate"} for row in rows)).due(frame(0))


@pytest.mark.parametrize("where", ["frame", "time"])
def test_an_absence_before_the_first_mark_outlives_a_checkpoint(tmp_path: Path, where: str) -> None:
    """The pass of `both` before the first mark comes after every checkpoint."""
    rows: list[dict[str, Any]] = [
        {"prompt_kind": "absent", where: 2 if where == "frame" else 0.08},
        {"mask": rle(rectangle(20, 20, 50, 50)), "frame": 5},
        {"prompt_kind": "absent", "frame": 9},
    ]
    rows = [{**row, "direction": "both"} for row in rows]
    first = open_book(tmp_path, *rows)
    for index in range(4):
        assert not first.due(frame(index))
    second = open_book(tmp_path, *rows)
    second.resume(first.taken(), 3)
    for index in range(4, 20):
        due = second.due(frame(index))
        assert [(key, prompt.absent) for key, prompt in due.items()] == {5: [(1, False)], 9: [(1, True)]}.get(index, [])
    second.check_end(20)
    assert second.begin == {1: 5}
    before = {index: list(second.beginning(index).values()) for index in range(6)}
    assert [index for index, prompts in before.items() if prompts] == [2, 5]
    assert before[2][0].absent


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_a_target_is_not_both_absent_and_marked_on_a_frame(tmp_path: Path, direction: str) -> None:
    """Which of the two rows stands first, by whatever it names the frame, decides nothing."""
    by_frame = {"frame": 5, "direction": direction}
    by_time = {"time": 0.2, "direction": direction}
    gone, mark = {"prompt_kind": "absent"}, {"mask": rle(rectangle(20, 20, 50, 50))}
    for rows in ([by_frame | gone, by_time | mark], [by_frame | mark, by_time | gone]):
        book = open_book(tmp_path, *rows)
        with pytest.raises(PromptError, match="is the second one of this target on this frame; remove one of them"):
            book.due(frame(5), backward=direction == "backward")


def test_a_polygon_is_filled_in_the_frame_as_a_mask_of_it_would_be(tmp_path: Path) -> None:
    book = open_book(tmp_path, {"polygon": "20 20 70 20 70 70 20 70", "frame": 2})
    assert book.warnings == []
    marking = book.due(frame(2))[1]
    assert marking.mask is not None
    assert np.array_equal(marking.mask, rectangle(20, 20, 50, 50))


@pytest.mark.parametrize(
    ("polygon", "what"),
    [
        (
            "400 20 450 20 450 70",
            "it lies outside the frame: from 400 to 450 across and from 20 to 70 down in a frame of",
        ),
        ("155 20 455 20 455 70", "it lies outside the frame but for 2% of it"),
        ("20 20 70 70 120 120 20 20", "it covers no pixel"),
    ],
)
def test_a_polygon_that_cannot_be_in_the_frame_is_refused(tmp_path: Path, polygon: str, what: str) -> None:
    with pytest.raises(PromptError) as caught:
        open_book(tmp_path, {"polygon": polygon, "frame": 2})
    assert str(caught.value).startswith("video a.mp4, object 1, frame 2: the polygon prompt cannot be read: ")
    assert what in str(caught.value)


def test_a_polygon_that_reaches_past_the_frame_is_doubted(tmp_path: Path) -> None:
    book = open_book(tmp_path, {"polygon": "20 20 220 20 220 70 20 70"})
    (warning,) = book.warnings
    assert "was read as a polygon with 30% outside the frame: from 20 to 220 across" in warning
    assert "is it of a picture of another size?" in warning
    marking = book.due(frame(0))[1]
    assert marking.mask is not None
    assert np.array_equal(marking.mask, rectangle(20, 20, 140, 50))


def save_mask(path: Path, values: NDArray[np.uint8]) -> str:
    Image.fromarray(values).save(path)
    return str(path)


def test_rows_that_share_an_image_make_it_one_of_numbers(tmp_path: Path) -> None:
    first = rectangle(20, 20, 50, 50)
    path = save_mask(tmp_path / "labels.png", first.astype(np.uint8))
    rows = [{"mask": path}, {"mask": path, "object_id": 2, "frame": 5}]
    with pytest.raises(PromptError) as caught:
        open_book(tmp_path, *rows)
    message = str(caught.value)
    assert message.startswith(f"video a.mp4, object 2, frame 5: the mask prompt cannot be read: {path}: ")
    assert "the rows of objects 1, 2 use it, but it does not number them" in message
    assert "Its values are 0 (16700 pixels), 1 (2500 pixels)" in message


def test_an_image_that_is_signed_for_each_row_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row seemed to have an image of its own, of which two targets got the same pixels."""
    path = save_mask(tmp_path / "labels.png", rectangle(20, 20, 50, 50).astype(np.uint8) * 255)
    read = files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda uri: read(path if uri.startswith("https:") else uri))
    rows = [{"mask": f"https://host/labels.png?Signature={n}", "object_id": n} for n in (1, 2)]
    with pytest.raises(PromptError, match=r"the rows of objects 1, 2 use it, but it does not number them"):
        open_book(tmp_path, *rows, overlap="allow")


def test_targets_with_an_image_each_need_no_numbers_in_them(tmp_path: Path) -> None:
    shapes = [rectangle(20, 20, 50, 50), rectangle(100, 20, 30, 30)]
    paths = [save_mask(tmp_path / f"{place}.png", mask.astype(np.uint8)) for place, mask in enumerate(shapes)]
    rows = [{"mask": path, "object_id": place} for place, path in enumerate(paths, 1)]
    book = open_book(tmp_path, *rows)
    assert book.warnings == []
    due = book.due(frame(0))
    assert [np.array_equal(due[place].mask, mask) for place, mask in enumerate(shapes, 1)] == [True, True]
    # On another frame it may as well be the image of object 1, in which object 2 is not seen.
    with pytest.raises(PromptError, match=r"object 2, frame 7.* its value 1 is the id of another target"):
        open_book(tmp_path, rows[0], {**rows[1], "frame": 7})


def test_the_rule_by_which_a_mask_was_read_is_told(tmp_path: Path) -> None:
    mask = rectangle(20, 20, 50, 50)
    path = save_mask(tmp_path / "grey.png", mask.astype(np.uint8) * 128)
    book = open_book(tmp_path, {"mask": path, "frame": 3})
    assert book.warnings == [
        "object 1, frame 3: the mask was read as what is not 0, its only other value being 128, which is no row's "
        "object_id"
    ]


def test_a_mask_of_the_unturned_picture_is_told_of_the_turn(tmp_path: Path) -> None:
    mask = rle(rectangle(20, 20, 50, 50))
    upright = {"width": HEIGHT, "height": WIDTH, "turned": 90}
    with pytest.raises(
        PromptError, match=r"frames have 120×160 \(they are turned by 90° from how the file stores them\)"
    ):
        open_book(tmp_path, {"mask": mask}, **upright)
    with pytest.raises(PromptError, match=r"frame of 120×160 pixels \(they are turned by 90°"):
        open_book(tmp_path, {"box": [130, 20, 20, 20]}, **upright)
    with pytest.raises(PromptError, match=r"have 120×160; give the mask"):
        open_book(tmp_path, {"mask": mask}, **{**upright, "turned": 0})


def test_a_box_that_cannot_be_fails_before_the_first_frame(tmp_path: Path) -> None:
    with pytest.raises(PromptError) as caught:
        open_book(tmp_path, {"box": [140, 100, 158, 119], "frame": 3})
    assert str(caught.value) == (
        "video a.mp4, object 1, frame 3: the box prompt lies outside the frame but for 2% of it (as corners "
        "x1,y1,x2,y2 it would fit): x,y,w,h 140,100,158,119 in a frame of 160×120 pixels; a box is x, y of its upper "
        "left corner, w, h in pixels"
    )


def test_a_box_that_is_strange_is_told(tmp_path: Path) -> None:
    assert open_book(tmp_path, {"box": [0, 0, 160, 120]}).warnings == [
        "object 1, frame 0: the box covers the whole frame: x,y,w,h 0,0,160,120 in a frame of 160×120 pixels"
    ]


def test_a_resumed_book_goes_on_with_the_prompts_that_have_not_come(tmp_path: Path) -> None:
    """Of one target, some prompts say a frame and some a time."""
    boxes = {"first": [1, 1, 10, 10], "second": [2, 2, 10, 10], "third": [3, 3, 10, 10], "fourth": [4, 4, 10, 10]}
    rows = [
        {"box": boxes["third"], "frame": 9},
        {"box": boxes["first"], "time": 0.08},
        {"box": boxes["second"], "frame": 5},
        {"box": boxes["fourth"], "time": 0.6},
    ]
    expected = {2: "first", 5: "second", 9: "third", 15: "fourth"}
    for stop in range(20):
        before = open_book(tmp_path, *rows, first_time=0.0)
        found = {i: due[1].box for i in range(stop + 1) if (due := before.due(frame(i)))}
        after = open_book(tmp_path, *rows, first_time=0.0)
        after.resume(before.taken(), stop)
        found |= {i: due[1].box for i in range(stop + 1, 20) if (due := after.due(frame(i)))}
        assert found == {index: tuple(boxes[name]) for index, name in expected.items()}
        assert {key: marking.box for key, marking in after.beginning(2).items()} == {1: tuple(boxes["first"])}


def test_a_mask_that_is_probably_inverted_is_told(tmp_path: Path) -> None:
    target = rectangle(20, 20, 50, 50)
    path = save_mask(tmp_path / "inverted.png", np.where(target, 0, 255).astype(np.uint8))
    for mask in (path, rle(~target)):
        assert open_book(tmp_path, {"mask": mask, "frame": 2}).warnings == [
            "object 1, frame 2: the mask has 87% of the frame and its whole border; was the target drawn dark on light?"
        ]
    assert open_book(tmp_path, {"mask": rle(rectangle(0, 0, 160, 119))}).warnings == []
