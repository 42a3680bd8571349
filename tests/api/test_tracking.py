"""Tracking in Python, without Ray and without a run."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import rts_batch
from rts_batch.api.tracking import LoadedModel
from rts_batch.errors import PromptError, SettingsError, UsageError, VideoError, WeightsError
from rts_batch.masks import Marking
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.rts import RtsFactory
from tests.support.places import REPOSITORY
from tests.support.videos import make_video

pytestmark = pytest.mark.networks

BOX = (60.0, 40.0, 40.0, 40.0)
POLYGON = (40, 30, 70, 30, 70, 60)


@pytest.fixture(scope="module")
def tracker() -> LoadedModel:
    """The weights that ship, with small crops: what is asked of it here is how it is used, and not what it sees."""
    described = RtsFactory.describe(
        RunSettings(weights="rts-mini", device="cpu", tracker_options={"crop_size": [160, 256]})
    )
    return LoadedModel(RtsFactory.load(described, threads=1), described)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("api") / "clip.mp4"
    make_video(path, 6)
    return path


def test_five_lines_track_a_file(clip: Path) -> None:
    tracker = rts_batch.load("rts-mini", device="cpu")
    frames = list(rts_batch.track(str(clip), box=BOX, tracker=tracker, start=1, end=5))
    assert [frame.index for frame in frames] == [1, 2, 3, 4]
    assert frames[1].time == pytest.approx(0.08)
    assert all(frame.masks[1].shape == (120, 160) and frame.masks[1].dtype == bool for frame in frames)
    assert [frame.targets[1].state == "prompt" for frame in frames] == [True, False, False, False]
    assert not (frames[0].image == frames[3].image).all(), "each frame keeps its own picture"


def test_frames_give_the_masks_of_the_file_they_were_read_from(clip: Path, tracker: LoadedModel) -> None:
    read = list(rts_batch.track(clip, box=BOX, tracker=tracker))
    images = [frame.image for frame in read]
    for given in (images, np.stack(images), (image for image in images)):
        again = list(rts_batch.track(given, box=BOX, tracker=tracker))
        assert [frame.time for frame in again] == [None] * 6
        assert all((one.masks[1] == two.masks[1]).all() for one, two in zip(read, again, strict=True))


def test_masks_and_later_prompts_of_several_targets(clip: Path, tracker: LoadedModel) -> None:
    first, second = np.zeros((120, 160), np.uint8), np.zeros((120, 160), bool)
    first[30:60, 40:70], second[70:100, 100:140] = 255, True
    alone = next(iter(rts_batch.track(clip, mask=first, tracker=tracker)))
    assert (alone.masks[1] == (first > 0)).all()
    prompts = {1: {1: first}, 3: {2: Marking(mask=second), 1: BOX}}
    frames = list(rts_batch.track(clip, prompts=prompts, tracker=tracker))
    assert [(frame.index, sorted(frame.masks)) for frame in frames] == [
        (1, [1]),
        (2, [1]),
        *((index, [1, 2]) for index in (3, 4, 5)),
    ]
    assert [target.state for target in frames[2].targets.values()] == ["prompt", "prompt"]


def test_soft_masks_are_cut_and_numbers_of_several_targets_refused(clip: Path, tracker: LoadedModel) -> None:
    """Everything above 0 was the target: the faintest probability, and another target's number."""
    hard = np.zeros((120, 160), bool)
    hard[30:60, 40:70] = True
    inside, outside = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5) for part in (hard, ~hard))
    likely = 1 / (1 + np.exp(outside.astype(np.float64) - inside))
    masks = (likely, likely.astype(np.float32), (likely * 255).astype(np.uint8), hard * 255.0, hard * np.int64(7))
    for given in (lambda mask: mask, lambda mask: Marking(mask=mask)):
        prompts = {index: {1: given(mask)} for index, mask in enumerate(masks)}
        for frame in rts_batch.track(clip, prompts=prompts, tracker=tracker, end=5):
            assert (frame.masks[1] != hard).sum() <= 0.02 * hard.sum()
    labels = hard.astype(np.uint8)
    labels[80:100, 100:120] = 2
    for wrong in (labels, likely * 3, -1.0 * hard):
        with pytest.raises(UsageError, match=r"a mask of the values .* does not say which .* as bool"):
            rts_batch.track(clip, mask=wrong, tracker=tracker)
        for prompt in (wrong, Marking(mask=wrong)):
            with pytest.raises(UsageError, match="does not say which"):
                rts_batch.track(clip, prompts={0: {1: prompt}}, tracker=tracker)


