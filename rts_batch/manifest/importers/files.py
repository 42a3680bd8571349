"""Reads the files that importers come across, each in whatever state, with an error that says which and what."""

from __future__ import annotations

import csv
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree
from PIL import ExifTags, Image

from rts_batch.errors import ManifestError, StorageError


def read_names(path: Path | None) -> dict[str, tuple[str, str]]:
    """video_id and video by the name in an export's files; nothing where the table is another one."""
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        if not {"name", "video_id", "video"} <= set(rows.fieldnames or ()):
            return {}
        return {row["name"]: (row["video_id"], row["video"]) for row in rows}


def read_text(path: str | Path) -> str:
    """Read a local text file; raises StorageError where it cannot be read, ManifestError where it is no UTF-8."""
    if os.path.isdir(path):
        inside = next((f", {file} say" for file in sorted(Path(path).rglob("*.json"))), "")
        raise ManifestError(f"{path} is a folder; name the file in it{inside}")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        what = (
            "is an archive; unpack it, and name what is in it" if _is_archive(path) else f"is not UTF-8 text: {error}"
        )
        raise ManifestError(f"{path} {what}") from error


def _is_archive(path: str | Path) -> bool:
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def read_json(path: str | Path) -> Any:
    """Read a local JSON file; raises StorageError where it cannot be read, ManifestError where it is no JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is no JSON: {error}") from error


def read_xml(path: Path) -> Element:
    """Read a local XML file, of whatever encoding it says itself to be, and return its root.

    Raises:
        ManifestError: it is no XML, or one with entities.
        StorageError: it cannot be read.
    """
    try:
        head = path.read_bytes()[:2]
    except OSError:
        head = b""
    content = path.read_bytes() if head in (b"\xff\xfe", b"\xfe\xff") else read_text(path).encode()
    try:
        root: Element = ElementTree.fromstring(content)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:  # an encoding that is none
        raise ManifestError(f"{path} is no XML that can be read: {error}") from error
    return root


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image as it is shown, by its head; None where there is no readable image."""
    try:
        with Image.open(path) as image:
            # Of a PNG whose head has no such tag Pillow decodes all, to see whether one stands behind the pixels.
            known = image.format != "PNG" or "exif" in image.info or b"eXIf" in _end_of(path)
            turned = known and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else image.size
    except OSError:
        return None


def _end_of(path: Path) -> bytes:
    """The last bytes of a file, among which any tags are."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        return file.read()
