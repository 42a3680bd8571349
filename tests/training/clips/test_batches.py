"""From annotated frames to clips: crops, jitter, augmentation, labels and the choice of frames."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rts_batch.config import RTS_MINI
from rts_batch.errors import SettingsError, TrainingError
from rts_batch.masks import mask_box
from rts_batch.model.rts import RTS, Features
from rts_batch.training.clips.batches import ABSENT_BOX, Batch, Clip, ClipStream
from rts_batch.training.clips.crops import Region, cut_out, jitter_box, place_region
from rts_batch.training.clips.datasets.base import AnnotatedFrame
from rts_batch.training.clips.processing import drop_colours, make_clip, mirror, random_affine, warp
from rts_batch.training.clips.sampling import draw_frames
from rts_batch.training.forward import Encoded, score_labels
from rts_batch.training.settings import ClipSettings
from tests.support import users_folder

PAPER_CLIPS = ClipSettings()
SIZE = (480, 832)


@pytest.mark.parametrize(
    ("picture", "box", "region", "inside"),
    [
        ((480, 854), (300, 200, 60, 80), (102, 108, 457, 264), (360.4727, 167.2727, 109.2341, 145.4545)),
        ((480, 854), (5, 5, 60, 80), (0, 0, 457, 264), (9.1028, 9.0909, 109.2341, 145.4545)),
        ((480, 854), (100, 50, 500, 400), (0, -6, 854, 492), (97.4239, 54.6341, 487.1194, 390.2439)),
        ((720, 1280), (100.5, 50.2, 33.3, 44.4), (0, 0, 254, 147), (329.1969, 163.9184, 109.0772, 144.9796)),
        ((640, 480), (100, 100, 200, 300), (-314, 0, 1108, 640), (310.8737, 75.0, 150.1805, 225.0)),
    ],
)
def test_search_regions_equal_the_published_ones(picture, box, region, inside) -> None:
    found = place_region(box, picture, SIZE, area_factor=5.0)
    assert (found.x, found.y, found.width, found.height) == region
    assert found.to_crop(box) == pytest.approx(inside, abs=1e-4)


@given(
    height=st.integers(20, 700),
    width=st.integers(20, 700),
    x=st.floats(-300, 900),
    y=st.floats(-300, 900),
    w=st.floats(1, 600),
    h=st.floats(1, 600),
)
@settings(max_examples=200, deadline=None)
def test_a_region_leaves_the_picture_on_one_axis_at_most_and_evenly(height, width, x, y, w, h) -> None:
    try:
        region = place_region((x, y, w, h), (height, width), SIZE, area_factor=5.0)
    except TrainingError:
        assert w * h < 2
        return
    left, right = max(0, -region.x), max(0, region.x + region.width - width)
    top, bottom = max(0, -region.y), max(0, region.y + region.height - height)
    assert not ((left or right) and (top or bottom))
    assert abs(left - right) <= 1
    assert abs(top - bottom) <= 1


def frame(height: int = 100, width: int = 160, *, seed: int = 0) -> AnnotatedFrame:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[40:70, 60:100] = 1
    return AnnotatedFrame(image, mask, (60, 40, 40, 30))


def test_a_crop_repeats_the_edge_and_drops_the_last_column_it_reaches() -> None:
    given_frame = frame()
    given_frame.mask[:, -1] = 1
    region = Region(150, 10, 20, 20, (20, 20))  # ten columns inside, ten outside
    image, mask = cut_out(given_frame, region)
    assert np.array_equal(image[:, :9], given_frame.image[10:30, 150:159])
    assert np.array_equal(image[:, 9:], np.repeat(given_frame.image[10:30, 158:159], 11, axis=1))
    assert not mask.any()  # the last column was the only one with a mask


def test_a_crop_within_the_picture_is_the_picture() -> None:
    given_frame = frame()
    image, mask = cut_out(given_frame, Region(50, 30, 64, 48, (48, 64)))
    assert np.array_equal(image, given_frame.image[30:78, 50:114])
    assert np.array_equal(mask, given_frame.mask[30:78, 50:114])


def test_masks_are_enlarged_by_the_upper_left_neighbour() -> None:
    given_frame = frame()
    _, mask = cut_out(given_frame, Region(50, 30, 32, 24, (48, 64)))
    assert np.array_equal(mask, np.repeat(np.repeat(given_frame.mask[30:54, 50:82], 2, axis=0), 2, axis=1))


def test_too_small_targets_are_refused() -> None:
    with pytest.raises(TrainingError, match="smaller than a pixel"):
        place_region((10, 10, 0, 10), (100, 100), SIZE, area_factor=5.0)


def test_jitter_has_the_published_spread() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([jitter_box((100, 100, 50, 20), rng, centre=(5.5, 4.5), scale=0.5) for _ in range(4000)])
    sides = np.log(boxes[:, 2:] / (50, 20))
    assert sides.std(0) == pytest.approx([0.5, 0.5], rel=0.05)
    shift = boxes[:, :2] + 0.5 * boxes[:, 2:] - (125, 110)
    relative = shift / np.sqrt(boxes[:, 2:3] * boxes[:, 3:])
    assert (np.abs(relative).max(0) <= (2.75, 2.25)).all()
    assert relative.std(0) == pytest.approx([5.5 / 12**0.5, 4.5 / 12**0.5], rel=0.05)


def test_mirroring_maps_corners_as_published_and_twice_is_nothing() -> None:
    turned = mirror(frame())
    assert turned.box == (160 - 1 - 100, 40, 40, 30)
    assert mask_box(turned.mask) == (60, 40, 40, 30)
    back = mirror(turned)
    assert np.array_equal(back.image, frame().image)
    assert back.box == frame().box


def test_grey_weighs_blue_as_red() -> None:
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 0, 0] = image[0, 1, 1] = image[0, 2, 2] = 255
    grey = drop_colours(AnnotatedFrame(image, np.zeros((1, 3), np.uint8), (0, 0, 1, 1))).image
    assert grey[0, :, 0].tolist() == [29, 150, 76]  # 0.114 of red, 0.587 of green, 0.299 of blue
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_affine_maps_keep_mask_and_box_together() -> None:
    rng = np.random.default_rng(2)
    clips = ClipSettings(crop_size=(96, 160))
    mask = np.zeros((96, 160), np.uint8)
    mask[30:60, 50:90] = 1
    angles, scales = [], []
    for _ in range(200):
        matrix = random_affine(rng, clips)
        angles.append(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))
        scales.append(np.log(np.hypot(matrix[0, 0], matrix[0, 1])))
        image, warped, box = warp(np.repeat(255 * mask[..., None], 3, axis=2), mask, matrix, (50, 30, 40, 30))
        tight = mask_box(warped)
        assert tight is not None
        assert np.abs(np.array(tight) - box).max() <= 2
        assert np.mean((image[..., 0] > 127) != (warped == 1)) < 0.02
        assert matrix @ (80, 48, 1) == pytest.approx((80, 48))
    assert 14 < np.abs(angles).max() <= 15
    assert 0.19 < np.abs(scales).max() <= 0.2


def test_boxes_that_leave_the_crop_are_clamped() -> None:
    matrix = np.array([[1.0, 0, 100], [0, 1.0, 0]])
    _, _, box = warp(np.zeros((96, 160, 3), np.uint8), np.zeros((96, 160), np.uint8), matrix, (50, -20, 40, 40))
    assert box == (150, 0, 10, 20)


def test_labels_equal_the_published_example() -> None:
    model = RTS(RTS_MINI)
    boxes = torch.tensor([[366.0, 190, 100, 100], list(ABSENT_BOX)])[:, None]
    batch = Batch(torch.zeros(2, 1, 3, *SIZE), torch.zeros(2, 1, *SIZE), boxes, 1)
    features = Features({}, torch.zeros(1, 1, 30, 52), torch.zeros(1, 1, 15, 26))
    labels = score_labels(model, batch, Encoded(features, features, 1), sigma_factor=0.05)
    assert labels.shape == (2, 1, 16, 27)
    assert float(labels[0].max()) == pytest.approx(0.87967, abs=1e-5)
    top = labels[0, 0].flatten().topk(2).indices
    assert sorted((int(place) // 27, int(place) % 27) for place in top) == [(7, 13), (8, 13)]
    assert int((labels[0] > 0.05).sum()) == 16
    assert not labels[1].any()


def test_a_clip_depends_on_its_generator_alone() -> None:
    frames = [frame(seed=seed) for seed in range(4)]
    clips = ClipSettings(crop_size=(96, 160))
    first, again, other = (make_clip(frames[:1], frames[1:], np.random.default_rng(seed), clips) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (4, 3, 96, 160)
    assert first.train_frames == 1
    assert float(first.images.max()) <= 255


def test_train_frames_share_their_colour_and_test_frames_theirs() -> None:
    colours = AnnotatedFrame(np.full((100, 160, 3), (200, 50, 50), np.uint8), frame().mask, frame().box)
    clips = dataclasses.replace(PAPER_CLIPS, crop_size=(96, 160), grey=0.5, rotation=0.0, zoom=0.0)
    seen = set()
    for seed in range(40):
        clip = make_clip([colours] * 2, [colours] * 2, np.random.default_rng(seed), clips)
        grey = [bool((image[0] == image[2]).all()) for image in clip.images]
        assert grey[0] == grey[1]
        assert grey[2] == grey[3]
        seen.add((grey[0], grey[2]))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_validation_clips_have_no_affine_map_and_no_brightness() -> None:
    clips = ClipSettings(crop_size=(96, 160), grey=0.0, flip=0.0).for_validation()
    flat = AnnotatedFrame(np.full((100, 160, 3), 100, np.uint8), frame().mask, frame().box)
    clip = make_clip([flat], [flat], np.random.default_rng(0), clips)
    assert (clip.images == 100).all()


def test_brightness_has_the_published_range() -> None:
    clips = ClipSettings(crop_size=(96, 160), rotation=0.0, zoom=0.0)
    flat = AnnotatedFrame(np.full((100, 160, 3), 100, np.uint8), frame().mask, frame().box)
    rng = np.random.default_rng(0)
    levels = [float(make_clip([flat], [], rng, clips).images[0, 0, 0, 0]) for _ in range(200)]
    assert 80 <= min(levels) < 83
    assert 117 < max(levels) <= 120


@given(
    visible=st.lists(st.booleans(), min_size=9, max_size=300),
    seed=st.integers(0, 10_000),
    parts=st.sampled_from([(1, 3), (3, 0), (2, 2)]),
)
@settings(max_examples=200, deadline=None)
def test_frames_of_a_clip_are_visible_in_order_and_close(visible, seed, parts) -> None:
    shown = np.array(visible)
    clips = ClipSettings(train_frames=parts[0], test_frames=parts[1], maximum_gap=20)
    try:
        places = draw_frames(shown, np.random.default_rng(seed), clips)
    except TrainingError:
        assert shown.sum() < 40
        return
    train, test = places[: parts[0]], places[parts[0] :]
    assert len(places) == sum(parts)
    assert shown[places].all()
    assert train == sorted(train)
    assert test == sorted(test)
    if parts[1]:
        assert shown[: places[0]].any()  # the first visible frame is never the base


def test_the_gap_widens_only_where_it_has_to() -> None:
    shown = np.zeros(400, dtype=bool)
    shown[[0, 20, 150, 151, 152, 153]] = True
    clips = ClipSettings(maximum_gap=100)
    rng = np.random.default_rng(0)
    drawn = [draw_frames(shown, rng, clips) for _ in range(300)]
    assert {places[0] for places in drawn} <= {20, 150, 151, 152}
    assert any(places[0] == 20 for places in drawn)  # only a widened gap reaches 150
    with pytest.raises(TrainingError, match="no frames close enough"):
        draw_frames(np.eye(1, 50, 3, dtype=bool)[0], rng, clips)


def test_clip_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match="multiples of 16"):
        ClipSettings(crop_size=(100, 160))
    with pytest.raises(SettingsError, match="train_frames must be at least 1"):
        ClipSettings(train_frames=0)


def test_resizing_is_opencv_bilinear() -> None:
    given_frame = frame()
    image, _ = cut_out(given_frame, Region(10, 10, 30, 20, (48, 64)))
    assert np.array_equal(image, cv2.resize(given_frame.image[10:30, 10:40], (64, 48)))


def one_clip(rng: np.random.Generator) -> Clip:
    """A clip of one number, that a loader process can make."""
    value = float(rng.integers(100))
    assert Path("m.csv").exists()  # it has the same current folder as this process
    return Clip(torch.full((1, 3, 4, 4), value), torch.zeros(1, 4, 4), torch.zeros(1, 4), train_frames=1)


@pytest.mark.long
def test_loaders_import_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = users_folder.fill(tmp_path / "user")
    monkeypatch.chdir(folder)
    (folder / "m.csv").touch()
    batch = next(ClipStream(one_clip, batch=1, seed=0, loaders=1).batches())
    assert batch.sequences == 1
    assert users_folder.imported(folder) == []


def interrupted_clip(rng: np.random.Generator) -> Clip:
    """A clip during which the loader process gets what Ctrl-C sends to all processes of a terminal."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return Clip(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 4), train_frames=1)


