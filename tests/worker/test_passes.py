"""Direction, further prompts and annotation: which frames get rows, in what order they are tracked, and from what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch import read_masks
from rts_batch.manifest import read_manifest
from rts_batch.masks import Marking, decode_rle
from rts_batch.runs.settings import RunSettings
from rts_batch.tracking.scene import Scene
from rts_batch.weights.registry import build_model, build_sta, load_weights
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Failed, Finished, Job, Opened, WorkerSettings
from rts_batch.worker.rts import RtsFactory
from tests.support.running import write_manifest
from tests.support.stub_tracker import Stub
from tests.support.videos import Disc, draw, make_images, make_video

FRAMES = 20
BOX = [30, 30, 20, 20]
OTHER = [80, 50, 10, 30]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    make_video(path, FRAMES, options={"g": "8", "bf": "2"})
    return path


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Lane:
    return Lane(
        WorkerSettings(
            out=str(tmp_path_factory.mktemp("runs") / "run"),
            factory="tests.support.stub_tracker:Stub",
            tracker=Stub.describe(RunSettings()),
            decoder="auto",
            threads=1,
            extras={},
        )
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Lane:
    """A worker with the tracker that ships, and small crops."""
    settings = RunSettings(
        weights="rts-mini",
        device="cpu",
        profile="exact",
        tracker_options={"crop_size": [96, 160], "init_iterations": 1},
    )
    described = RtsFactory.describe(settings)
    return Lane(
        WorkerSettings(
            out=str(tmp_path_factory.mktemp("runs") / "run"),
            factory=settings.tracker,
            tracker=described,
            decoder="auto",
            threads=1,
            extras={},
        ),
        tracker=RtsFactory.load(described, threads=1),
    )


class Tracked:
    """The rows of one video, by object id and frame."""

    def __init__(self, worker: Lane, video: Path, tmp_path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = [{"video": str(video), "video_id": tmp_path.name + str(id(self)), **row} for row in rows]
        (task,) = read_manifest(str(write_manifest(tmp_path / "manifest.jsonl", rows))).tasks
        *_, self.end = self.events = list(worker.run(Job(task=task, attempt=1)))
        self.rows: dict[tuple[int, int], dict[str, Any]] = {}
        if isinstance(self.end, Finished):
            table = read_masks(worker._settings.out).table(video_ids=[task.video_id]).to_pylist()
            places = [(row["object_id"], row["frame"]) for row in table]
            assert places == sorted(places)
            self.rows = dict(zip(places, table, strict=True))

    def frames(self, object_id: int = 1) -> list[int]:
        return [frame for known, frame in self.rows if known == object_id]

    def prompts(self, object_id: int = 1) -> list[int]:
        return [frame for (known, frame), row in self.rows.items() if known == object_id and row["state"] == "prompt"]

    def mask(self, frame: int, object_id: int = 1) -> np.ndarray:
        row = self.rows[object_id, frame]
        return decode_rle(row["rle"], row["height"], row["width"])


def box_mask(box: list[int], moved: int = 0) -> np.ndarray:
    """The stub's mask `moved` steps after its prompt."""
    x, y, w, h = box
    mask = np.zeros((120, 160), bool)
    mask[y : y + h, x : x + w] = True
    return np.roll(mask, moved, axis=1)


def same_rows(ours: Tracked, others: Tracked, frames: Iterable[int], object_id: int = 1) -> bool:
    return all(
        {**ours.rows[object_id, frame], "video_id": ""} == {**others.rows[object_id, frame], "video_id": ""}
        for frame in frames
    )


def test_backward_covers_what_lies_before_the_prompt(worker: Lane, clip: Path, tmp_path: Path) -> None:
    found = Tracked(worker, clip, tmp_path, [{"box": BOX, "frame": 9, "direction": "backward"}])
    assert found.frames() == list(range(10))
    assert found.prompts() == [9]
    for frame in range(10):
        assert np.array_equal(found.mask(frame), box_mask(BOX, 9 - frame))
    # The stub's score is the picture's, so each row was made on its own frame.
    forward = Tracked(worker, clip, tmp_path, [{"box": BOX}])
    for frame in range(1, 9):
        assert found.rows[1, frame]["score"] == forward.rows[1, frame]["score"]
        assert found.rows[1, frame]["time"] == forward.rows[1, frame]["time"] == pytest.approx(frame / 25)
    assert [event.frames for event in found.events if isinstance(event, Opened)] == [10]


