"""Bytes on local disk and in object stores, addressed by one kind of URI (see `uris`).

fsspec does the talking; this module adds what a batch run relies on: a file that is put appears whole or not at all, a
missing folder is an empty one, a name is never a pattern, and every error is a `StorageError` that says whether trying
again may help.

Of fsspec's calls only those may be used that take a name as it is: `info`, `ls`, `find`, `cat_file`, `get_file`,
`put_file`, `pipe_file`, `rm_file`, `open`. Those without `_file` in their names (`get`, `rm`, `cat`, …) expand `*`, `?`
and `[…]`, which are ordinary characters of the names of files and objects.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import fsspec

from rts_batch.errors import StorageError
from rts_batch.io.storage.download import download, download_folder
from rts_batch.io.storage.retries import retried, write_deadline
from rts_batch.io.storage.trouble import is_missing, missing, translated
from rts_batch.io.storage.uris import WEB, check_uri, join, local_path, safe_uri, scheme_of, without_query

TEMPORARY_SUFFIX: Final = ".part"
"""Ends the name of a file that is not complete yet; no reader's `*.parquet` or `*.json` matches it."""

_TEMPORARY: Final = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}")

LONGEST_NAME: Final = 200
"""Bytes; a local name may have 255, and a temporary one is longer than what it stands for."""

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}


def exists(uri: str) -> bool:
    filesystem, path = open_filesystem(uri)
    with translated("look up", uri):
        filesystem.invalidate_cache()
        try:
            filesystem.info(path)
        except FileNotFoundError as error:
            if not is_missing(error):
                raise
            return False
        except NotADirectoryError:  # a file, where a folder would have to be
            return False
        return True


def list_names(uri: str) -> list[str]:
    """The names of the complete files right inside a folder, sorted; none where the folder does not exist."""
    return [name for name in _list_all(uri) if not name.endswith(TEMPORARY_SUFFIX)]


def list_folders(uri: str) -> list[str]:
    """The names of the folders right inside a folder, sorted; none where it does not exist."""
    return _list_all(uri, "directory")


def read_bytes(uri: str) -> bytes:
    filesystem, path = open_filesystem(uri)
    with translated("read", uri):
        content: bytes = retried(lambda: filesystem.cat_file(path))
        return content


