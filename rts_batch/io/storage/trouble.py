"""What the errors of file systems mean to a user, and whether trying again may help."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from rts_batch.errors import StorageError
from rts_batch.io.storage.public_http import refusal_behind
from rts_batch.io.storage.retries import is_transient
from rts_batch.io.storage.uris import WEB, local_path, safe_uri, scheme_of

_GONE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@contextlib.contextmanager
def translated(verb: str, uri: str) -> Iterator[None]:
    """Turn whatever a file system raises into a StorageError that names the URI."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        text, transient = _meaning(error, uri)
        raise StorageError(f"cannot {verb} {safe_uri(uri)}: {text}", transient=transient) from error


def _meaning(error: Exception, uri: str) -> tuple[str, bool]:
    """What an error says about a file, and whether trying again may help."""
    refusal = refusal_behind(error)
    if refusal is not None:
        return str(refusal), False
    status = _status_behind(error) or None  # 0 where redirects lead in circles
    if status in _REFUSED:
        return f"the server refuses access ({status}); if the address is a signed one, it may have expired", False
    transient = is_transient(error)
    # What fsspec makes a missing file of: a server in trouble, a host that does not exist.
    behind = isinstance(error, FileNotFoundError) and (transient or scheme_of(uri) in WEB)
    hidden = error.__cause__ if behind else None
    if status is not None and status not in _GONE and (hidden is not None or not transient):
        return f"the server answers {status} {_phrase(status)}".rstrip(), transient
    if hidden is not None and status is None:
        return _text(hidden), transient
    if isinstance(error, FileNotFoundError):
        return f"it does not exist{_hint(uri)}", False
    if type(error).__name__ == "NoCredentialsError":  # botocore's, which only s3:// brings
        return "no credentials are found; give some as to any AWS tool, or FSSPEC_S3_ANON=true (public)", False
    return _text(error), transient


def is_missing(error: FileNotFoundError) -> bool:
    """Whether a file is really not there; fsspec makes the same error of a web server that refuses or is in trouble."""
    return not is_transient(error) and refusal_behind(error) is None and _status_behind(error) in (None, *_GONE)


def _status_behind(error: BaseException | None) -> int | None:
    """The status that a web server has answered with, where that is the reason."""
    while error is not None:
        status = getattr(error, "status", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""


def _text(error: BaseException) -> str:
    """What an error says, without the queries of addresses in it."""
    return re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", f"{type(error).__name__}: {error}")


def missing(uri: str) -> StorageError:
    """The error for a local file that is not there."""
    return StorageError(f"{uri} does not exist{_hint(uri)}")


def _hint(uri: str) -> str:
    """What the user may have meant by the name of a local file that does not exist."""
    path = local_path(uri)
    if path is None or os.path.lexists(path):
        return ""
    name = str(path)
    slashes = name.replace("\\", "/")
    if slashes != name:
        found = f", and there is {slashes}" if os.path.exists(slashes) else ""
        return f"; a backslash is a character of a name here: write / between folders{found}"
    if "%" in name and os.path.exists(unquote(name)):
        return f"; there is {unquote(name)}: only file:// addresses are percent-encoded"
    similar = _similar(path)
    if similar is None:
        return ""
    if unicodedata.normalize("NFC", str(similar)) == unicodedata.normalize("NFC", name):
        return (
            f"; there is {similar}, which looks the same but has its accents written with other characters "
            f"({_form(name)} in the name that was given, {_form(str(similar))} on disk)"
        )
    return f"; there is {similar}"


def _form(name: str) -> str:
    return next((form for form in ("NFC", "NFD") if unicodedata.normalize(form, name) == name), "mixed")


def _similar(path: Path) -> Path | None:
    """What exists with the same path but for the spelling of accents, upper and lower case, or spaces at the ends."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not os.path.lexists(found / part):
            try:
                names = sorted(os.listdir(found))
            except OSError:
                return None
            alike = [name for name in names if _plain(name) == _plain(part)]
            if not alike:
                return None
            part = alike[0]
        found /= part
    return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
