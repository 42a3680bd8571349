"""Bytes on local disk and in object stores, addressed by one kind of URI.

A URI is a path or `scheme://…`. fsspec does the talking; this module adds what a batch run relies on: a file that is
put appears whole or not at all, a missing folder is an empty one, and every error is a `StorageError` that says
whether trying again may help.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec

from rts_batch.errors import StorageError
from rts_batch.io.storage.download import download
from rts_batch.io.storage.public_http import http_options, refusal_behind
from rts_batch.io.storage.retries import is_transient, retried

__all__ = [
    "check_uri",
    "create_bytes",
    "delete",
    "exists",
    "fetch",
    "is_folder",
    "join",
    "list_folders",
    "list_names",
    "local_path",
    "open_filesystem",
    "put_bytes",
    "put_file",
    "read_bytes",
    "remove_temporaries",
    "resolve",
    "safe_uri",
    "translated",
]

SCHEMES: Final = ("file", "s3", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
"""What a URI may begin with; fsspec knows more (chained URLs, remote shells) that no manifest should reach."""

TEMPORARY_SUFFIX: Final = ".part"
"""Ends the name of a file that is not complete yet; no reader's `*.parquet` or `*.json` matches it."""

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:::|://)")
_UNUSUAL = re.compile(r"[@\[\]]|[^\x00-\x7f]")
"""What an address with a password, or one that cannot be taken apart, has in it."""


def check_uri(uri: str) -> None:
    """Raises StorageError unless the URI is a path or has a scheme of the allow-list and holds no password."""
    if not uri or "\0" in uri:
        raise StorageError("the path is empty" if not uri else f"{uri!r} holds a NUL character")
    match = _SCHEME.match(uri)
    if not match:
        return
    if match[1].lower() not in SCHEMES or "::" in uri:
        raise StorageError(f"{safe_uri(uri)!r} cannot be read: expected a path or one of {', '.join(SCHEMES)}")
    if not _UNUSUAL.search(uri):  # a million plain ones are looked at in a third of the time
        return
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise StorageError(f"{uri!r} is not a valid address: {error}") from None
    if parts.password is not None:
        raise StorageError(f"{safe_uri(uri)!r} holds a password; give credentials in the environment instead")


def safe_uri(uri: str) -> str:
    """The URI without user, password and query, which may hold signatures: fit for logs and messages."""
    match = _SCHEME.match(uri)
    if not match or match[1].lower() == "file":
        return uri
    host, slash, path = uri[match.end() :].split("?")[0].partition("/")
    return match[0] + host.rpartition("@")[2] + slash + path


def local_path(uri: str) -> Path | None:
    """The path of a local URI, None for any other."""
    match = _SCHEME.match(uri)
    if not match:
        return Path(uri)
    return Path(uri[match.end() :]) if match[1].lower() == "file" else None


def join(uri: str, *names: str) -> str:
    """The URI of something inside a folder."""
    return posixpath.join(uri, *names)


def resolve(uri: str, folder: str) -> str:
    """The absolute form of a URI that was written down relative to `folder`."""
    if _SCHEME.match(uri) or os.path.isabs(uri):
        return uri
    base = folder
    if match := _SCHEME.match(folder):
        if match[1].lower() != "file":
            return join(folder, uri)
        base = folder[match.end() :]
    return os.path.normpath(os.path.join(base if os.path.isabs(base) else os.path.abspath(base), uri))


def exists(uri: str) -> bool:
    filesystem, path = open_filesystem(uri)
    with translated("look up", uri):
        filesystem.invalidate_cache()
        return bool(filesystem.exists(path))