def fetch(uri: str, folder: str | Path, *, info: dict[str, Any] | None = None) -> Path:
    """Bring a file, or a folder of files, onto local disk and return where it is.

    What is local already stays where it is. Anything else arrives in `folder` under its own name, which appears once
    it is complete. `info` is what its file system says of it, for who has asked already.
    """
    path = local_path(uri)
    if path is not None:
        if not path.exists():
            raise missing(uri)
        return path
    filesystem, remote = open_filesystem(uri)
    target = Path(folder) / _own_name(uri)
    temporary = target.with_name(_temporary_name(target.name))
    with translated("fetch", uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if info is None:
                filesystem.invalidate_cache()
                info = retried(lambda: filesystem.info(remote))
            if info["type"] == "directory":
                download_folder(filesystem, remote, temporary)
            else:
                download(filesystem, remote, temporary, info)
            temporary.rename(target)
        finally:
            _remove(temporary)
    return target


def _own_name(uri: str) -> str:
    """What a copy of a stored file is called: its own name, if that can be one on local disk."""
    name = posixpath.basename(without_query(uri).rstrip("/"))
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = secrets.token_hex(8) + posixpath.splitext(name)[1][:16]
    return name if name not in ("", ".", "..") else "file"


def put_file(local: str | Path, uri: str) -> None:
    """Copy a finished local file to `uri`, where it appears whole or not at all and replaces what was there."""
    path = local_path(uri)
    if path is not None:
        with translated("write", uri), whole_file(path) as temporary:
            shutil.copyfile(local, temporary)
        return
    filesystem, remote = open_filesystem(uri)
    with translated("write", uri):
        bound = write_deadline(filesystem, os.path.getsize(local))
        retried(lambda: filesystem.put_file(str(local), remote, **bound))


def put_bytes(uri: str, data: bytes) -> None:
    """Write `data` to `uri`, where it appears whole or not at all and replaces what was there."""
    path = local_path(uri)
    if path is not None:
        with translated("write", uri), whole_file(path) as temporary:
            temporary.write_bytes(data)
        return
    filesystem, remote = open_filesystem(uri)
    with translated("write", uri):
        bound = write_deadline(filesystem, len(data))
        retried(lambda: filesystem.pipe_file(remote, data, **bound))


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a small file to a name that is not taken yet; return False where it is.

    Of several that try at once one succeeds on local disk and on stores with conditional writes; on others more may.
    """
    path = local_path(uri)
    if path is not None:
        with translated("write", uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(_temporary_name(path.name))
            try:
                temporary.write_bytes(data)
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                _remove(temporary)
        return True
    filesystem, remote = open_filesystem(uri)
    with translated("write", uri):
        try:
            filesystem.pipe_file(remote, data, mode="create", **write_deadline(filesystem, len(data)))
        except FileExistsError:
            return False
        except TypeError:  # a file system that knows no such mode
            if filesystem.exists(remote):
                return False
            filesystem.pipe_file(remote, data)
        except OSError as error:
            # What s3fs makes of status 412, "a condition that was given did not hold".
            if error.errno == errno.EINVAL and exists(uri):
                return False
            raise
    return True


def delete(uri: str) -> None:
    """Remove a file, or a folder with everything in it. What does not exist is no error."""
    path = local_path(uri)
    with translated("delete", uri), contextlib.suppress(FileNotFoundError):
        if path is not None:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            return
        filesystem, remote = open_filesystem(uri)
        filesystem.invalidate_cache()
        if retried(lambda: filesystem.info(remote))["type"] != "directory":
            _delete_stored(filesystem, remote)
            return
        for name in retried(lambda: filesystem.find(remote)):
            _delete_stored(filesystem, name)
        filesystem.invalidate_cache()
        _delete_empty_folders(filesystem, remote)


def _delete_stored(filesystem: Any, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        retried(lambda: filesystem.rm_file(name))


def _delete_empty_folders(filesystem: Any, remote: str) -> None:
    """Remove folders that remain without anything in them, as they do where they are more than parts of names."""
    if filesystem.isdir(remote):
        inside = filesystem.find(remote, withdirs=True, detail=True)
        folders = {remote, *(name for name, info in inside.items() if info["type"] == "directory")}
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):  # somebody has put something there
                filesystem.rmdir(folder)


def remove_temporaries(uri: str, *, of: Collection[str] | None = None) -> list[str]:
    """Remove what writers that were killed left half-written right inside a folder, and return the names.

    Only while nobody writes to the folder. `of` are the names of the files that were to be written, in a folder that is
    not ours alone; None takes all.
    """
    names = [name for name in _list_all(uri) if name.endswith(TEMPORARY_SUFFIX)]
    if of is not None:
        names = [name for name in names if (match := _TEMPORARY.fullmatch(name)) and match[1] in of]
    for name in names:
        delete(join(uri, name))
    return names


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path within it."""
    check_uri(uri)
    path = local_path(uri)
    if path is not None:
        return fsspec.filesystem("file"), str(path.absolute())  # fsspec expands `~` of relative ones
    scheme = scheme_of(uri) or ""
    try:
        # What `fsspec.url_to_fs` does, which would take `::` in a name for a chain of file systems.
        cls = fsspec.get_filesystem_class(scheme)
        options = _web_options() if scheme in WEB else {}
        filesystem = fsspec.filesystem(scheme, **cls._get_kwargs_from_urls(uri), **options)
        remote = cls._strip_protocol(uri)
    except ImportError as error:
        extra = f": pip install 'rts-batch[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else ""
        raise StorageError(f"{scheme}:// needs a package that is not installed ({error}){extra}") from None
    except Exception as error:
        raise StorageError(f"{safe_uri(uri)!r} cannot be opened: {error}") from error
    return filesystem, f"/{remote.lstrip('/')}" if scheme == "memory" else remote


def _web_options() -> dict[str, Any]:
    from rts_batch.io.storage.web import http_options  # late: aiohttp takes a while to load

    return http_options()


def _list_all(uri: str, kind: str = "file") -> list[str]:
    filesystem, path = open_filesystem(uri)
    with translated("list", uri):
        filesystem.invalidate_cache()
        try:
            entries = filesystem.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
    names = [entry["name"].rstrip("/") for entry in entries if entry["type"] == kind]
    # A store also lists an object of the folder's own name, and the mark of an empty folder.
    return sorted(posixpath.basename(name) for name in names if name != path.rstrip("/"))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path that is nobody else's, which becomes `path` at the end; where that fails nothing is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)  # the new name itself must survive a loss of power
    finally:
        _remove(temporary)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_name(name: str) -> str:
    short = os.fsdecode(os.fsencode(name)[:LONGEST_NAME])
    return f".{short}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