def test_both_is_forward_and_backward_in_one(worker: Lane, clip: Path, tmp_path: Path) -> None:
    row = {"box": BOX, "frame": 9}
    both, forward, backward = (
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction}])
        for direction in ("both", "forward", "backward")
    )
    assert both.frames() == list(range(FRAMES))
    assert both.prompts() == [9]
    assert same_rows(both, forward, range(9, FRAMES))
    assert same_rows(both, backward, range(9))
    assert isinstance(both.end, Finished)
    assert both.end.frames == FRAMES + 10


def test_both_keeps_to_start_and_end(worker: Lane, clip: Path, tmp_path: Path) -> None:
    found = Tracked(worker, clip, tmp_path, [{"box": BOX, "frame": 9, "direction": "both", "start": 4, "end": 15}])
    assert found.frames() == list(range(4, 15))


def test_targets_of_one_video_begin_where_each_is_marked(worker: Lane, clip: Path, tmp_path: Path) -> None:
    rows = [{"box": BOX, "frame": 5}, {"box": OTHER, "frame": 12, "object_id": 2}]
    both, backward = (
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction} for row in rows])
        for direction in ("both", "backward")
    )
    assert both.frames(1) == both.frames(2) == list(range(FRAMES))
    assert (both.prompts(1), both.prompts(2)) == ([5], [12])
    assert (backward.frames(1), backward.frames(2)) == (list(range(6)), list(range(13)))
    assert same_rows(both, backward, range(5), 1)
    assert same_rows(both, backward, range(12), 2)


def test_bidirectional_is_forward_and_backward_with_a_seam_between_prompts(
    worker: Lane, clip: Path, tmp_path: Path
) -> None:
    rows = [{"box": BOX, "frame": 3}, {"box": OTHER, "frame": 12}]
    found, forward, backward = (
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction} for row in rows])
        for direction in ("bidirectional", "forward", "backward")
    )
    assert isinstance(found.end, Finished), found.end
    assert found.frames() == list(range(FRAMES))
    assert found.prompts() == [3, 12]
    # The stub says nothing of its masks' quality, so each frame goes to the nearer prompt.
    assert same_rows(found, forward, [*range(3, 8), *range(12, FRAMES)])
    assert same_rows(found, backward, [*range(3), *range(8, 12)])
    assert not same_rows(forward, backward, [8])
    assert found.end.frames == FRAMES + 13
    assert [event.frames for event in found.events if isinstance(event, Opened)] == [FRAMES + 13]


@pytest.mark.parametrize("where", [{"frame": 12}, {"time": 0.48}])
@pytest.mark.parametrize("direction", ["both", "bidirectional"])
def test_what_is_expected_counts_the_second_pass(
    worker: Lane, clip: Path, tmp_path: Path, direction: str, where: dict[str, Any]
) -> None:
    found = Tracked(worker, clip, tmp_path, [{"box": BOX, "direction": direction, "start": 2, **where}])
    assert isinstance(found.end, Finished)
    assert [event.frames for event in found.events if isinstance(event, Opened)] == [found.end.frames]
    assert found.end.frames == FRAMES - 2 + 11


def test_what_is_expected_counts_no_second_pass_that_there_is_not(worker: Lane, clip: Path, tmp_path: Path) -> None:
    absent = {"prompt_kind": "absent", "frame": 9}
    for again in (absent, {"box": BOX, "frame": 9}):
        rows = [{"box": BOX, "frame": 0, "direction": "both"}, {**again, "direction": "both"}]
        found = Tracked(worker, clip, tmp_path, rows)
        assert isinstance(found.end, Finished)
        assert [event.frames for event in found.events if isinstance(event, Opened)] == [found.end.frames] == [FRAMES]


def test_bidirectional_reads_no_second_time_what_a_first_frame_says(worker: Lane, clip: Path, tmp_path: Path) -> None:
    row = {"box": BOX, "frame": 4, "start": 4}
    found, forward = (
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction}]) for direction in ("bidirectional", "forward")
    )
    assert isinstance(found.end, Finished)
    assert found.end.frames == FRAMES - 4
    assert found.frames() == list(range(4, FRAMES))
    assert same_rows(found, forward, found.frames())