def test_a_polygon_is_a_prompt_like_the_mask_that_it_fills(clip: Path, tracker: LoadedModel) -> None:
    square = (40, 30, 70, 30, 70, 60, 40, 60)
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:70] = True
    corners = [(40, 30), (70, 30), (70, 60), (40, 60)]
    assert (next(iter(rts_batch.track(clip, polygon=square, tracker=tracker))).masks[1] == mask).all()
    prompts = {1: {1: [square]}, 2: {1: corners}, 3: {1: np.array(corners)}, 4: {1: np.array(corners, np.float32)}}
    for frame in rts_batch.track(clip, prompts=prompts, tracker=tracker, end=5):
        assert (frame.masks[1] == mask).all()
    for wrong, polygon in {"an odd count": (1, 2, 3, 4, 5), "2 points": [(1, 2), (3, 4)]}.items():
        with pytest.raises(UsageError, match=wrong):
            rts_batch.track(clip, polygon=polygon, tracker=tracker)
    for wrong, polygon in {
        "is smaller than a pixel": (0.1, 0.1, 0.5, 0.1, 0.5, 0.4),
        "lies outside the frame": (400, 30, 470, 30, 470, 60),
    }.items():
        with pytest.raises(PromptError, match=f"frame 0, object 1: the polygon .*{wrong}"):
            next(rts_batch.track(clip, polygon=polygon, tracker=tracker))


def test_what_cannot_be_is_said(clip: Path, tracker: LoadedModel, tmp_path: Path) -> None:
    def tracked(**given: object) -> None:
        list(rts_batch.track(given.pop("video", clip), tracker=tracker, **given))

    with pytest.raises(UsageError, match="no target is marked; give box"):
        rts_batch.track(clip, tracker=tracker)  # at once, not with the first frame
    with pytest.raises(UsageError, match="not both"):
        rts_batch.track(clip, box=BOX, prompts={0: {1: BOX}}, tracker=tracker)
    for box, wrong in {
        (400, 10, 20, 20): "lies outside the frame",
        (-95, 10, 100, 20): "lies outside the frame but for 5% of it",
        (0, 0, 400, 50): "is more than twice as large as the frame",
        (0.1, 0.2, 0.3, 0.4): "is smaller than a pixel",
        (10, 10, float("nan"), 20): "is smaller than a pixel",
    }.items():
        with pytest.raises(PromptError, match=rf"frame 0, object 1: the box .* {wrong}"):
            tracked(box=box)
    with pytest.raises(PromptError, match=r"the mask is \[12, 16\], the frame is \[120, 160\]"):
        tracked(mask=np.ones((12, 16)))
    with pytest.raises(PromptError, match="no frame 40"):
        tracked(prompts={0: {1: BOX}, 40: {1: BOX}})
    with pytest.raises(UsageError, match="frame 0 is float32 of shape"):
        tracked(video=[np.zeros((120, 160, 3), np.float32)], box=BOX)
    frames = [np.zeros((120, 160, 3), np.uint8), np.zeros((120, 150, 3), np.uint8)]
    with pytest.raises(PromptError, match="frame 1: the frame is 150×120, the first was 160×120"):
        tracked(video=frames, mask=np.eye(120, 160, dtype=bool))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        tracked(video=tmp_path / "text.mp4", box=BOX)


def test_frames_are_counted_from_0(clip: Path, tracker: LoadedModel) -> None:
    """With a negative start every frame had the index of another."""
    with pytest.raises(UsageError, match="start is -1; frames are counted from 0"):
        rts_batch.track(clip, box=BOX, tracker=tracker, start=-1)
    for end in (-1, 2, 3):
        with pytest.raises(UsageError, match=f"start 3 and end {end} leave no frame"):
            rts_batch.track(clip, box=BOX, tracker=tracker, start=3, end=end)


def test_a_prompt_that_cannot_come_is_told_before_anything_is_tracked(clip: Path) -> None:
    for given, wrong in (
        ({"prompts": {0: {1: BOX}, 5: {2: BOX}}, "end": 4}, "frame 5, object 2: the prompt is not reached, as end 4"),
        ({"prompts": {1: {1: BOX}, 3: {1: BOX}}, "start": 3}, "frame 1, object 1: the prompt lies before .*, start 3"),
        ({"prompts": {-1: {1: BOX}, 0: {1: BOX}}}, "frame -1, object 1: the prompt lies before .*, start 0"),
    ):
        with pytest.raises(UsageError, match=wrong):
            rts_batch.track(clip, tracker="no such weights", **given)