def is_folder(uri: str) -> bool:
    filesystem, path = open_filesystem(uri)
    with translated("look up", uri):
        filesystem.invalidate_cache()
        return bool(filesystem.isdir(path))


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
    """Brings a file, or a folder of files, onto local disk and returns where it is.

    What is local already stays where it is. Anything else arrives in `folder` under its own name, which appears once
    it is complete. `info` is what its file system says of it, for who has asked already.
    """
    path = local_path(uri)
    if path is not None:
        if not path.exists():
            raise StorageError(f"{uri} does not exist")
        return path
    filesystem, remote = open_filesystem(uri)
    target = Path(folder) / (posixpath.basename(remote.rstrip("/").split("?")[0]) or "file")
    temporary = target.with_name(_temporary_name(target.name))
    with translated("fetch", uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if info is None:
                filesystem.invalidate_cache()
                info = retried(lambda: filesystem.info(remote))
            if info["type"] == "directory":
                filesystem.get(remote.rstrip("/") + "/", str(temporary) + "/", recursive=True)
            else:
                download(filesystem, remote, temporary, info)
            temporary.rename(target)
        finally:
            _remove(temporary)
    return target


def put_file(local: str | Path, uri: str) -> None:
    """Copies a finished local file to `uri`, where it appears whole or not at all and replaces what was there."""
    path = local_path(uri)
    if path is not None:
        with translated("write", uri):
            _put_local(path, lambda temporary: shutil.copyfile(local, temporary))
        return
    filesystem, remote = open_filesystem(uri)
    with translated("write", uri):
        retried(lambda: filesystem.put_file(str(local), remote))


def put_bytes(uri: str, data: bytes) -> None:
    """Writes `data` to `uri`, where it appears whole or not at all and replaces what was there."""
    path = local_path(uri)
    if path is not None:
        with translated("write", uri):
            _put_local(path, lambda temporary: temporary.write_bytes(data))
        return
    filesystem, remote = open_filesystem(uri)
    with translated("write", uri):
        retried(lambda: filesystem.pipe_file(remote, data))


def create_bytes(uri: str, data: bytes) -> bool:
    """Writes a small file to a name that is not taken yet; returns False where it is.

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
            filesystem.pipe_file(remote, data, mode="create")
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
    """Removes a file, or a folder with everything in it. What does not exist is no error."""
    filesystem, path = open_filesystem(uri)
    with translated("delete", uri), contextlib.suppress(FileNotFoundError):
        filesystem.invalidate_cache()
        filesystem.rm(path, recursive=True)


def remove_temporaries(uri: str) -> list[str]:
    """Removes what writers that were killed left half-written right inside a folder, and returns the names.

    Only while nobody writes to the folder.
    """
    names = [name for name in _list_all(uri) if name.endswith(TEMPORARY_SUFFIX)]
    for name in names:
        delete(join(uri, name))
    return names


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path within it."""
    check_uri(uri)
    scheme = match[1].lower() if (match := _SCHEME.match(uri)) else "file"
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **(http_options() if scheme in ("http", "https") else {}))
    except ImportError as error:
        extra = f": pip install 'rts-batch[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else ""
        raise StorageError(f"{scheme}:// needs a package that is not installed ({error}){extra}") from None
    except Exception as error:
        raise StorageError(f"{safe_uri(uri)!r} cannot be opened: {error}") from error
    return filesystem, path


def _list_all(uri: str, kind: str = "file") -> list[str]:
    filesystem, path = open_filesystem(uri)
    with translated("list", uri):
        filesystem.invalidate_cache()
        try:
            entries = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return []
    return sorted(posixpath.basename(entry["name"].rstrip("/")) for entry in entries if entry["type"] == kind)


def _put_local(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        write(temporary)
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
    return f".{name[:200]}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def translated(verb: str, uri: str) -> Iterator[None]:
    """Turns whatever a file system raises into a StorageError that names the URI."""
    shown = safe_uri(uri)
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        refusal = refusal_behind(error)
        if refusal is not None:
            raise StorageError(f"cannot {verb} {shown}: {refusal}") from error
        if is_transient(error):
            raise StorageError(f"cannot {verb} {shown}: the server is in trouble", transient=True) from error
        raise StorageError(f"cannot {verb} {shown}: it does not exist") from error
    except Exception as error:
        refusal = refusal_behind(error)
        text, transient = (_text(error), is_transient(error)) if refusal is None else (str(refusal), False)
        raise StorageError(f"cannot {verb} {shown}: {text}", transient=transient) from error


def _text(error: Exception) -> str:
    """What an error says, without the queries of addresses in it."""
    return re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", f"{type(error).__name__}: {error}")
