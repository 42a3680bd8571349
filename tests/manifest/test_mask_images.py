"""Files that are no mask image, or a damaged one."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from rts_batch.errors import PromptError
from rts_batch.manifest.mask_images import open_mask_image
from rts_batch.manifest.mask_rules import ImageUse, read_mask_image

PICTURE = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(values: NDArray[np.uint8], kind: str = "PNG", mode: str | None = None) -> bytes:
    image = Image.fromarray(values)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind)
    return file.getvalue()


@settings(max_examples=200)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]), st.sampled_from(["L", "RGB", "P"]), st.data())
def test_a_damaged_image_gives_a_mask_or_our_error(kind: str, mode: str, data: st.DataObject) -> None:
    mode = {("JPEG", "P"): "L", ("WEBP", "P"): "RGB"}.get((kind, mode), mode)
    content = bytearray(saved(PICTURE, kind, mode))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(PromptError):
        mask = read_mask_image(open_mask_image(bytes(content)), ImageUse(object_id=3)).mask
        assert mask.dtype == np.bool_
        assert mask.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture at all", "is not a picture that can be read (PNG, JPEG, WEBP, BMP, TIFF, GIF)"),
        (b"", "is not a picture that can be read"),
        (b'{"size": [4, 5], "counts": "52305"}', "is text, not a picture; an RLE stands in the manifest itself"),
        (saved(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))[:999], "is a picture that is damaged"),
    ],
)
def test_a_file_that_is_no_image_says_what_it_is(content: bytes, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        open_mask_image(content)
    assert message in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_several_pictures_in_one_file_are_refused() -> None:
    file = io.BytesIO()
    pictures = [Image.fromarray(PICTURE + shift) for shift in (0, 9)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    with pytest.raises(PromptError, match="several pictures in one file"):
        open_mask_image(file.getvalue())


def test_a_picture_larger_than_any_video_is_refused_unread() -> None:
    header = saved(np.zeros((1, 1), np.uint8))
    body = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    content = header[:8] + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + header[33:]
    with pytest.raises(PromptError, match=r"40000×40000|exceeds limit"):
        open_mask_image(content)


ROWS, COLUMNS = np.mgrid[:48, :64]
SQUARE = (abs(ROWS - 15) < 8) & (abs(COLUMNS - 20) < 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("PNG", SQUARE * np.uint8(255)),
        ("PNG", SQUARE * np.uint16(7)),
        ("JPEG", SQUARE * np.uint8(255)),
        ("TIFF", SQUARE * np.uint8(255)),
    ],
)
def test_a_picture_is_turned_as_its_tag_says(kind: str, stored: NDArray[np.uint8], orientation: int) -> None:
    """The frames of a folder are, and the target of a mask was mirrored."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(stored).save(file, kind, exif=exif if kind == "TIFF" else exif.tobytes())
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    shown = open_mask_image(file.getvalue()).greys
    assert shown is not None
    assert shown.shape == turned.shape
    assert ((shown > shown.max() / 2) == (turned > 0)).mean() > 0.99


def png(values: NDArray[np.uint8], bits: int) -> bytes:
    """A grey PNG of fewer bits than a byte has, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    each = np.unpackbits(values[:, :, None], axis=2)[:, :, -bits:].reshape(len(values), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(each, axis=1))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("bits", "ids", "read"),
    [(4, (1, 2), (1, 2)), (4, (3, 15), (3, 15)), (2, (1, 3), (1, 3)), (2, (1, 2), (1, 2)), (2, (3, 0), (255, 0))],
)
def test_numbers_of_two_and_four_bits_are_what_the_file_has(
    bits: int, ids: tuple[int, int], read: tuple[int, int]
) -> None:
    """They came as shares of 255: object 1 was 17, and object 2 was 34. White is white in them, too."""
    other = (ROWS > 30) & (COLUMNS > 40)
    greys = open_mask_image(png((SQUARE * ids[0] + other * ids[1]).astype(np.uint8), bits)).greys
    assert np.array_equal(greys, SQUARE * read[0] + other * read[1])


def test_soft_edges_of_four_bits_stay_soft_edges() -> None:
    distance = np.hypot(ROWS - 24, COLUMNS - 32)
    drawn = (np.clip(16 - distance, 0, 2) * 7.5).astype(np.uint8)
    mask = read_mask_image(open_mask_image(png(drawn, 4)), ImageUse(object_id=1)).mask
    assert np.array_equal(mask, drawn > 7)
