"""What lies in a store brought onto local disk: in parallel, and checked to be one version of it."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import StorageError
from rts_batch.io.storage.retries import retried
from rts_batch.io.storage.uris import safe_uri

PART_BYTES: Final = 8 << 20
"""Of one request; a store answers larger ones hardly faster, and each part is in memory once."""

PARTS_AT_ONCE: Final = 4

FILES_AT_ONCE: Final = 8
"""Of a folder."""

RESERVE_BYTES: Final = 64 << 20
"""Disk that stays free for what else a worker writes."""

_VERSIONS: Final = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5")

_WRITTEN: Final = ("Last-Modified", "LastModified", "mtime", "created")
"""When an object was written, in the words of several file systems: for those that give it no digest."""


def download(filesystem: Any, remote: str, target: Path, info: dict[str, Any]) -> None:
    """Write an object to `target`, which must not exist.

    Args:
        info: what the file system said of the object; it must still be that version in the end.

    Raises:
        StorageError: not enough disk, or the object changed meanwhile (both worth trying again), or fewer bytes came.
        Exception: whatever the file system raises.
    """
    size = info.get("size")
    if size is not None:
        _check_disk(target.parent, size)
    if size is None or size <= PART_BYTES or not knows_ranges(filesystem, remote):
        retried(lambda: filesystem.get_file(remote, str(target)))
    else:
        _in_parts(filesystem, remote, target, size)
    arrived = target.stat().st_size
    if size is not None and arrived != size:
        raise OSError(f"{arrived} of {size} bytes arrived")
    filesystem.invalidate_cache()
    after = retried(lambda: filesystem.info(remote))
    if version_of(after) != version_of(info):
        raise StorageError(f"{safe_uri(remote)} changed while it was fetched", transient=True)


def download_folder(filesystem: Any, remote: str, target: Path) -> None:
    """Write everything inside a folder to a new folder `target`.

    Raises:
        StorageError: not enough disk, or something was added, changed or removed meanwhile (worth trying again); or a
            name that cannot lie inside a local folder.
        Exception: whatever the file system raises.
    """
    files = files_inside(filesystem, remote)
    inside = {name: name[len(remote.rstrip("/")) + 1 :] for name in files}
    for name, relative in inside.items():
        # `a//b` is a name of its own in a store; here it would be `/b`, or that of `a/b`.
        if any(part in ("", ".", "..") for part in relative.split("/")):
            raise StorageError(f"{safe_uri(name)} cannot be copied: its name leads out of its folder")
    paths = {name: target / relative for name, relative in inside.items()}
    target.mkdir()
    _check_disk(target, sum(info.get("size") or 0 for info in files.values()))
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)

    def fetch(name: str) -> None:
        retried(lambda: filesystem.get_file(name, str(paths[name])))
        arrived, size = paths[name].stat().st_size, files[name].get("size")
        if size is not None and arrived != size:
            raise OSError(f"{arrived} of {size} bytes of {name} arrived")

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(fetch, files))  # what has not begun is cancelled by an error
    filesystem.invalidate_cache()
    if _versions(files_inside(filesystem, remote)) != _versions(files):
        raise StorageError(f"{safe_uri(remote)} changed while it was fetched", transient=True)


def files_inside(filesystem: Any, remote: str) -> dict[str, dict[str, Any]]:
    """What a store says of every file inside a folder, by its full name; marks of empty folders are left out."""
    found: dict[str, dict[str, Any]] = retried(lambda: filesystem.find(remote, detail=True))
    return {name: info for name, info in found.items() if info["type"] == "file" and not name.endswith("/")}


def _versions(files: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {name: version_of(info) for name, info in files.items()}


def knows_ranges(filesystem: Any, remote: str) -> bool:
    """Stores do; a web server that does not would send the whole file for each range, so it is asked for one byte."""
    if "http" not in filesystem.protocol:
        return True

    def ask() -> bool:
        with filesystem.open(remote, cache_type="none") as file:
            file.seek(1)
            return len(file.read(1)) == 1

    try:
        return retried(ask)
    except ValueError:  # what fsspec makes of an answer with everything
        return False


def _in_parts(filesystem: Any, remote: str, target: Path, size: int) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def fetch(start: int) -> None:
        end = min(start + PART_BYTES, size)

        def read() -> bytes:
            data: bytes = filesystem.cat_file(remote, start=start, end=end)
            if len(data) != end - start:  # a body that broke off, or a server that knows no ranges
                raise OSError(f"{len(data)} of {end - start} bytes arrived")
            return data

        os.pwrite(descriptor, retried(read), start)

    try:
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            list(pool.map(fetch, range(0, size, PART_BYTES)))
    finally:
        os.close(descriptor)


def _check_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + RESERVE_BYTES > free:
        raise StorageError(
            f"{folder} has {free >> 20} MiB free, the object needs {size >> 20} MiB and {RESERVE_BYTES >> 20} to spare",
            transient=True,
        )


def version_of(info: dict[str, Any]) -> tuple[Any, ...]:
    """What in a file system's `info` tells versions of an object apart: a digest, or when it was written."""
    digests = tuple(info.get(name) for name in _VERSIONS)
    if any(digests):
        return (info.get("size"), *digests)
    return (info.get("size"), next((str(info[name]) for name in _WRITTEN if info.get(name)), None))