@pytest.mark.long
def test_a_loader_leaves_ctrl_c_to_the_training() -> None:
    batches = ClipStream(interrupted_clip, batch=1, seed=0, loaders=1).batches()
    (loader,) = active_children()
    for number in (signal.SIGINT, signal.SIGTERM):  # while it is still starting
        os.kill(loader.pid or 0, number)
    assert [next(batches).sequences for _ in range(3)] == [1, 1, 1]


@pytest.mark.long
def test_a_training_that_an_error_ends_does_not_wait_for_its_loaders() -> None:
    """A lack of the GPU's memory, say, whose traceback holds the batches up to the end; the last words are its own."""
    program = "from tests.training.clips.test_batches import ClipStream, interrupted_clip; import time; "
    # Between their end and what Python does about it, where PyTorch may notice.
    program += "from multiprocessing.util import Finalize; Finalize(None, time.sleep, args=(1,), exitpriority=0); "
    program += "batches = ClipStream(interrupted_clip, batch=1, seed=0, loaders=1).batches(); next(batches); 1 / 0"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ZeroDivisionError")


def refused_clip(rng: np.random.Generator) -> Clip:
    raise TrainingError("no clip; the last that cannot be read: a.png")


@pytest.mark.parametrize("loaders", [0, pytest.param(1, marks=pytest.mark.long)])
def test_what_is_wrong_with_the_data_is_said_as_it_was_found(loaders: int) -> None:
    """In a loader process too, without that process's traceback."""
    with pytest.raises(TrainingError) as caught:
        next(ClipStream(refused_clip, batch=2, seed=0, loaders=loaders).batches())
    assert str(caught.value) == "no clip; the last that cannot be read: a.png"
