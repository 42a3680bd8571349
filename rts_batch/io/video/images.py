"""Images as a video: a folder of them, or a zip or tar archive."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.video.frames import Frame, FrameRange, FrameSource, Moment, VideoInfo

__all__ = ["ImagesSource", "is_archive", "natural_key"]

ENDINGS: Final = (".jpg", ".jpeg", ".png")
ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
LARGEST_IMAGE: Final = 256 << 20
"""Bytes of one image file in an archive; one that unpacks to more is taken for an attack."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `frame2` before `frame10`, and by the plain name where that is equal."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVES)


class ImagesSource(FrameSource):
    """JPEG and PNG files of one folder or archive, in natural order of their names; all have the size of the first.

    Raises:
        VideoError: no image there, images in several folders of an archive, or one that cannot be read or has another
            size.
    """

    def __init__(self, path: str, wanted: FrameRange, *, backward: bool = False) -> None:
        self._members = (
            _zip(path) if path.lower().endswith(".zip") else _tar(path) if is_archive(path) else _folder(path)
        )
        names = [name for name in self._members.names if _is_image(name)]
        if not names:
            raise VideoError(f"{path} holds no images; as a video it must hold {', '.join(ENDINGS)} files")
        folders = sorted({str(PurePosixPath(name).parent) for name in names})
        if len(folders) > 1:
            raise VideoError(f"{path} holds images in {len(folders)} folders ({folders[0]}, {folders[1]} …); give one")
        self._names = sorted(names, key=natural_key)
        self._first = self._read(path, self._names[0])
        height, width, _ = self._first.shape
        info = VideoInfo(height, width, len(self._names), None, None, "images")
        super().__init__(path, info, wanted)
        self._backward = backward

    def frames(self) -> Iterator[Frame]:
        indices = self.wanted.of(len(self._names))
        for index in reversed(indices) if self._backward else indices:
            name = self._names[index]
            image = self._read(self.path, name) if index else self._first
            if image.shape != self._first.shape:
                height, width, _ = image.shape
                raise VideoError(
                    f"{self.path}/{name} is {width}×{height} pixels, {self._names[0]} is {self.info.width}×"
                    f"{self.info.height}; all images of a video must have one size"
                )
            yield Frame(Moment(index, None), image)

    def close(self) -> None:
        self._members.close()

    def _read(self, path: str, name: str) -> NDArray[np.uint8]:
        place = f"{path}/{name}"
        try:
            data = np.frombuffer(self._members.read(name), np.uint8)
        except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError, KeyError) as error:
            raise VideoError(f"{place} cannot be read: {error}") from error
        image = None
        if len(data):
            try:
                image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            except cv2.error as error:
                raise VideoError(f"{place} cannot be decoded: {error}") from error
        if image is None:
            raise VideoError(f"{place} is not an image that can be decoded")
        rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return rgb


class _Members:
    """The files of a folder or an archive."""

    def __init__(self, names: list[str], read: Callable[[str], bytes], close: Callable[[], object]) -> None:
        self.names = names
        self.read = read
        self.close = close


def _folder(path: str) -> _Members:
    try:
        names = [entry.name for entry in Path(path).iterdir() if entry.is_file()]
    except OSError as error:
        raise VideoError(f"{path} cannot be listed: {error}") from error
    return _Members(names, lambda name: (Path(path) / name).read_bytes(), lambda: None)


def _zip(path: str) -> _Members:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise VideoError(f"{path} is not a zip archive that can be read: {error}") from error
    sizes = {item.filename: item.file_size for item in archive.infolist() if not item.is_dir()}

    def read(name: str) -> bytes:
        return archive.read(name) if sizes[name] <= LARGEST_IMAGE else _refuse(sizes[name])

    return _Members(list(sizes), read, archive.close)


def _tar(path: str) -> _Members:
    try:
        archive = tarfile.open(path)  # noqa: SIM115 - closed with the source
        members = {item.name: item for item in archive if item.isreg()}
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise VideoError(f"{path} is not a tar archive that can be read: {error}") from error

    def read(name: str) -> bytes:
        file = archive.extractfile(members[name]) if members[name].size <= LARGEST_IMAGE else None
        return file.read() if file is not None else _refuse(members[name].size)

    return _Members(list(members), read, archive.close)


def _refuse(size: int) -> bytes:
    raise OSError(f"it has {size} bytes, more than an image of a video")


def _is_image(name: str) -> bool:
    """Not what macOS adds to folders and archives."""
    place = PurePosixPath(name)
    hidden = place.name.startswith(".") or "__MACOSX" in place.parts
    return place.name.lower().endswith(ENDINGS) and not hidden
