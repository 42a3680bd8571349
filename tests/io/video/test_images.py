"""Folders and archives of pictures as videos: what becomes a frame, and with which pixels; PIL says which are right."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import VideoError
from rts_batch.io.storage import files
from rts_batch.io.video.description import describe_video
from rts_batch.io.video.frames import Frame, FrameRange, VideoInfo
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import open_video
from rts_batch.io.video.spool import bring
from tests.support.barcodes import HEIGHT, WIDTH, draw_number, read_number
from tests.support.decoded import same
from tests.support.videos import draw, make_images


def read(path: Path, **options: Any) -> tuple[VideoInfo, list[Frame], list[str]]:
    with open_video(str(path), **options) as source:
        frames = list(source)
        return source.info, frames, source.warnings


@pytest.mark.parametrize("ending", [".png", ".jpg", ".JPEG"])
def test_a_folder_of_images_is_a_video_in_natural_order(tmp_path: Path, ending: str) -> None:
    make_images(tmp_path / "clip", 12, ending=ending)
    (tmp_path / "clip" / "notes.txt").write_text("no image")
    (tmp_path / "clip" / f"._3{ending}").write_bytes(b"a file that macOS leaves")
    info, frames, warnings = read(tmp_path / "clip")
    assert info == VideoInfo(120, 160, 12, None, None, "images")
    assert not warnings
    assert [(frame.index, frame.time) for frame in frames] == [(index, None) for index in range(12)]
    for frame, (image, _) in zip(frames, draw(12), strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < (0.001 if ending == ".png" else 6)
    assert [frame.index for frame in read(tmp_path / "clip", wanted=FrameRange(start=3, end=5))[1]] == [3, 4]


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("clip/__MACOSX/._0.png", b"")
        for path in folder.iterdir():
            archive.write(path, f"clip/{path.name}")


def _tar(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz" if target.suffix in (".gz", ".tgz") else "w") as archive:
        archive.add(folder, "clip")


@pytest.mark.parametrize(("ending", "pack"), [("zip", _zip), ("tar", _tar), ("tar.gz", _tar), ("tgz", _tar)])
def test_an_archive_of_images_is_the_video_that_its_folder_is(tmp_path: Path, ending: str, pack: Any) -> None:
    make_images(tmp_path / "clip", 12)
    pack(tmp_path / "clip", tmp_path / f"a.{ending}")
    expected = read(tmp_path / "clip")[1]
    info, frames, _ = read(tmp_path / f"a.{ending}")
    assert info == VideoInfo(120, 160, 12, None, None, "images")
    assert same(frames, expected)
    assert same(
        read(tmp_path / f"a.{ending}", wanted=FrameRange(start=2, end=9, backward=True))[1], expected[2:9][::-1]
    )
    assert describe_video(str(tmp_path / f"a.{ending}")) == describe_video(str(tmp_path / "clip"))


def test_pictures_that_are_links_are_frames(tmp_path: Path) -> None:
    """A tar keeps files that are one on disk once and links to it; their frames were missing without a word."""
    make_images(tmp_path / "clip", 4)
    (tmp_path / "clip" / "4.png").hardlink_to(tmp_path / "clip" / "1.png")
    (tmp_path / "clip" / "5.png").symlink_to("2.png")
    _tar(tmp_path / "clip", tmp_path / "a.tar")
    expected = read(tmp_path / "clip")[1]
    assert len(expected) == 6
    assert same(read(tmp_path / "a.tar")[1], expected)


@pytest.mark.parametrize("packed", [False, True])
def test_a_link_to_nothing_is_named(tmp_path: Path, packed: bool) -> None:
    make_images(tmp_path / "clip", 3)
    (tmp_path / "clip" / "3.png").symlink_to("gone.png")
    _tar(tmp_path / "clip", tmp_path / "a.tar")
    with pytest.raises(VideoError, match=r"3\.png cannot be read"):
        read(tmp_path / ("a.tar" if packed else "clip"))


@pytest.mark.long
def test_archives_that_are_no_video_are_named(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar", "a.tgz"):
        (tmp_path / name).write_bytes(b"no archive" * 100)
        with pytest.raises(VideoError, match=rf"{name} is not a (zip|tar) archive"):
            read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a/0.png", b"x")
        archive.writestr("b/0.png", b"x")
    with pytest.raises(VideoError, match=r"holds images in 2 folders \(a, b …\)"):
        read(tmp_path / "two.zip")
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("0.png", "w") as file,
    ):
        for _ in range(257):
            file.write(bytes(1 << 20))
    with pytest.raises(VideoError, match=r"0\.png cannot be read: it has 269484032 bytes"):
        read(tmp_path / "bomb.zip")


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    make_images(tmp_path / "clip", 3)
    make_images(tmp_path / "other", 1, size=(80, 60))
    (tmp_path / "other" / "0.png").rename(tmp_path / "clip" / "2.png")
    with pytest.raises(VideoError, match=r"2\.png is 80×60 pixels, 0\.png is 160×120"):
        read(tmp_path / "clip")


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    make_images(tmp_path / "clip", 3)
    (tmp_path / "clip" / "1.png").write_bytes(b"")
    with pytest.raises(VideoError, match=r"1\.png is not an image"):
        read(tmp_path / "clip")


def test_a_folder_without_images_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds no images"):
        read(tmp_path)
    make_images(tmp_path / "clip", 3)
    with pytest.raises(VideoError, match="no frame 3"):
        read(tmp_path / "clip", wanted=FrameRange(start=3))


# Which pictures are frames


def write(folder: Path, names: dict[str, NDArray[np.uint8]]) -> Path:
    for name, picture in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


def numbered(template: str, count: int = 6) -> dict[str, NDArray[np.uint8]]:
    return {template.format(number): draw_number(number) for number in range(count)}


def masks(template: str, count: int = 6, value: int = 255) -> dict[str, NDArray[np.uint8]]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:60, 20:70] = value
    return {template.format(number): mask for number in range(count)}


def shown(path: Path, **options: Any) -> tuple[list[int], list[str]]:
    _, frames, warnings = read(path, **options)
    return [read_number(frame.image) for frame in frames], warnings


BESIDE = {
    "by its name": (numbered("frame_{:04d}.jpg"), masks("frame_{:04d}_mask.png")),
    "by its name, as JPEG": (numbered("frame_{:04d}.jpg"), masks("frame_{:04d}_mask.jpg")),
    "by its pixels": (numbered("{:05d}.jpg"), masks("{:05d}.png", value=1)),
    "the first frame's alone": (numbered("{:05d}.jpg"), masks("{:05d}.png", 1)),
    "one for each object": (numbered("{:05d}.jpg"), masks("{:05d}_1.png", value=1) | masks("{:05d}_2.png", value=1)),
    "of cityscapes": (numbered("a_{:03d}_leftImg8bit.png"), masks("a_{:03d}_gtFine_labelIds.png")),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("place", ["folder", "zip", "tar"])
def test_masks_beside_frames_are_no_frames(tmp_path: Path, kind: str, place: str) -> None:
    frames, beside = BESIDE[kind]
    video = write(tmp_path / "clip", frames | beside)
    if place != "folder":
        video = tmp_path / f"clip.{place}"
        {"zip": _zip, "tar": _tar}[place](tmp_path / "clip", video)
    numbers, warnings = shown(video)
    assert numbers == list(range(6))
    assert warnings
    for warning in warnings:
        assert "taken for masks and left out; the frames are 6 pictures like" in warning
        assert next(iter(frames)) in warning
    assert next(iter(beside)) in warnings[0]
    assert shown(video, wanted=FrameRange(backward=True))[0] == list(range(6))[::-1]


def test_folders_of_masks_in_an_archive_are_no_frames(tmp_path: Path) -> None:
    write(tmp_path / "a", numbered("images/{:04d}.png") | masks("masks/{:04d}.png"))
    _zip_tree(tmp_path / "a", tmp_path / "a.zip")
    numbers, (warning,) = shown(tmp_path / "a.zip")
    assert numbers == list(range(6))
    assert "masks/0000.png: taken for masks" in warning


def _zip_tree(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))


UNCLEAR = {
    "two cameras": numbered("left_{:03d}.png") | numbered("right_{:03d}.png"),
    "depth beside colour": numbered("{:05d}_rgb.png") | numbered("{:05d}_depth.png"),
    "every frame twice": numbered("{:05d}.jpg") | numbered("{:05d}.webp"),
    "a title": numbered("frame_{:03d}.png") | {"cover.png": draw_number(99)},
    "a copy": numbered("frame_{:03d}.png") | {"frame_003 (1).png": draw_number(3)},
    "two counts": numbered("IMG_{:04d}.jpg", 3) | {f"DSC_{number:04d}.jpg": draw_number(number) for number in (7, 8)},
    "the same number": numbered("{:03d}.png") | {"4.png": draw_number(4)},
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_is_unclear_is_refused_with_names(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "clip", UNCLEAR[kind])
    with pytest.raises(VideoError, match=r"clip: which of its pictures|two pictures with the numbers of") as caught:
        read(tmp_path / "clip")
    assert [name for name in UNCLEAR[kind] if name in str(caught.value)]


@pytest.mark.parametrize("ending", ["heic", "exr", "dng", "tga"])
def test_pictures_that_cannot_be_read_are_not_left_out(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "clip", numbered("{:03d}.jpg"))
    (tmp_path / "clip" / f"006.{ending}").write_bytes(b"picture")
    with pytest.raises(VideoError, match=rf"not read here: 1 picture like 006\.{ending}; convert"):
        read(tmp_path / "clip")


def test_files_of_several_kinds_are_all_frames(tmp_path: Path) -> None:
    pictures = {f"{number:05d}.{'jpg' if number % 3 else 'bmp'}": draw_number(number) for number in range(6)}
    numbers, (warning,) = shown(write(tmp_path / "clip", pictures))
    assert numbers == list(range(6))
    assert "all pictures are frames, in the order of their names: 4 pictures like 00001.jpg, 2 pictures" in warning
    same_kind = {f"{number}.{['jpg', 'JPG', 'jpeg'][number % 3]}": draw_number(number) for number in range(6)}
    assert shown(write(tmp_path / "same", same_kind)) == (list(range(6)), [])


def test_names_without_a_system_are_frames_in_their_order(tmp_path: Path) -> None:
    """As Roboflow writes them, with a hash behind the number."""
    hashes = ["a3f", "9bc1", "ffe", "0d4d", "77a", "c0c"]
    pictures = {f"frame_{number:04d}_jpg.rf.{text}.jpg": draw_number(number) for number, text in enumerate(hashes)}
    numbers, (warning,) = shown(write(tmp_path / "clip", pictures))
    assert numbers == list(range(6))
    assert "all pictures are frames, in the order of their names" in warning


def test_time_stamps_are_decimals(tmp_path: Path) -> None:
    stamps = [1696000000 + number * 0.05 for number in range(25)]  # …000.0, .05, .1, .15 …
    pictures = {f"{stamp}.png": draw_number(number) for number, stamp in enumerate(stamps)}
    assert shown(write(tmp_path / "stamps", pictures)) == (list(range(25)), [])
    counted = {f"shot.{number}.png": draw_number(number) for number in range(25)}
    assert shown(write(tmp_path / "counted", counted)) == (list(range(25)), [])


def test_missing_numbers_are_told(tmp_path: Path) -> None:
    pictures = {f"{number:05d}.png": draw_number(number) for number in (0, 1, 2, 5, 6)}
    numbers, (warning,) = shown(write(tmp_path / "gap", pictures))
    assert numbers == [0, 1, 2, 5, 6]
    assert warning == (
        "numbers are missing between 00002.png and 00005.png; a frame's index counts the pictures: 00005.png is frame 3"
    )
    fifth = {f"{number:05d}.png": draw_number(number) for number in (1, 6, 11, 16)}
    assert shown(write(tmp_path / "fifth", fifth)) == ([1, 6, 11, 16], [])


def test_several_counts_in_a_row_are_told(tmp_path: Path) -> None:
    pictures = {f"cam{camera}_{number:03d}.png": draw_number(number) for camera in (1, 2) for number in range(3)}
    numbers, (warning,) = shown(write(tmp_path / "clip", pictures))
    assert numbers == [0, 1, 2, 0, 1, 2]
    assert "count several times alike, again from cam2_000.png on" in warning


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    write(tmp_path / "clip", numbered("a/{}.png"))
    with pytest.raises(VideoError, match="holds no images but the folders a; give one of them"):
        read(tmp_path / "clip")


def test_the_same_in_a_store_and_in_the_decoding_process(tmp_path: Path) -> None:
    frames, beside = BESIDE["by its name"]
    write(tmp_path / "clip", frames | beside)
    for path in (tmp_path / "clip").iterdir():
        files.put_file(path, f"memory://test-images/clip/{path.name}")
    video = bring("memory://test-images/clip", tmp_path / "spool")
    expected = read(tmp_path / "clip")
    with DecodingProcess() as process, process.open(video) as source:
        assert same(list(source), expected[1])
        assert source.warnings == expected[2]
    assert describe_video(str(video))["warnings"] == expected[2]


# Pixels


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "tiff", "jp2", "ppm", "gif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_every_kind_has_the_pixels_that_pil_reads(tmp_path: Path, ending: str, mode: str) -> None:
    for number in range(2):
        picture = Image.fromarray(draw_number(number)).convert(mode)
        try:
            (tmp_path / "clip").mkdir(exist_ok=True)
            picture.save(tmp_path / "clip" / f"{number}.{ending}")
        except (OSError, KeyError):
            pytest.skip(f"{ending} holds no {mode}")
    for number, frame in enumerate(read(tmp_path / "clip")[1]):
        expected = np.asarray(Image.open(tmp_path / "clip" / f"{number}.{ending}").convert("RGB"))
        assert np.array_equal(frame.image, expected)


@pytest.mark.parametrize(("bits", "ending"), [(10, "png"), (12, "png"), (12, "tif"), (14, "tif"), (16, "png")])
def test_sixteen_bits_are_read_by_those_in_use(tmp_path: Path, bits: int, ending: str) -> None:
    (tmp_path / "clip").mkdir()
    expected = [np.asarray(Image.fromarray(draw_number(number)).convert("L")) for number in range(4)]
    for number, grey in enumerate(expected):
        Image.fromarray(grey.astype(np.uint16) << (bits - 8)).save(tmp_path / "clip" / f"{number}.{ending}")
    _, frames, (warning,) = read(tmp_path / "clip")
    assert all(np.array_equal(frame.image[..., 0], grey) for frame, grey in zip(frames, expected, strict=True))
    assert f"the values 0 to {(1 << bits) - 1} become 0 to 255 in all of them" in warning
    assert np.array_equal(read(tmp_path / "clip", wanted=FrameRange(start=3))[1][0].image, frames[3].image)


def test_thermal_values_that_lie_close_together_are_spread(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(6):
        grey = np.asarray(Image.fromarray(draw_number(number)).convert("L")).astype(np.uint16)
        grey[40, 40], grey[50, 50] = 0, 255
        Image.fromarray(21000 + 4 * grey).save(tmp_path / "clip" / f"{number}.tif")
    _, frames, (warning,) = read(tmp_path / "clip")
    assert [read_number(frame.image) for frame in frames] == list(range(6))
    assert "the values 21000 to 22020 become 0 to 255" in warning
    assert (frames[0].image.min(), frames[0].image.max()) == (0, 255)


def test_values_that_no_picture_looked_at_has_are_told(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(130):  # of which 64 are looked at
        grey = np.full((8, 8), 60000 if number == 64 else 1000, np.uint16)
        Image.fromarray(grey).save(tmp_path / "clip" / f"{number:03d}.png")
    _, frames, (_, warning) = read(tmp_path / "clip")
    assert frames[64].image.max() == 255
    assert warning.startswith("1 pictures have values above 1023, which become 255")


@pytest.mark.parametrize("ending", ["tif", "gif", "webp"])
def test_a_file_of_several_pictures_is_named(tmp_path: Path, ending: str) -> None:
    first, *others = (Image.fromarray(draw_number(number)) for number in range(3))
    first.save(tmp_path / f"0.{ending}", save_all=True, append_images=others)
    with pytest.raises(VideoError, match=rf"0\.{ending} holds 3 pictures; a frame is one"):
        read(tmp_path)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "0.tif")
    with pytest.raises(
        VideoError, match=r"0\.tif is not an image that can be decoded: it holds values of the kind 'F'"
    ):
        read(tmp_path)