def test_bidirectional_targets_have_seams_of_their_own(worker: Lane, clip: Path, tmp_path: Path) -> None:
    rows = [{"box": BOX, "frame": 0}, {"box": BOX, "frame": 10}, {"box": OTHER, "frame": 5, "object_id": 2}]
    found, backward, forward = (
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction} for row in rows])
        for direction in ("bidirectional", "backward", "forward")
    )
    assert found.frames(1) == found.frames(2) == list(range(FRAMES))
    assert same_rows(found, forward, [*range(6), *range(10, FRAMES)], 1)
    assert same_rows(found, backward, range(6, 10), 1)
    assert same_rows(found, backward, range(5), 2)
    assert same_rows(found, forward, range(5, FRAMES), 2)


@pytest.mark.parametrize("direction", ["forward", "backward", "both", "bidirectional"])
def test_a_further_prompt_corrects_from_its_frame_on(worker: Lane, clip: Path, tmp_path: Path, direction: str) -> None:
    rows = [{"box": BOX, "frame": 3, "direction": direction}, {"box": OTHER, "frame": 12, "direction": direction}]
    found = Tracked(worker, clip, tmp_path, rows)
    expected = {"forward": range(3, FRAMES), "backward": range(13)}.get(direction, range(FRAMES))
    assert found.frames() == list(expected)
    assert found.prompts() == [3, 12]
    assert np.array_equal(found.mask(3), box_mask(BOX))
    assert np.array_equal(found.mask(12), box_mask(OTHER))
    between = box_mask(OTHER, 4) if direction in ("backward", "bidirectional") else box_mask(BOX, 5)
    assert np.array_equal(found.mask(8), between)
    if direction != "backward":
        assert np.array_equal(found.mask(15), box_mask(OTHER, 3))
    if direction != "forward":
        assert np.array_equal(found.mask(1), box_mask(BOX, 2))


@pytest.mark.parametrize("where", ["frame", "time"])
@pytest.mark.parametrize("direction", ["forward", "backward", "both", "bidirectional"])
def test_a_target_that_is_absent_is_lost_until_it_is_marked_again(
    worker: Lane, clip: Path, tmp_path: Path, direction: str, where: str
) -> None:
    def at(frame: int, **mark: Any) -> dict[str, Any]:
        return {**mark, "direction": direction, where: frame if where == "frame" else frame / 25}

    gone = {"prompt_kind": "absent"}
    rows = [at(3, **gone), at(6, box=BOX), at(10, **gone), at(14, box=OTHER), at(17, **gone)]
    found = Tracked(worker, clip, tmp_path, [*rows, at(8, object_id=2, box=OTHER)])
    assert isinstance(found.end, Finished), found.end
    lost = {
        "forward": [10, 11, 12, 13, 17, 18, 19],
        "backward": [0, 1, 2, 3, 7, 8, 9, 10],
        "both": [0, 1, 2, 3, 10, 11, 12, 13, 17, 18, 19],
        "bidirectional": [0, 1, 2, 3, 10, 11, 12, 13, 17, 18, 19],
    }[direction]
    for (object_id, frame), row in found.rows.items():
        if object_id == 2 or frame not in lost:
            assert row["area"] > 0, (object_id, frame)
            assert row["state"] in ("prompt", "tracked")
        else:
            assert row["state"] == "lost"
            assert [row[name] for name in ("area", "x", "score", "confidence", "quality")] == [0, *[None] * 4]
            assert not found.mask(frame).any()
    assert found.prompts() == [6, 14]
    assert set(lost) <= set(found.frames())
    frame, moved = (12, 4) if direction == "forward" else (2, 6)
    assert np.array_equal(found.mask(frame, 2), box_mask(OTHER, moved)), "the other target goes on"
    nothing = {"forward": 3, "backward": 17}.get(direction)  # both ways either absence holds somewhere
    assert [text for text in found.end.warnings if "absent" in text] == (
        []
        if nothing is None
        else [
            f"object 1, frame {nothing}: it is said to be absent where it is not tracked yet ({direction}), which "
            "changes nothing"
        ]
    )


