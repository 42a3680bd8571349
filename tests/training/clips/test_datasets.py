"""Data sets in their standard layouts, and what happens where they are damaged."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rts_batch.errors import TrainingError
from rts_batch.io.storage import files
from rts_batch.io.video.opening import FrameRange, open_video
from rts_batch.runs.compaction import compact
from rts_batch.training.clips.batches import Batch, Clip, ClipStream
from rts_batch.training.clips.datasets import RunMasks, SequenceData, davis, got10k, lasot, youtube_vos
from rts_batch.training.clips.datasets.base import read_image
from rts_batch.training.clips.datasets.box_manifest import write_box_manifest
from rts_batch.training.clips.datasets.runs import MaskFilter
from rts_batch.training.clips.sampling import MixedClips, VideoClips
from rts_batch.training.recipe import open_clips, read_recipe
from rts_batch.training.settings import ClipSettings
from tests.support.training_layouts import (
    SIZE,
    square,
    square_box,
    two_objects,
    write_davis,
    write_got10k,
    write_lasot,
    write_mask_pictures,
    write_palette,
    write_run,
    write_youtube_vos,
)

SMALL = ClipSettings(crop_size=(48, 64))


def assert_frame(data: SequenceData, index: int, place: int, frame: int, *, top: int = 10) -> None:
    (found,) = data.read(index, [place])
    assert found.image.shape == (*SIZE, 3)
    assert np.array_equal(found.mask, square(frame, top=top))
    assert found.box == square_box(frame, top=top)


def test_youtube_vos(tmp_path: Path) -> None:
    data = youtube_vos(write_youtube_vos(tmp_path))
    assert [data.label(index) for index in range(len(data))] == [
        "youtube-vos: v1, object 1",
        "youtube-vos: v1, object 3",
        "youtube-vos: v2, object 1",
        "youtube-vos: v2, object 3",
    ]
    assert data.visible(0).tolist() == [True] * 14
    assert data.visible(1).tolist() == [False] * 4 + [True] * 10
    assert_frame(data, 0, 3, 3)
    assert_frame(data, 3, 6, 6, top=30)
    (tmp_path / "list.txt").write_text("v2\n")
    assert len(youtube_vos(tmp_path, sequences=tmp_path / "list.txt")) == 2
    assert len(youtube_vos(tmp_path, exclude=["v2"])) == 2


def test_davis_takes_the_official_list_and_objects_that_begin_later(tmp_path: Path) -> None:
    data = davis(write_davis(tmp_path))
    assert data.objects == (("bear", 1), ("bear", 3))
    assert_frame(data, 0, 2, 2)
    assert_frame(data, 1, 6, 6, top=30)


def test_void_pixels_of_davis_are_no_target(tmp_path: Path) -> None:
    """As 255 is what this pipeline's own export leaves undecided; where there is nothing else it is the object."""
    write_davis(tmp_path)
    for frame in range(14):
        values = two_objects(frame)
        values[values == 0] = 255
        write_palette(tmp_path / f"Annotations/480p/bear/{5 * frame:05d}.png", values)
        write_palette(tmp_path / f"Annotations/480p/camel/{5 * frame:05d}.png", 255 * square(frame))
    (tmp_path / "ImageSets/2017/train.txt").unlink()
    data = davis(tmp_path)
    assert data.objects == (("bear", 1), ("bear", 3), ("camel", 255))
    assert_frame(data, 2, 2, 2)


def test_annotations_in_colours_are_refused(tmp_path: Path) -> None:
    """A palette picture that some program has saved in colours: none of its channels holds the ids."""
    write_davis(tmp_path / "davis")
    write_youtube_vos(tmp_path / "vos", ("v1",))
    for path in tmp_path.glob("*/Annotations/**/*.png"):
        Image.open(path).convert("RGB").save(path)
    with pytest.raises(TrainingError, match=r"bear/00000.png is a picture of the kind RGB, whose values are no obj"):
        davis(tmp_path / "davis")
    with pytest.raises(TrainingError, match=r"v1/00000.png is a picture of the kind RGB"):
        youtube_vos(tmp_path / "vos").visible(0)


