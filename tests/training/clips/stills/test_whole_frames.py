"""Clips of whole frames, their truth, and the deformations that they are made with."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rts_batch.evaluation.layouts.masks import davis_sequences
from rts_batch.training.clips.batches import clip_generator
from rts_batch.training.clips.stills.curves import Curve
from rts_batch.training.clips.stills.deformation import GRID, Relief, random_limbs, random_relief
from rts_batch.training.clips.stills.films import HELD_OUT_SHARE, Films
from rts_batch.training.clips.stills.random_scenes import SceneOptions, random_scene
from rts_batch.training.clips.stills.scenes import FRAME
from rts_batch.training.clips.stills.stills import Objects, Stills, kind_of, read_index
from rts_batch.training.clips.stills.whole_frames import WholeFrameClips, rendered, truth_clips
from tests.support.training_layouts import write_stills

COLUMNS = ["path", "mask", "tier", "kind", "source", "sequence", "frame", "categories", "partial"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stills(tmp_path_factory.mktemp("stills"))


@pytest.fixture(scope="module")
def footage(index: Path) -> Path:
    """An index of a video whose object moves four pixels a frame, of one without masks, and of two stills."""
    rows = []
    for frame in range(30):
        image = np.full((120, 160, 3), 40, np.uint8)
        mask = np.zeros((120, 160), np.uint8)
        cv2.circle(mask, (20 + 4 * frame, 60), 15, 1, -1)
        image[mask > 0] = (20, 200, 240)
        for name, values in ((f"v{frame}.png", image), (f"v{frame}_mask.png", mask)):
            cv2.imwrite(str(index.parent / name), values)
        video = {"path": f"v{frame}.png", "tier": "clean", "kind": "video", "frame": str(frame)}
        rows.append({**video, "mask": f"v{frame}_mask.png", "sequence": "moving"})
        rows.append({**video, "mask": "", "sequence": "empty"})
    for number, kind in enumerate(("person;bicycle", "dog;person")):
        rows.append(
            {"path": f"{number}.jpg", "mask": f"{number}.png", "tier": "clean", "kind": "image", "categories": kind,
             "partial": str(number)}
        )  # fmt: skip
    path = index.parent / "footage.csv"
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_training_clip_depends_on_its_generator_alone_and_fits_together(index: Path, footage: Path) -> None:
    make = [WholeFrameClips(read_index(index), Films.read([footage]), size=(160, 288), frames=4) for _ in range(2)]
    for number in range(6):
        clip, again = (one(clip_generator(0, number)) for one in make)
        assert torch.equal(clip.images, again.images)
        assert clip.images.dtype == torch.uint8
        assert clip.images.shape == (4, 3, 160, 288)
        assert set(clip.masks.unique().tolist()) <= {0, 1}
        for mask, box in zip(clip.masks, clip.boxes, strict=True):
            x, y, w, h = (int(value) for value in box)
            assert mask[y : y + h, x : x + w].sum() == mask.sum() if mask.any() else w < 0


@pytest.mark.long
def test_a_long_clip_shows_its_target_leave_and_return(index: Path) -> None:
    options = SceneOptions(in_place=0, distractors=1, occluder=0, absence=1, pace=0.2)
    clips = list(truth_clips(read_index(index), count=3, seed=1, frames=60, options=options))
    for clip in clips:
        assert clip.frames.shape == (60, *FRAME, 3)
        assert clip.present[0]
        assert 4 <= np.count_nonzero(~clip.present) <= 30
        assert not (clip.masks & clip.others).any()


def test_the_target_is_there_once_where_no_copies_are_wanted(footage: Path) -> None:
    """A picture of one object has nothing else that could be taken for it."""
    alone = Stills(footage.parent, (("v9.png", "v9_mask.png"),))
    options = SceneOptions(in_place=0, occluder=0)
    with_copies, without = (
        [len(random_scene(alone, clip_generator(4, n), which).layers) for n in range(8)]
        for which in (options, replace(options, copies=False))
    )
    assert max(with_copies) > 2
    assert without == [2] * 8  # background and target


@pytest.mark.long
def test_clips_are_written_as_davis_reads_them(index: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rts_batch.training.clips.stills.write_clips", tmp_path / "out", index]
    subprocess.run([*map(str, command), "--count", "2", "--frames", "5", "--scenes", "hard"], check=True)
    sequences = davis_sequences(tmp_path / "out", year=2017)
    assert [sequence.name for sequence in sequences] == ["clip-000", "clip-001"]
    assert all(len(sequence.frames) == 5 for sequence in sequences)


def test_films_hold_out_the_end_of_each_sequence(footage: Path) -> None:
    train, held_out = Films.read([footage]), Films.read([footage], split="held-out")
    assert len(train.sequences["moving"]) == round((1 - HELD_OUT_SHARE) * 30)
    assert not set(train.sequences["moving"]) & set(held_out.sequences["moving"])


def test_the_mask_of_a_film_stays_on_its_object(index: Path, footage: Path) -> None:
    options = SceneOptions(occluder=0, pace=0.3, film=1)
    scene = random_scene(read_index(index), clip_generator(3, 0), options, Films.read([footage]))
    clip = rendered(scene, 8)
    yellow = clip.frames[..., 1].astype(int) > clip.frames[..., 2].astype(int) + 25
    for mine, true in zip(clip.masks, yellow, strict=True):
        assert np.count_nonzero(mine ^ true) < 0.15 * max(np.count_nonzero(true), 300)


def test_objects_are_drawn_by_kind_and_partial_pictures_are_only_cut_out(footage: Path) -> None:
    stills = read_index(footage, split="train")
    assert {objects.kinds for objects in stills.objects} <= {("person", "vehicle"), ("animal", "person")}
    folder = footage.parent
    rows = (("0.jpg", "0.png"), ("1.jpg", "1.png"))
    both = Stills(folder, rows, (Objects(("person", "vehicle")), Objects(("animal", "person"), partial=True)))
    rng = np.random.default_rng(0)
    assert {both.draw(rng, "animal").name for _ in range(10)} == {"1.jpg"}
    assert {both.draw(rng, "person").name for _ in range(20)} == {"0.jpg", "1.jpg"}
    kinds = [both.draw_kind(rng) for _ in range(400)]
    assert 0.3 < kinds.count("person") / 400 < 0.53  # 0.35 of 0.85, the shares of the kinds there are
    assert kinds.count("other") == 0
    partial = Stills(folder, rows[1:], (Objects(("animal",), partial=True),))
    in_place = SceneOptions(in_place=1, occluder=0, distractors=0)
    assert all(random_scene(partial, clip_generator(0, n), in_place).target for n in range(5))
    assert not any(random_scene(Stills(folder, rows[:1]), clip_generator(0, n), in_place).target for n in range(5))


@pytest.mark.parametrize(
    ("category", "kind"), [("person", "person"), ("motorcycle", "vehicle"), ("horse", "animal"), ("chair", "other")]
)
def test_kinds_of_categories(category: str, kind: str) -> None:
    assert kind_of(category) == kind


def test_a_relief_moves_what_is_inside_and_keeps_the_outline() -> None:
    alpha = np.zeros((96, 96), np.uint8)
    cv2.circle(alpha, (48, 48), 40, 255, -1)
    depth = random_relief(alpha, np.random.default_rng(0), 1.0).depth
    assert depth.max() == depth[GRID // 2 - 1 : GRID // 2 + 1, GRID // 2 - 1 : GRID // 2 + 1].max()
    relief = Relief(depth, (96, 96), Curve(0.5, ()), Curve(0, ()))
    moved = relief.displacement(1.0)
    assert not relief.displacement(0.0).any()
    assert np.abs(moved[..., 1]).max() == 0
    assert moved[GRID // 2, GRID // 2, 0] < -5
    assert np.abs(moved[0]).max() == np.abs(moved[:, 0]).max() == 0


def test_limbs_turn_about_their_joints() -> None:
    alpha = np.full((64, 64), 255, np.uint8)
    for limb in random_limbs(alpha, np.random.default_rng(1), 1.0):
        times = np.linspace(0, 1, 9)
        assert not limb.displacement(0.0).any()
        moved = max((limb.displacement(float(t)) for t in times), key=lambda field: float(np.abs(field).max()))
        near = np.linalg.norm(limb.places - np.array(limb.joint), axis=-1) < 3
        assert np.abs(moved[near]).max() < 0.4 * np.abs(moved).max() + 0.5
        assert np.abs(moved[limb.share < 0.01]).max(initial=0) < 0.05 * np.abs(moved).max() + 1e-6