@pytest.mark.parametrize("direction", ["forward", "backward", "both", "bidirectional"])
def test_times_mean_the_same_frames_in_every_direction(
    worker: Lane, clip: Path, tmp_path: Path, direction: str
) -> None:
    by_frame = [{"box": BOX, "frame": 3}, {"box": OTHER, "frame": 12}]
    by_time = [{"box": BOX, "time": 0.13}, {"box": OTHER, "time": 0.48}]
    found = [
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction} for row in rows])
        for rows in (by_frame, by_time)
    ]
    assert found[0].frames() == found[1].frames()
    assert found[1].prompts() == [3, 12]
    assert same_rows(*found, found[0].frames())


def test_annotated_frames_are_all_there_is(worker: Lane, clip: Path, tmp_path: Path) -> None:
    rows = [
        *({"box": BOX, "frame": frame} for frame in (2, 7, 8)),
        {"box": [40, 40, 30, 30], "frame": 7, "object_id": 2},
        {"box": OTHER, "time": 0.76, "object_id": 2},
    ]
    found = Tracked(worker, clip, tmp_path, [{**row, "prompt_kind": "annotate"} for row in rows])
    assert found.frames(1) == found.prompts(1) == [2, 7, 8]
    assert found.frames(2) == found.prompts(2) == [7, 19]
    assert np.array_equal(found.mask(8), box_mask(BOX))
    assert np.array_equal(found.mask(19, 2), box_mask(OTHER))
    assert all(row["score"] is None for row in found.rows.values())


@pytest.mark.parametrize("name", ["stub", pytest.param("real", marks=pytest.mark.networks)])
def test_of_annotated_frames_the_target_may_be_absent_on_some(
    name: str, request: pytest.FixtureRequest, clip: Path, tmp_path: Path
) -> None:
    lane = request.getfixturevalue("worker" if name == "stub" else name)
    rows = [
        {"frame": 0, "prompt_kind": "absent"},
        {"box": [26, 26, 44, 44], "frame": 1, "prompt_kind": "annotate"},
        {"frame": 2, "prompt_kind": "absent"},
        {"box": [26, 26, 44, 44], "frame": 4, "prompt_kind": "annotate"},
    ]
    found = Tracked(lane, clip, tmp_path, rows)
    assert isinstance(found.end, Finished), found.end
    assert [(row["frame"], row["state"]) for row in found.rows.values()] == [
        (0, "lost"),
        (1, "prompt"),
        (2, "lost"),
        (4, "prompt"),
    ], "each row is about its own frame"
    assert [bool(row["area"]) for row in found.rows.values()] == [False, True, False, True]
    assert all(row["score"] is row["quality"] is None for row in found.rows.values())
    assert not any("absent" in text for text in found.end.warnings)


EMPTY = [159.6, 10, 1.2, 20]
"""A box in the frame of which the stub makes an empty mask."""


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_a_target_whose_first_mask_is_empty_fails(worker: Lane, clip: Path, tmp_path: Path, direction: str) -> None:
    rows = [{"box": BOX}, {"box": EMPTY, "object_id": 2, "frame": 4}]
    found = Tracked(worker, clip, tmp_path, [{**row, "direction": direction} for row in rows])
    assert isinstance(found.end, Failed)
    assert found.end.kind == "permanent"
    assert "object 2, frame 4: the mask made of its box is empty; a box is x,y,w,h in pixels" in found.end.message


def test_a_correction_without_a_mask_is_told(worker: Lane, clip: Path, tmp_path: Path) -> None:
    found = Tracked(worker, clip, tmp_path, [{"box": BOX}, {"box": EMPTY, "frame": 4}])
    assert isinstance(found.end, Finished)
    assert "object 1, frame 4: the mask made of its box is empty" in found.end.warnings


