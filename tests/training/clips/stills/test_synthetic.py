"""Clips synthesised from stills: reproducible, in one piece, and honest about bad pictures."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rts_batch.errors import TrainingError
from rts_batch.training.clips.batches import ClipStream, clip_generator
from rts_batch.training.clips.stills.random_scenes import SceneOptions, random_scene
from rts_batch.training.clips.stills.scenes import FRAME, view_of
from rts_batch.training.clips.stills.stills import HELD_OUT_ONE_IN, Stills, read_index, read_picture
from rts_batch.training.clips.stills.synthetic import SOLID, StillClips
from rts_batch.training.clips.stills.whole_frames import HARD, truth_clips
from tests.support.training_layouts import write_index, write_stills


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty drawn pictures with two objects each, and an index of them."""
    return write_stills(tmp_path_factory.mktemp("stills"))


def test_a_clip_depends_on_its_generator_alone(index: Path) -> None:
    first, again = (StillClips(read_index(index), crop_size=(96, 160))(clip_generator(3, 5)) for _ in range(2))
    other = StillClips(read_index(index), crop_size=(96, 160))(clip_generator(3, 6))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images, other.images)


@pytest.mark.long
def test_clips_are_the_same_from_loader_processes(index: Path) -> None:
    stills = read_index(index)
    here = next(ClipStream(StillClips(stills, crop_size=(96, 160)), batch=2, seed=1).batches(1))
    there = next(ClipStream(StillClips(stills, crop_size=(96, 160)), batch=2, seed=1, loaders=1).batches(1))
    assert torch.equal(here.images, there.images)
    assert here.previous is not None
    assert there.previous is not None
    assert torch.equal(here.previous, there.previous)


def test_a_clips_parts_fit_together(index: Path) -> None:
    make = StillClips(read_index(index), crop_size=(96, 160), frames=3)
    for number in range(12):
        clip = make(clip_generator(0, number))
        assert clip.images.shape == (3, 3, 96, 160)
        assert clip.images.min() >= 0
        assert 20 < clip.images.max() <= 255
        assert set(clip.masks.unique().tolist()) <= {0.0, 1.0}
        assert clip.masks[0].sum() > 60
        for mask, box in zip(clip.masks, clip.boxes, strict=True):
            x, y, w, h = (int(value) for value in box)
            if mask.any():
                assert mask[y : y + h, x : x + w].sum() == mask.sum()
            else:
                assert w < 0


def test_the_target_leaves_the_frame_and_comes_back(index: Path) -> None:
    options = SceneOptions(in_place=0, distractors=0, occluder=0, absence=1, pace=0.2, absence_length=(0.3, 0.35))
    view = view_of((FRAME[1] / 2, FRAME[0] / 2), 1.0, FRAME)
    for number in range(4):
        scene = random_scene(read_index(index), clip_generator(1, number), options)
        absence = scene.layers[scene.target].motion.absence
        assert absence is not None
        assert 0.3 <= absence[1] - absence[0] <= 0.35
        visible = [(scene.render(t, view, FRAME).target >= SOLID).any() for t in (0.0, float(np.mean(absence)), 1.0)]
        assert visible == [True, False, True]


def test_masks_follow_the_pixels(index: Path) -> None:
    """A target pasted on a background of another colour: the mask is where the colour is."""
    target = np.zeros((60, 60, 3), np.uint8)
    target[:] = (250, 10, 10)
    mask = np.zeros((60, 60), np.uint8)
    cv2.circle(mask, (30, 30), 22, 1, -1)
    folder = index.parent / "plain"
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "a.png"), target[:, :, ::-1])
    cv2.imwrite(str(folder / "a_mask.png"), mask)
    red = Stills(folder, (("a.png", "a_mask.png"),))
    options = SceneOptions(in_place=0, distractors=0, occluder=0, absence=0, pace=0.5)
    view = view_of((FRAME[1] / 2, FRAME[0] / 2), 1.0, FRAME)
    scene = random_scene(red, clip_generator(2, 0), options)
    blue = np.zeros_like(scene.layers[0].rgba)
    blue[:, :, 2] = 255
    object.__setattr__(scene.layers[0], "rgba", blue)
    for t in (0.0, 0.3, 0.6):
        drawn = scene.render(t, view, FRAME)
        reddish = drawn.image[:, :, 0].astype(int) > drawn.image[:, :, 2]
        assert np.count_nonzero(reddish ^ (drawn.target >= SOLID)) <= 0.02 * max(reddish.sum(), 500)


