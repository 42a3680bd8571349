"""Where a video is read from: a local path, a copy on local disk, or a store by ranges; and which version it is."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rts_batch.errors import StorageError
from rts_batch.io.storage import files, trouble, uris
from rts_batch.io.storage.download import RESERVE_BYTES, files_inside, knows_ranges, version_of
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.storage.retries import retried
from rts_batch.io.video.limits import DecoderName, SpoolLimits
from rts_batch.io.video.members import is_archive


def bring(
    uri: str,
    folder: str | Path,
    limits: SpoolLimits = SpoolLimits(),  # noqa: B008 - frozen
    *,
    decoder: DecoderName = "auto",
) -> Path | RangedObject:
    """Bring a video, or a folder of images, near enough to be decoded.

    What is local stays where it is. An object is copied into `folder` if it is small enough and the disk has room;
    otherwise it is left where it is and read by ranges, which PyAV can do and decord cannot. Folders and archives of
    images, and everything where `decoder` is decord, are always copied.

    Raises:
        StorageError: the video does not exist, or has to be copied and is too large for that.
    """
    return bring_version(uri, folder, limits, decoder=decoder).video


class Brought(NamedTuple):
    """A video that is near enough to be decoded."""

    video: Path | RangedObject
    version: str
    """What `version_of_video` said before the first byte was read: what is newer than that has another one."""


def bring_version(uri: str, folder: str | Path, limits: SpoolLimits, *, decoder: DecoderName) -> Brought:
    """Do what `bring` does, for who must know the version too."""
    if uris.local_path(uri) is not None:
        path = files.fetch(uri, folder)
        return Brought(path, _local_version(uri, path))
    filesystem, remote, info, inside = _look_up(uri)
    version = _stored_version(info, inside)
    size = info.get("size") if inside is None else sum(one.get("size") or 0 for one in inside.values())
    most = limits.most_of_one
    room = limits.largest if most is None else min(limits.largest, most)
    if size is None:  # a web server that does not say
        return Brought(files.fetch(uri, folder, info=info), version)
    if _can_be_streamed(uri, info, decoder):
        too_large = size > room or size + RESERVE_BYTES > _free(folder)
        with trouble.translated("read", uri):
            if too_large and knows_ranges(filesystem, remote):
                return Brought(RangedObject(uri), version)
    elif most is not None and size > most:
        raise StorageError(
            f"{uris.safe_uri(uri)} has {size >> 20} MiB and has to lie on disk, where a video may take {most >> 20} "
            f"MiB; give a larger --spool-quota, which {limits.videos} videos share"
        )
    return Brought(files.fetch(uri, folder, info=info), version)


def version_of_video(uri: str) -> str:
    """Return a digest that another version of a video, or of its folder of images, has not.

    It is made of sizes and of what stores say of their content; of local files, of the time when they were written.

    Raises:
        StorageError: the video does not exist, or its store does not answer.
    """
    path = uris.local_path(uri)
    if path is not None:
        return _local_version(uri, path)
    _, _, info, inside = _look_up(uri)
    return _stored_version(info, inside)


def _look_up(uri: str) -> tuple[Any, str, dict[str, Any], dict[str, dict[str, Any]] | None]:
    """The file system of an object and its name there, what is said of it, and of a folder all that lies inside."""
    filesystem, remote = files.open_filesystem(uri)
    with trouble.translated("look up", uri):
        filesystem.invalidate_cache()
        info = retried(lambda: filesystem.info(remote))
        inside = files_inside(filesystem, remote) if info["type"] == "directory" else None
    return filesystem, remote, info, inside


def _stored_version(info: dict[str, Any], inside: dict[str, dict[str, Any]] | None) -> str:
    if inside is None:
        return _digest([version_of(info)])
    return _digest([(name, *version_of(one)) for name, one in sorted(inside.items())])


def _local_version(uri: str, path: Path) -> str:
    with trouble.translated("look up", uri):
        if not path.is_dir():
            return _digest([_written(path.stat())])
        with os.scandir(path) as entries:
            return _digest(sorted((entry.name, *_written(entry.stat())) for entry in entries if entry.is_file()))


def _written(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def _digest(stamps: Iterable[tuple[Any, ...]]) -> str:
    return hashlib.sha256(repr(list(stamps)).encode()).hexdigest()


def _can_be_streamed(uri: str, info: dict[str, object], decoder: DecoderName) -> bool:
    is_file = info["type"] != "directory" and bool(info["size"])
    return is_file and decoder != "decord" and not is_archive(urlsplit(uri).path)


def _free(folder: str | Path) -> int:
    """Bytes of disk that are free where `folder` is or will be."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