@pytest.mark.parametrize("where", [12, FRAMES - 1])
def test_nothing_is_tracked_back_from_a_correction_without_a_mask(
    worker: Lane, clip: Path, tmp_path: Path, where: int
) -> None:
    rows = [{"box": BOX, "frame": 2}, {"box": OTHER, "frame": 7}, {"box": EMPTY, "frame": where}]
    found, forward, without = (
        Tracked(worker, clip, tmp_path, [{**row, "direction": direction} for row in rows[:count]])
        for direction, count in (("bidirectional", 3), ("forward", 3), ("bidirectional", 2))
    )
    assert isinstance(found.end, Finished), found.end
    assert found.end.warnings == (f"object 1, frame {where}: the mask made of its box is empty",)
    assert found.prompts() == [2, 7, where]
    assert same_rows(found, forward, range(7, FRAMES))
    assert same_rows(found, without, range(7))


def test_annotated_frames_without_a_mask_are_told_and_a_target_without_any_fails(
    worker: Lane, clip: Path, tmp_path: Path
) -> None:
    rows = [{"box": EMPTY, "frame": 2}, {"box": BOX, "frame": 4}]
    found = Tracked(worker, clip, tmp_path, [{**row, "prompt_kind": "annotate"} for row in rows])
    assert isinstance(found.end, Finished)
    assert [found.rows[1, frame]["area"] for frame in (2, 4)] == [0, 400]
    assert "object 1, frame 2: the mask made of its box is empty" in found.end.warnings
    rows = [{"box": EMPTY, "frame": frame, "prompt_kind": "annotate"} for frame in (2, 4)]
    rows.append({"frame": 6, "prompt_kind": "absent"})
    found = Tracked(worker, clip, tmp_path, rows)
    assert isinstance(found.end, Failed)
    assert "object 1: the masks made of its boxes are empty on all its 2 frames" in found.end.message


@pytest.mark.parametrize("direction", ["both", "bidirectional"])
def test_damage_is_counted_once_however_often_a_video_is_read(worker: Lane, tmp_path: Path, direction: str) -> None:
    make_video(tmp_path / "a.avi", 40, options={"g": "8", "bf": "2"})
    content = bytearray((tmp_path / "a.avi").read_bytes())
    for middle in (len(content) // 4, len(content) // 2, 3 * len(content) // 4):
        content[middle : middle + 200] = bytes(200)
    (tmp_path / "a.avi").write_bytes(content)
    rows = [{"box": BOX, "frame": 8}, {"box": OTHER, "frame": 9}]
    found, forward = (
        Tracked(worker, tmp_path / "a.avi", tmp_path, [{**row, "direction": way} for row in rows])
        for way in (direction, "forward")
    )
    assert isinstance(found.end, Finished)
    assert isinstance(forward.end, Finished)
    assert any("corrupt frames" in text for text in forward.end.warnings)
    assert found.end.warnings == forward.end.warnings


def test_annotation_reads_no_more_than_it_needs(worker: Lane, clip: Path, tmp_path: Path) -> None:
    rows = [{"box": BOX, "frame": frame, "prompt_kind": "annotate"} for frame in (7, 9)]
    found = Tracked(worker, clip, tmp_path, rows)
    assert isinstance(found.end, Finished)
    assert found.end.frames == 3


def test_a_folder_of_images_goes_in_every_direction(worker: Lane, tmp_path: Path) -> None:
    make_images(tmp_path / "clip", 8)
    for direction, frames in (("backward", range(5)), ("both", range(8))):
        found = Tracked(worker, tmp_path / "clip", tmp_path, [{"box": BOX, "frame": 4, "direction": direction}])
        assert found.frames() == list(frames)


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("where", [{"frame": 20}, {"time": 0.9}])
def test_a_prompt_past_the_end_is_named(
    worker: Lane, clip: Path, tmp_path: Path, direction: str, where: dict[str, Any]
) -> None:
    rows = [{"box": BOX, "direction": direction}, {"box": OTHER, "direction": direction, **where}]
    found = Tracked(worker, clip, tmp_path, rows)
    assert isinstance(found.end, Failed)
    assert found.end.kind == "permanent"
    assert "the box prompt lies past the video's end: it has 20 frames (0 to 19)" in found.end.message


def test_two_prompts_that_meet_on_a_frame_are_refused(worker: Lane, clip: Path, tmp_path: Path) -> None:
    found = Tracked(worker, clip, tmp_path, [{"box": BOX, "frame": 4}, {"box": OTHER, "time": 0.16}])
    assert isinstance(found.end, Failed)
    assert "is the second one of this target on this frame" in found.end.message


# With a network that knows what it does


@pytest.fixture(scope="module")
def trained() -> Any:
    """The tracker that ships, with small crops."""
    weights = load_weights("rts-mini")
    config = dataclasses.replace(weights.tracker_config, crop_size=(128, 208))
    return build_model(weights, "cpu"), config, build_sta(weights, "cpu")


def overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1))