def test_frames_follow_their_numbers_and_not_their_names(tmp_path: Path) -> None:
    """As the pipeline numbers them; what macOS leaves beside them is none."""
    write_youtube_vos(tmp_path, ("v1",))
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for frame in range(14):
            path = tmp_path / folder / "v1" / f"{5 * frame:05d}.{suffix}"
            path.rename(path.with_name(f"{frame}.{suffix}"))
            path.with_name(f"._{frame}.{suffix}").write_bytes(b"\0\5\x16\7mac")
    data = youtube_vos(tmp_path)
    assert data.visible(1).tolist() == [False] * 4 + [True] * 10
    assert_frame(data, 1, 9, 9, top=30)


def test_got10k(tmp_path: Path) -> None:
    names = ("GOT-10k_Train_000001", "GOT-10k_Train_004419")
    write_got10k(tmp_path / "train", names)
    masks = write_mask_pictures(tmp_path / "masks", names[0])
    data = got10k(tmp_path / "train", masks=masks, exclude=[names[1]])
    assert data.sequences == names[:1]
    assert data.visible(0).tolist() == [frame not in (2, 3) for frame in range(14)]
    assert_frame(data, 0, 5, 5)


def test_lasot_uses_every_fifth_frame(tmp_path: Path) -> None:
    masks = write_mask_pictures(tmp_path / "masks", "cat-7", frames=61, step=5)
    data = lasot(write_lasot(tmp_path / "lasot"), masks=masks)
    assert data.sequences == ("cat-7",)
    assert data.visible(0).tolist() == [place not in (1, 2) for place in range(13)]
    assert_frame(data, 0, 4, 0)
    assert len(lasot(tmp_path / "lasot", masks=masks, limit=20).visible(0)) == 4


def test_run_folder_with_filters(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    data = RunMasks(folder)
    assert len(data) == 1
    assert data.visible(0).tolist() == [frame != 7 for frame in range(16)]
    assert_frame(data, 0, 5, 5)
    strict = RunMasks(folder, keep=MaskFilter(minimum_score=0.5))
    assert strict.visible(0).tolist() == [frame not in (6, 7) for frame in range(16)]
    assert not RunMasks(folder, keep=MaskFilter(minimum_confidence=0.99)).visible(0).any()
    with pytest.raises(TrainingError, match="too few pass the filters"):  # it was said that all were too short
        VideoClips(RunMasks(folder, keep=MaskFilter(minimum_confidence=99)), SMALL)(np.random.default_rng(0))
    # These masks have no estimate, so of them only prompts pass.
    states = MaskFilter(states=("prompt",))
    judged = RunMasks(folder, keep=MaskFilter(minimum_quality=0.1)).visible(0)
    assert np.array_equal(judged, RunMasks(folder, keep=states).visible(0))
    assert RunMasks(folder, keep=MaskFilter(states=None)).visible(0).all()
    prompted = RunMasks(folder, boxes="prompt")
    assert prompted.visible(0).nonzero()[0].tolist() == [0]
    assert prompted.read(0, [0])[0].box == square_box(0)


def test_run_folder_as_the_masks_of_boxes(tmp_path: Path) -> None:
    """A run over a data set's own frame folders is the mask source of that data set."""
    name = "GOT-10k_Train_000001"
    write_got10k(tmp_path / "train", (name,))
    run = write_run(tmp_path / "run", videos=(name, "unfinished"), frames=14)
    data = got10k(tmp_path / "train", masks=run)
    assert data.visible(0).tolist() == [frame not in (2, 3, 7) for frame in range(14)]
    assert_frame(data, 0, 5, 5)


@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_are_turned_as_the_run_turned_them(tmp_path: Path, orientation: int) -> None:
    """By EXIF; masks that are pictures belong to the pictures as stored."""
    name = "GOT-10k_Train_000001"
    write_got10k(tmp_path / "train", (name,))
    path = tmp_path / "train" / name / "00000006.jpg"
    shown = Image.open(path).convert("RGB")
    stored = shown.rotate(180) if orientation == 3 else shown.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, quality=98, exif=exif)
    run = write_run(tmp_path / "run", videos=(name, "unfinished"), frames=14)
    (frame,) = got10k(tmp_path / "train", masks=run).read(0, [5])
    assert np.abs(frame.image.astype(int) - np.asarray(shown)).mean() < 10
    plain = got10k(tmp_path / "train", masks=write_mask_pictures(tmp_path / "masks", name))
    if orientation == 3:
        assert np.abs(plain.read(0, [5])[0].image.astype(int) - np.asarray(stored)).mean() < 10


