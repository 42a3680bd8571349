"""What files are called: a path on local disk, or a URI `scheme://…`.

Names are literal: on no store is a character of one a pattern. Only this is more than a name: what follows `?` in an
http(s) address is its query, `?versionId=` at the end of an `s3://` address names a version, and a `file://` address
is percent-encoded.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rts_batch.errors import StorageError

SCHEMES: Final = ("file", "s3", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
"""What a URI may begin with; fsspec knows more (chained URLs, remote shells) that no manifest should reach."""

WEB: Final = ("http", "https")

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|::(?=.*://))|(file):(?=/)", re.DOTALL | re.IGNORECASE)
"""The second alternative is a chained URL, which is refused; the third is how some programs write `file:///`."""

_UNUSUAL: Final = re.compile(r"[@\[\]]|[^\x00-\x7f]")
"""What an address with a password, or one that cannot be taken apart, has in it."""

_STORE_QUERY: Final = re.compile(r"\?[\w.-]+=")
"""What looks like a query in the address of an object store, where `?` is a character like any other."""

_SIGNATURE: Final = re.compile(r"(x-[a-z]+-)?signature|sig", re.IGNORECASE)
"""The parameter of an address's query without which it is not a signed one."""

_SIGNING: Final = re.compile(
    rf"{_SIGNATURE.pattern}|x-(amz|goog|oss|cos|tos|obs)-.*|expires|policy|key-pair-id|security-token|[a-z]*access(key)?id"
    "|s[etrpv]|spr|srt|ss|sk[a-z]+",
    re.IGNORECASE,
)
"""Those that come with it, of Amazon, CloudFront, Google, Azure and others: anew with every signature."""

_DIGEST: Final = re.compile(r"…[0-9a-f]{6}")


def check_uri(uri: str) -> None:
    """Raise StorageError unless the URI is a path or has a scheme of the allow-list and holds no password."""
    if not uri or "\0" in uri:
        raise StorageError("the path is empty" if not uri else f"{uri!r} holds a NUL character")
    scheme = scheme_of(uri)
    if scheme is None:
        return
    if scheme not in SCHEMES:
        raise StorageError(f"{safe_uri(uri)!r} cannot be read: expected a path or one of {', '.join(SCHEMES)}")
    if scheme == "file":
        local_path(uri)
        return
    if not _UNUSUAL.search(uri):  # a million plain ones are looked at in a third of the time
        return
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise StorageError(f"{uri!r} is not a valid address: {error}") from None
    if parts.password is not None:
        raise StorageError(f"{safe_uri(uri)!r} holds a password; give credentials in the environment instead")


def is_utf8(uri: str) -> bool:
    """Whether results can name it: Linux lets a folder have a name of any bytes, which Python then writes otherwise."""
    return uri.isascii() or not any("\ud800" <= character <= "\udfff" for character in uri)


def scheme_of(uri: str) -> str | None:
    """The scheme of a URI in lower case, None for a path."""
    match = _SCHEME.match(uri)
    return (match[1] or match[2]).lower() if match else None


def safe_uri(uri: str) -> str:
    """The URI without user and password, fit for logs and messages.

    Its query may hold a signature, so a digest stands in its place, by which two that differ can be told apart.
    """
    address, query = _split_query(uri)
    if not query:
        return address
    return f"{address}?{query if _DIGEST.fullmatch(query) else '…' + hashlib.sha256(query.encode()).hexdigest()[:6]}"


def without_query(uri: str) -> str:
    """The URI without user, password and query: what stays the same when an address is signed again."""
    return _split_query(uri)[0]


def unsigned(uri: str) -> str:
    """What a signed http(s) address has in common with the same one signed again; any other URI as it is."""
    if "?" not in uri or scheme_of(uri) not in WEB:
        return uri
    address, _, query = uri.partition("?")
    named = [(part.partition("=")[0], part) for part in query.split("&")]
    if not any(_SIGNATURE.fullmatch(name) for name, _ in named):
        return uri
    kept = [part for name, part in named if not _SIGNING.fullmatch(name)]
    return f"{address}?{'&'.join(kept)}" if kept else address


def _split_query(uri: str) -> tuple[str, str]:
    """The address without user and password, and the query."""
    match = _SCHEME.match(uri)
    scheme = scheme_of(uri)
    if match is None or scheme == "file":
        return uri, ""
    end = uri.find("?") if scheme in WEB else found.start() if (found := _STORE_QUERY.search(uri)) else -1
    address, query = (uri, "") if end < 0 else (uri[:end], uri[end + 1 :])
    host, slash, path = address[match.end() :].partition("/")
    user, at, rest = host.rpartition("@")
    if scheme in ("abfs", "abfss") and ":" not in user:  # the container
        rest = user + at + rest
    return match[0] + rest + slash + path, query


def local_path(uri: str) -> Path | None:
    """The path of a local URI, None for any other.

    Raises:
        StorageError: a `file://` address names another machine, or a name with a NUL character.
    """
    match = _SCHEME.match(uri)
    if not match:
        return Path(uri)
    if scheme_of(uri) != "file":
        return None
    rest = uri[match.end() :]
    if match[0].endswith("//"):
        host, slash, path = rest.partition("/")
        if host.lower() not in ("", "localhost"):
            raise StorageError(
                f"{uri!r} names a file on another machine, {host!r}; an address of a local file begins with file:///"
            )
        rest = slash + path
    name = unquote(rest or "/", errors="surrogateescape")
    if "\0" in name:
        raise StorageError(f"{uri!r} holds a NUL character")
    return Path(name)


def join(uri: str, *names: str) -> str:
    """The URI of something inside a folder."""
    return posixpath.join(uri, *(map(quote, names) if scheme_of(uri) == "file" else names))


def folder_of(uri: str) -> str:
    """The URI of the folder that a file lies in, absolute if it is a local one."""
    path = local_path(uri)
    if path is not None:
        return str(path.absolute().parent)
    return posixpath.dirname(uri.partition("?")[0] if scheme_of(uri) in WEB else uri)


def resolve(uri: str, folder: str) -> str:
    """The absolute form of a URI that was written down relative to `folder`."""
    if scheme_of(uri) is not None or os.path.isabs(uri):
        return uri
    base = local_path(folder)
    return join(folder, uri) if base is None else os.path.normpath(base.absolute() / uri)


def absolute(uri: str) -> str:
    """The URI as other processes understand it, which run in folders of their own."""
    path = local_path(uri)
    return uri if path is None else str(path.absolute())