TWO = (
    Disc(start=(0.2, 0.3), end=(0.4, 0.3)),
    Disc(start=(0.7, 0.7), end=(0.5, 0.7), colour=(40, 90, 220)),
)


def cut(size: tuple[int, int] = (480, 240)) -> list[tuple[np.ndarray, np.ndarray]]:
    """A disc that from frame 6 on is elsewhere, far outside any search region."""
    left = Disc(start=(0.12, 0.4), end=(0.2, 0.5), radius=0.12)
    right = Disc(start=(0.8, 0.6), end=(0.85, 0.6), radius=0.12)
    return [*draw(6, size, (left,)), *draw(8, size, (right,))]


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.long
def test_a_correction_finds_a_target_that_was_lost(trained: Any, single: bool) -> None:
    model, config, sta = trained
    corrected, alone = (Scene(model, config, sta=sta, single=single) for _ in range(2))
    for index, (image, (mask,)) in enumerate(cut()):
        first = {1: Marking(mask=mask)} if index == 0 else {}
        found = corrected.step(image, {1: Marking(mask=mask)} if index == 8 else first)[1]
        lost = alone.step(image, first)[1]
        assert (found.state == "prompt") == (index in (0, 8))
        if index in (0, 8):
            assert np.array_equal(found.mask, mask)
        elif index < 6 or index > 8:
            assert overlap(found.mask, mask) > 0.6
        if index >= 6:
            assert overlap(lost.mask, mask) < 0.2
    for memory in (corrected.trackers[1].segmentation.memory, corrected.trackers[1].localisation.memory):
        assert int(memory.protected.sum()) == 1 + (memory.initial_count if memory.protect_initial else 0)


@pytest.mark.long
def test_boxes_become_masks_frame_by_frame(trained: Any) -> None:
    model, config, sta = trained
    scene = Scene(model, config, sta=sta, single=False)
    for image, masks in draw(3, (320, 240), TWO):
        prompts = {}
        for object_id, mask in enumerate(masks, start=1):
            (y0, x0), (y1, x1) = np.argwhere(mask).min(0).tolist(), np.argwhere(mask).max(0).tolist()
            prompts[object_id] = Marking(box=(x0, y0, x1 - x0 + 1, y1 - y0 + 1))
        found = scene.annotate(image, prompts)
        assert [row.state for row in found.values()] == ["prompt", "prompt"]
        for object_id, mask in enumerate(masks, start=1):
            assert overlap(found[object_id].mask, mask) > 0.7
    assert not scene.trackers


@pytest.mark.networks
def test_boxes_whose_masks_share_pixels_are_told(real: Lane, clip: Path, tmp_path: Path) -> None:
    whole, part = [26, 26, 44, 44], [42, 26, 28, 44]
    found = Tracked(real, clip, tmp_path, [{"box": whole, "end": 1}, {"box": part, "object_id": 2, "end": 1}])
    assert isinstance(found.end, Finished), found.end
    alone = Tracked(real, clip, tmp_path, [{"box": whole, "end": 1}])
    lost = alone.rows[1, 0]["area"] - found.rows[1, 0]["area"]
    assert found.end.warnings == (
        f"frame 0: {lost} pixels of object 1's mask are left to smaller targets on top of it",
    )


@pytest.mark.networks
def test_a_box_of_which_nothing_is_left_is_named_with_video_and_frame(real: Lane, clip: Path, tmp_path: Path) -> None:
    box = [26, 26, 44, 44]
    rows = [{"box": box}, {"box": box, "object_id": 2, "frame": 1}, {"box": box, "frame": 1}]
    found = Tracked(real, clip, tmp_path, [{**row, "end": 2} for row in rows])
    assert isinstance(found.end, Failed)
    assert found.end.message.startswith(f"video {tmp_path.name}")
    assert ", frame 1: object 2: its mask lies wholly under those of smaller targets" in found.end.message