def test_a_compacted_folder_is_trained_on_like_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", videos=("a", "b", "c", "unfinished"))
    compact(str(run), str(tmp_path / "few"))
    (file,) = (tmp_path / "few" / "masks").iterdir()
    assert file.name == "part-00000.parquet"
    whole, merged = RunMasks(run), RunMasks(tmp_path / "few")
    assert [merged.label(index) for index in range(3)] == [f"run: video {name}, object 1" for name in "abc"]
    for index in range(3):
        assert merged.visible(index).tolist() == whole.visible(index).tolist()
        for ours, theirs in zip(merged.masks(index, [15, 2, 2]), whole.masks(index, [15, 2, 2]), strict=True):
            assert np.array_equal(ours, theirs)
            assert ours.any()
    assert_frame(merged, 1, 5, 5)
    with pytest.raises(TrainingError, match="video b, object 1: no mask on frame 16"):
        merged.masks(1, [16])


@pytest.mark.parametrize("kind", ["run", "compacted"])
def test_a_recipe_takes_the_masks_of_a_run_in_a_store(tmp_path: Path, kind: str) -> None:
    name = "GOT-10k_Train_000001"
    write_got10k(tmp_path / "train", (name,))
    folder = write_run(tmp_path / "run", videos=(name, "unfinished"), frames=14)
    if kind == "compacted":
        compact(str(folder), str(tmp_path / "few"))
        folder = tmp_path / "few"
    uri = f"memory://{uuid.uuid4().hex}/run"
    for path in folder.rglob("*.parquet"):
        files.put_file(path, f"{uri}/{path.relative_to(folder)}")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[[data]]\nkind = "got10k"\nroot = "train"\nmasks = "{uri}"\n[[data]]\nkind = "run"\nfolder = "{uri}"\n'
    )
    clips = open_clips(read_recipe(recipe).data, SMALL)
    assert isinstance(clips, MixedClips)
    boxed, run = (maker.data for maker in clips.makers if isinstance(maker, VideoClips))
    assert boxed.visible(0).tolist() == [frame not in (2, 3, 7) for frame in range(14)]
    assert run.visible(0).tolist() == [frame != 7 for frame in range(14)]
    assert_frame(boxed, 0, 5, 5)
    assert_frame(run, 0, 5, 5)


def test_masks_that_are_nowhere_are_named(tmp_path: Path) -> None:
    write_got10k(tmp_path / "train")
    for place in (tmp_path / "nothing", "memory://nothing/run"):
        with pytest.raises(TrainingError, match=rf"{place} is missing: expected a run's folder, or local masks as"):
            got10k(tmp_path / "train", masks=place)