def test_held_out_pictures_are_never_trained_on(index: Path) -> None:
    train, held_out = (set(read_index(index, split=split).rows) for split in ("train", "held-out"))
    assert train.isdisjoint(held_out)
    assert len(train | held_out) == 30
    assert 0 < len(held_out) < 3 * 30 / HELD_OUT_ONE_IN


def test_held_out_clips_start_with_the_target_in_view(index: Path) -> None:
    clips = list(truth_clips(read_index(index, split="held-out"), count=3, seed=1, frames=4, options=HARD))
    assert all(clip.masks[0].sum() >= 400 for clip in clips)
    assert clips[0].frames.shape == (4, *FRAME, 3)


def test_bad_pictures_are_named_skipped_and_counted(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = index.parent
    (folder / "torn.jpg").write_bytes(b"not a picture")
    small = np.ones((60, 80), np.uint8)
    cv2.imwrite(str(folder / "small.png"), small)
    cv2.imwrite(str(folder / "empty.png"), np.zeros((120, 160), np.uint8))
    bad = {
        "torn.jpg": ("torn.jpg", "0.png", "not a readable picture"),
        "gone.jpg": ("gone.jpg", "0.png", "no such file"),
        "1.jpg": ("1.jpg", "small.png", "(60, 80)"),
        "2.jpg": ("2.jpg", "empty.png", "no instance"),
    }
    stills = Stills(folder, (*((row[0], row[1]) for row in bad.values()), ("3.jpg", "3.png")))
    rng = np.random.default_rng(0)
    assert {stills.draw(rng).name for _ in range(60)} == {"3.jpg"}
    assert set(stills.skipped) == set(range(len(bad)))
    for place, (*_, reason) in enumerate(bad.values()):
        assert reason in stills.skipped[place]
    assert "skipped (4 so far)" in caplog.text


def test_a_bad_row_says_nothing_of_another_row_of_its_picture(index: Path) -> None:
    """Else what is drawn would depend on what this process has met before."""
    cv2.imwrite(str(index.parent / "blank.png"), np.zeros((120, 160), np.uint8))
    rows = (("0.jpg", "blank.png"), ("0.jpg", "0.png"), ("1.jpg", "1.png"))
    stills = Stills(index.parent, rows)
    drawn = [stills.draw(np.random.default_rng([3, clip])).name for clip in range(20)]
    assert drawn == [Stills(index.parent, rows).draw(np.random.default_rng([3, clip])).name for clip in range(20)]
    assert set(drawn) == {"0.jpg", "1.jpg"}
    with pytest.raises(TrainingError, match=r"no usable picture among 2; the first: .*blank\.png"):
        Stills(index.parent, rows[:1] * 2).draw(np.random.default_rng(0))


def test_a_clip_counts_the_bad_pictures_on_the_way_to_it(index: Path) -> None:
    rows = (("0.jpg", "0.png"), *((f"gone{number}.jpg", "0.png") for number in range(3)))
    make = StillClips(Stills(index.parent, rows), crop_size=(96, 160), frames=2)
    counted = [reason for seed in range(6) for reason in make(np.random.default_rng(seed)).skipped]
    assert len(counted) == len(set(counted)) == len(make.stills.skipped) > 0


def test_an_index_without_a_usable_picture_is_refused(index: Path) -> None:
    stills = Stills(index.parent, (("nowhere.jpg", "nowhere.png"),))
    with pytest.raises(TrainingError, match=r"no usable picture among 1.*nowhere\.jpg: .*no such file"):
        stills.draw(np.random.default_rng(0))
    with pytest.raises(TrainingError, match="no such index"):
        read_index(index.parent / "absent.csv")
    with pytest.raises(TrainingError, match=r"no picture of tiers paid"):
        read_index(index, tiers=("paid",))
    with pytest.raises(TrainingError, match="8-bit mask"):
        read_picture(index.parent / "3.jpg", index.parent / "3.jpg")


def test_a_large_index_opens_without_opening_pictures(tmp_path: Path) -> None:
    rows = [{"path": f"{number}.jpg", "mask": f"{number}.png", "tier": "clean"} for number in range(100_000)]
    write_index(tmp_path / "index.csv", rows)
    started = time.perf_counter()
    stills = read_index(tmp_path / "index.csv")
    assert time.perf_counter() - started < 10
    assert 85_000 < len(stills) < 95_000