def test_a_mask_wins_over_the_box_beside_it(clip: Path, tracker: LoadedModel) -> None:
    """The box said where the target was looked for, and was what was reported of it."""
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:70] = True
    alone, beside = (
        [frame.targets[1] for frame in rts_batch.track(clip, mask=mask, box=box, tracker=tracker, end=3)]
        for box in (None, (100, 80, 9, 9))
    )
    for one, other in zip(alone, beside, strict=True):
        assert (one.mask == other.mask).all()
        assert (one.box, one.score, one.quality) == (other.box, other.score, other.quality)
    for box, wrong in {
        (500, 10, 20, 20): "lies outside the frame",
        (10, 10, float("nan"), 20): "smaller than",
    }.items():
        with pytest.raises(PromptError, match=f"frame 0, object 1: the box .* {wrong}"):
            next(rts_batch.track(clip, prompts={0: {1: Marking(mask, box)}}, tracker=tracker))


def test_a_target_is_not_tracked_from_nothing(tracker: LoadedModel) -> None:
    """As in a run: the first box must become a mask, a further one that does not is worth a warning."""
    empty = [np.full((120, 160, 3), 90, np.uint8)] * 3
    with pytest.raises(PromptError, match="frame 0, object 2: the mask made of its box is empty; a box is"):
        next(rts_batch.track(empty, prompts={0: {2: (2, 2, 3, 3)}}, tracker=tracker))
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:70] = True
    prompts = {0: {1: mask}, 1: {1: Marking()}, 2: {1: (2, 2, 3, 3)}}
    with pytest.warns(UserWarning, match="frame 2, object 1: the mask made of its box is empty") as told:
        frames = list(rts_batch.track(empty, prompts=prompts, tracker=tracker))
    assert [frame.targets[1].area for frame in frames] == [900, 0, 0]
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]


def test_who_has_prompts_divided_is_warned_as_in_a_run(tracker: LoadedModel) -> None:
    images = [np.full((120, 160, 3), 90, np.uint8)] * 2
    large, small = np.zeros((120, 160), bool), np.zeros((120, 160), bool)
    large[30:70, 40:80], small[60:80, 70:90] = True, True
    with pytest.warns(UserWarning, match="frame 1: 100 pixels of object 1's mask are left to smaller targets") as told:
        (frame,) = rts_batch.track(images, prompts={1: {1: large, 2: small}}, tracker=tracker)
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
    assert (frame.targets[1].area, frame.targets[2].area) == (1500, 400)


