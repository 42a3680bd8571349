"""What the importers read of files beside the annotations."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from rts_batch.manifest.importers.files import image_size


@pytest.mark.parametrize("place", ["head", "end"])
def test_an_image_has_the_size_that_it_is_shown_with_wherever_its_tag_stands(tmp_path: Path, place: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path, stored = tmp_path / "turned.png", io.BytesIO()
    Image.new("RGB", (40, 30)).save(stored, "PNG", exif=exif if place == "head" else None)
    data = stored.getvalue()
    if place == "end":  # as OpenCV, which reads the frames, heeds it too
        tag = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        data = data[:-12] + struct.pack(">I", len(tag) - 4) + tag + struct.pack(">I", zlib.crc32(tag)) + data[-12:]
    path.write_bytes(data)
    assert image_size(path) == (30, 40)


def test_no_pixel_is_decoded_for_an_images_size(tmp_path: Path) -> None:
    """Of a hundred thousand PNGs that would take hours."""
    path = tmp_path / "half.png"
    Image.effect_noise((400, 300), 50).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert image_size(path) == (400, 300)
