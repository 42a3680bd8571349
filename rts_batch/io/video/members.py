"""The files of a folder or of an archive (zip, tar), by name."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rts_batch.errors import VideoError
from rts_batch.io.video.gzipped import MAGIC, Unpacked

ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
LARGEST_IMAGE: Final = 256 << 20
"""Bytes of one file in an archive; one that unpacks to more is taken for an attack."""

_UNREADABLE: Final = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError, KeyError)


class Members:
    """Files to be read one by one."""

    def __init__(
        self,
        path: str,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        close: Callable[[], object] = lambda: None,
        folders: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.names = tuple(names)
        """Of the files; in an archive with the folders they are in, in a folder those right inside."""
        self.folders = tuple(folders)
        """Of a folder: the folders inside, which are not looked into."""
        self.close = close
        self._read = read

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises VideoError."""
        try:
            return self._read(name)
        except _UNREADABLE as error:
            raise VideoError(f"{self.path}/{name} cannot be read: {error}") from error


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVES)


def open_members(path: str) -> Members:
    """Open a local folder or archive. Raise VideoError."""
    if not is_archive(path) or Path(path).is_dir():
        return _folder(path)
    return _zip(path) if path.lower().endswith(".zip") else _tar(path)


def _folder(path: str) -> Members:
    try:
        entries = list(Path(path).iterdir())
    except OSError as error:
        raise VideoError(f"{path} cannot be listed: {error}") from error
    # A link to what is not there is a file that cannot be read, and not one frame less.
    names = [entry.name for entry in entries if entry.is_file() or not entry.exists()]
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    return Members(path, names, lambda name: (Path(path) / name).read_bytes(), folders=folders)


def _zip(path: str) -> Members:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise VideoError(f"{path} is not a zip archive that can be read: {error}") from error
    sizes = {item.filename: item.file_size for item in archive.infolist() if not item.is_dir()}

    def read(name: str) -> bytes:
        return archive.read(name) if sizes[name] <= LARGEST_IMAGE else _refuse(sizes[name])

    return Members(path, list(sizes), read, close=archive.close)


def _tar(path: str) -> Members:
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(open(path, "rb"))
            if file.peek(2)[:2] == MAGIC:
                file = opened.enter_context(io.BufferedReader(Unpacked(file)))
            archive = tarfile.open(fileobj=file)  # noqa: SIM115 - closed with the members
            # Of files that were one and the same on disk, tar keeps one and links to it for the others.
            members = {item.name: item for item in archive if item.isreg() or item.islnk() or item.issym()}
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise VideoError(f"{path} is not a tar archive that can be read: {error}") from error
        close = opened.pop_all().close

    def read(name: str) -> bytes:
        file = archive.extractfile(members[name])  # of a link, what it leads to in the archive
        data = b"" if file is None else file.read(LARGEST_IMAGE + 1)
        return data if len(data) <= LARGEST_IMAGE else _refuse(len(data))

    return Members(path, list(members), read, close=close)


def _refuse(size: int) -> bytes:
    raise OSError(f"it has {size} bytes, more than an image of a video")