def test_a_manifest_of_every_box(tmp_path: Path) -> None:
    """What a run needs to make the masks of a data set of boxes; a broken sequence is left out and named."""
    names = ("GOT-10k_Train_000001", "GOT-10k_Train_000002")
    write_got10k(tmp_path / "got", names)
    (tmp_path / "got" / names[1] / "cover.label").write_text("8\n")
    rows, skipped = write_box_manifest(got10k(tmp_path / "got", masks=None), tmp_path / "boxes.parquet")
    assert rows == 12
    assert len(skipped) == 1
    assert "cover.label holds 1 numbers, expected 14" in skipped[0]
    table = pq.read_table(tmp_path / "boxes.parquet").to_pylist()
    assert [row["frame"] for row in table] == [frame for frame in range(14) if frame not in (2, 3)]
    assert table[-1] == {
        "video_id": names[0],
        "video": str(tmp_path / "got" / names[0]),
        "frame": 13,
        **dict(zip("xywh", square_box(13), strict=True)),
        "prompt_kind": "annotate",
    }
    write_box_manifest(lasot(write_lasot(tmp_path / "lasot"), masks=None), tmp_path / "boxes.parquet")
    assert pq.read_table(tmp_path / "boxes.parquet")["frame"].to_pylist() == [0, *range(15, 61, 5)]
    with pytest.raises(TrainingError, match="has no masks"):
        got10k(tmp_path / "got", masks=None).read(0, [0])


def test_frames_of_a_run_come_by_index_from_the_video(davis_folder: Path) -> None:
    videos = sorted((davis_folder / "videos").glob("*.mp4")) if (davis_folder / "videos").exists() else []
    source = str(videos[0]) if videos else str(davis_folder / "JPEGImages/480p/dog")
    from rts_batch.training.clips.datasets.runs import read_video_frames

    with open_video(source, FrameRange(end=9)) as frames:
        expected = {frame.index: frame.image for frame in frames}
    found = read_video_frames(source, [8, 3, 3])
    assert sorted(found) == [3, 8]
    assert all(np.array_equal(found[index], expected[index]) for index in found)


def test_palette_masks_are_read_by_index_and_pictures_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.array([[[10, 20, 30]]], np.uint8))
    assert read_image(path).tolist() == [[[30, 20, 10]]]


# ---- damage ---------------------------------------------------------------------------------------------------------


def damage(root: Path, kind: str) -> None:
    """Spoils every frame of video v1 of a miniature YouTube-VOS."""
    for image, mask in zip(
        sorted((root / "JPEGImages/v1").glob("*.jpg")), sorted((root / "Annotations/v1").glob("*.png")), strict=True
    ):
        if kind == "a missing picture":
            image.unlink()
        elif kind == "an unreadable picture":
            image.write_bytes(b"no picture")
        elif kind == "a mask of another size":
            cv2.imwrite(str(mask), np.ones((20, 20), np.uint8))
        elif kind == "an unreadable mask":
            mask.write_bytes(mask.read_bytes()[:40])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("a missing picture", "is missing"),
        ("an unreadable picture", "is no picture that can be read"),
        ("a mask of another size", "the mask has 20×20 pixels, the picture 48×64"),
        ("an unreadable mask", "is no mask that can be read"),
    ],
)
def test_damaged_sequences_are_named_counted_and_skipped(tmp_path: Path, kind: str, said: str) -> None:
    damage(write_youtube_vos(tmp_path), kind)
    data = youtube_vos(tmp_path)
    stream = ClipStream(VideoClips(data, SMALL), batch=8, seed=1)
    batch = next(stream.batches())
    assert batch.images.shape == (4, 8, 3, 48, 64)
    assert batch.skipped
    assert all(said in reason and "v1" in reason for reason in batch.skipped)
    # The stream does not depend on the skipping, so a resumed training sees the same.
    assert next(stream.batches()).skipped == batch.skipped