def test_frames_may_be_pillows_or_read_only(clip: Path, tracker: LoadedModel) -> None:
    """PyTorch warned of memory that it must not write."""
    images = [frame.image for frame in rts_batch.track(clip, box=BOX, tracker=tracker, end=2)]
    expected = [frame.masks[1] for frame in rts_batch.track(images, box=BOX, tracker=tracker)]
    locked = [image.copy() for image in images]
    for image in locked:
        image.setflags(write=False)
    for given in (locked, [Image.fromarray(image) for image in images]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = [frame.masks[1] for frame in rts_batch.track(given, box=BOX, tracker=tracker)]
        assert all((one == other).all() for one, other in zip(expected, found, strict=True))
    for wrong in (Image.fromarray(images[0]).convert("L"), images[0].tolist()):
        with pytest.raises(UsageError, match=r"frame 0 is (uint8|int64) of shape .*; expected \[H, W, 3\] uint8, RGB"):
            next(rts_batch.track([wrong], box=BOX, tracker=tracker))
        with pytest.raises(UsageError, match=r"the image is (uint8|int64) of shape .*; expected \[H, W, 3\] uint8"):
            tracker.mask_of(wrong, BOX)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = [tracker.mask_of(image, BOX) for image in (images[0], locked[0], Image.fromarray(images[0]))]
    assert all((mask == expected[0]).all() for mask in alone)


def test_weights_may_be_a_path(clip: Path) -> None:
    with pytest.raises(WeightsError, match=r"no-such\.safetensors"):
        rts_batch.track(clip, box=BOX, tracker=Path("no-such.safetensors"))


def test_what_is_no_prompt_is_told_at_once(tracker: LoadedModel) -> None:
    unknown = np.zeros((120, 160))
    unknown[30:60, 40:70] = np.nan
    for prompt, wrong in (
        (None, "None is no prompt; give a box, mask or polygon"),
        (7, "7 is no prompt"),
        ("box", "'box' is no prompt"),
        (Marking(box=(1, 2, 3)), r"\(1, 2, 3\) is no box; a box is four numbers"),  # type: ignore[arg-type]
        ((1, 2, 3), "neither a box nor a polygon"),
        (("a", "b", "c", "d"), "is no box; a box is four numbers"),
        (np.zeros((0, 0)), r"a mask is an array \[H, W\] of bool or numbers; got float64 of shape \[0, 0\]"),
        (unknown, "a mask of the values 0, nan does not say which are the target"),
    ):
        with pytest.raises(UsageError, match=f"frame 3, object 2: .*{wrong}"):
            rts_batch.track([], prompts={3: {2: prompt}}, tracker=tracker)
    for given, wrong in (
        ({"box": (1, 2, 3)}, "a box is four numbers"),
        ({"mask": np.zeros((0, 0), bool)}, "a mask is an array"),
        ({"mask": unknown}, "nan does not say"),
    ):
        with pytest.raises(UsageError, match=wrong):
            rts_batch.track([], tracker=tracker, **given)
    with pytest.raises(UsageError, match="is no box"):
        tracker.mask_of(np.zeros((120, 160, 3), np.uint8), (1, 2, 3))


def test_frames_and_targets_are_numbers(tracker: LoadedModel) -> None:
    """Targets 1 and 1.5 were one of the two, and names or a prompt without its target a traceback."""
    for prompts, wrong in (
        ({0: {1: BOX, 1.5: BOX}}, r"frame 0, object 1\.5 is not a whole number"),
        ({0.5: {1: BOX}}, r"frame 0\.5 is not a whole number"),
        ({0: {"dog": BOX}}, "frame 0, object 'dog' is not a whole number"),
        ({0: {None: BOX}}, "frame 0, object None is not"),
        ({float("inf"): {1: BOX}}, "frame inf is not"),
        ({0: BOX}, "frame 0: its prompts are a tuple"),
        ({0: np.ones((120, 160), bool)}, "frame 0: its prompts are a ndarray"),
        ([(0, {1: BOX})], "prompts is a list"),
    ):
        with pytest.raises(UsageError, match=rf"{wrong}.*expected \{{frame: \{{object_id: box"):
            rts_batch.track([], prompts=prompts, tracker=tracker)  # type: ignore[arg-type]


def test_start_and_end_may_be_numpys_and_are_whole(clip: Path, tracker: LoadedModel) -> None:
    """As a data frame gives them. The process that decodes a file was sent them, and could not be."""
    start, end = np.int64(1), np.float64(3)
    frames = list(rts_batch.track(clip, polygon=POLYGON, tracker=tracker, start=start, end=end))  # type: ignore[arg-type]
    assert [frame.index for frame in frames] == [1, 2]
    for name, value in {"start": 1.5, "end": "last"}.items():
        with pytest.raises(UsageError, match=f"^{name} {value!r} is not a whole number"):
            rts_batch.track(clip, box=BOX, tracker=tracker, **{name: value})  # type: ignore[arg-type]


def test_prompts_are_what_the_only_targets_may_be(clip: Path, tracker: LoadedModel) -> None:
    """PyTorch's tensors and Pillow's images were a box and a mask, but none among prompts."""
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:70] = True
    prompts = {0: {1: torch.tensor(BOX)}, 1: {1: torch.tensor(mask)}, 2: {1: Image.fromarray(mask)}}
    frames = list(rts_batch.track(clip, prompts=prompts, tracker=tracker, end=3))  # type: ignore[arg-type]
    for box in (BOX, [*BOX], np.array(BOX)):  # all of which the types allow
        assert (frames[0].masks[1] == next(rts_batch.track(clip, box=box, tracker=tracker)).masks[1]).all()
    assert all((frame.masks[1] == mask).all() for frame in frames[1:])


def test_what_is_no_video_and_no_frame_is_named(clip: Path, tracker: LoadedModel) -> None:
    for video, message in (
        (cv2.VideoCapture(str(clip)), "the video is a VideoCapture; expected a path"),
        ([(True, np.zeros((120, 160, 3), np.uint8))], "frame 0 is a tuple; expected"),
    ):
        with pytest.raises(UsageError, match=message):
            next(rts_batch.track(video, box=BOX, tracker=tracker))  # type: ignore[arg-type]


def test_loading_takes_the_choices_that_there_are() -> None:
    for name, value in {"device": "cuda:0", "profile": "fp16", "overlap": "both"}.items():
        with pytest.raises(SettingsError, match=f"{name} is '{value}'; expected one of"):
            rts_batch.load(**{name: value})  # type: ignore[arg-type]


def test_the_public_names_are_shown_and_imported_late() -> None:
    code = (
        "import sys, rts_batch\n"
        "names = {'load', 'track', 'submit', 'RunSettings', 'Scope', 'Shard', 'read_masks', '__version__'}\n"
        "assert names <= set(dir(rts_batch))\n"
        "assert not {'torch', 'pyarrow', 'ray'} & set(sys.modules)\n"
        "rts_batch.load, rts_batch.track, rts_batch.submit\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
