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
from PIL import Image

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