def test_empty_instances_are_never_drawn(tmp_path: Path) -> None:
    write_youtube_vos(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    meta["videos"]["v1"]["objects"]["9"] = {}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    data = youtube_vos(tmp_path, exclude=["v2"])
    assert [index for index in range(len(data)) if not data.visible(index).any()] == [2]
    batch = next(ClipStream(VideoClips(data, SMALL), batch=12, seed=0).batches())
    assert not batch.skipped
    with pytest.raises(TrainingError, match="the mask is empty"):
        data.read(2, [0])


def test_a_data_set_without_a_good_sequence_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rts_batch.training.clips.sampling.MAXIMUM_DRAWS", 20)
    damage(write_youtube_vos(tmp_path), "an unreadable picture")
    make = VideoClips(youtube_vos(tmp_path, exclude=["v2"]), SMALL)
    with pytest.raises(TrainingError, match=r"no clip of 4 frames in 20 draws; .*no picture that can be read"):
        make(np.random.default_rng(0))


def test_wrong_layouts_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="JPEGImages is missing: expected the pictures of YouTube-VOS"):
        youtube_vos(tmp_path)
    write_youtube_vos(tmp_path / "vos")
    (tmp_path / "vos/meta.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"meta.json: expected YouTube-VOS's list"):
        youtube_vos(tmp_path / "vos")
    with pytest.raises(TrainingError, match="expected the sequences of GOT-10k"):
        got10k(tmp_path / "absent", masks=tmp_path)
    write_got10k(tmp_path / "got")
    with pytest.raises(TrainingError, match="expected a run's folder, or local masks as pictures"):
        got10k(tmp_path / "got", masks=tmp_path / "absent")
    (tmp_path / "list.txt").write_text("nowhere\n")
    with pytest.raises(TrainingError, match="lists 'nowhere' and 0 more"):
        got10k(tmp_path / "got", masks=tmp_path, sequences=tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(TrainingError, match="no sequence to train on"):
        got10k(tmp_path / "got", masks=tmp_path, sequences=tmp_path / "list.txt")


@pytest.mark.parametrize("text", ["1,2,3\n", "1,2,3,x\n", "", "1,2,3,nan\n"])
def test_wrong_annotations_are_named(tmp_path: Path, text: str) -> None:
    write_got10k(tmp_path / "got")
    file = tmp_path / "got/GOT-10k_Train_000001/groundtruth.txt"
    file.write_text(text)
    with pytest.raises(TrainingError, match=r"groundtruth\.txt"):
        got10k(tmp_path / "got", masks=tmp_path).visible(0)


def test_a_damaged_masks_file_of_a_run_is_named(tmp_path: Path) -> None:
    data = RunMasks(write_run(tmp_path / "run"))
    (file,) = (tmp_path / "run" / "masks").iterdir()
    file.write_bytes(file.read_bytes()[:500])
    for read in (lambda: data.visible(0), lambda: data.masks(0, [1])):
        with pytest.raises(TrainingError, match=rf"video a, object 1: its masks cannot be read \(.*{file.name}"):
            read()


def test_a_frame_without_a_mask_is_named(tmp_path: Path) -> None:
    data = RunMasks(write_run(tmp_path / "run"))
    with pytest.raises(TrainingError, match="video a, object 1: no mask on frame 16"):
        data.masks(0, [3, 16])


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", videos=("a",))
    with pytest.raises(TrainingError, match="none of the 1 videos of this run is finished"):
        RunMasks(folder)


# ---- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_index_of_a_hundred_thousand_entries_opens_in_seconds(tmp_path: Path) -> None:
    """Opening reads no picture and no annotation, so it takes no longer than the list of names."""
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    entry = {"objects": {"1": {}, "2": {}}}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {f"{n:010x}": entry for n in range(50_000)}}))
    started = time.perf_counter()
    data = youtube_vos(tmp_path)
    assert len(data) == 100_000
    assert time.perf_counter() - started < 20


# ---- the stream -----------------------------------------------------------------------------------------------------


class Numbers:
    """A clip maker whose clips show which random generator they got."""

    def __call__(self, rng: np.random.Generator) -> Clip:
        values = torch.from_numpy(rng.random((2, 3, 4, 4), dtype=np.float32))
        return Clip(values, values[:, 0], torch.zeros(2, 4), 1)


def first_batches(stream: ClipStream, count: int, *, start: int = 0) -> list[Batch]:
    batches = stream.batches(start)
    return [next(batches) for _ in range(count)]


@pytest.mark.long
def test_the_stream_is_the_same_with_any_number_of_loaders_and_from_any_start() -> None:
    alone = first_batches(ClipStream(Numbers(), batch=4, seed=5), 3)
    loaded = first_batches(ClipStream(Numbers(), batch=4, seed=5, loaders=1), 3)
    later = first_batches(ClipStream(Numbers(), batch=4, seed=5), 1, start=2)
    other = first_batches(ClipStream(Numbers(), batch=4, seed=6), 1)
    for ours, theirs in zip([*alone, alone[2]], [*loaded, *later], strict=True):
        assert torch.equal(ours.images, theirs.images)
    assert not torch.equal(alone[0].images, other[0].images)
    assert not torch.equal(alone[0].images, alone[1].images)


def test_workers_share_each_global_batch() -> None:
    whole = first_batches(ClipStream(Numbers(), batch=4, seed=5), 2)
    shares = [first_batches(ClipStream(Numbers(), batch=4, seed=5, rank=rank, workers=2), 2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch.images, torch.cat([first.images, second.images], dim=1))
    with pytest.raises(ValueError, match="cannot be shared by 3 workers"):
        ClipStream(Numbers(), batch=4, seed=5, workers=3)


def test_a_batch_is_its_clips_side_by_side() -> None:
    plain = [Numbers()(np.random.default_rng(seed)) for seed in (0, 1)]
    batch = Batch.of(plain).to("cpu", torch.float64)
    assert batch.images.dtype == torch.float64
    assert torch.equal(batch.masks[:, 1].float(), plain[1].masks)
    assert (batch.sequences, batch.train_frames, batch.previous) == (2, 1, None)
    with_previous = [replace(clip, previous=clip.masks, skipped=("a",)) for clip in plain]
    batch = Batch.of(with_previous).to("cpu")
    assert batch.previous is not None
    assert torch.equal(batch.previous, batch.masks)
    assert batch.skipped == ("a", "a")


def test_data_sets_are_drawn_by_weight() -> None:
    drawn: list[int] = []

    def maker(number: int):
        def make(rng: np.random.Generator) -> Clip:
            drawn.append(number)
            return Numbers()(rng)

        return make

    mixed = MixedClips([maker(0), maker(1)], [6, 1])
    for index in range(700):
        mixed(np.random.default_rng(index))
    assert 560 < drawn.count(0) < 640


@pytest.mark.long
def test_clips_of_every_layout(tmp_path: Path) -> None:
    """From files to batches, all data sets of the paper side by side in one stream with a loader process."""
    masks = write_mask_pictures(tmp_path / "masks", "GOT-10k_Train_000001")
    write_mask_pictures(tmp_path / "masks", "cat-7", frames=61, step=5)
    sets: list[SequenceData] = [
        youtube_vos(write_youtube_vos(tmp_path / "vos")),
        davis(write_davis(tmp_path / "davis")),
        got10k(write_got10k(tmp_path / "got"), masks=masks),
        lasot(write_lasot(tmp_path / "lasot"), masks=masks),
        RunMasks(write_run(tmp_path / "run")),
    ]
    make = MixedClips([VideoClips(data, SMALL) for data in sets], [6, 1, 6, 6, 1])
    alone, loaded = (next(ClipStream(make, batch=10, seed=3, loaders=loaders).batches()) for loaders in (0, 1))
    assert alone.images.shape == (4, 10, 3, 48, 64)
    assert alone.images.dtype == torch.float32
    assert set(alone.masks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(alone.images, loaded.images)
    assert torch.equal(alone.boxes, loaded.boxes)
