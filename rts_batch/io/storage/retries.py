"""Which errors of a store are worth another try, and trying again."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from rts_batch.errors import StorageError
from rts_batch.io.storage.public_http import refusal_behind

ATTEMPTS: Final = 4
FIRST_PAUSE: Final = 0.25
"""Seconds before the second attempt; doubled before each further one, and varied, so that workers do not keep step."""

WRITE_SECONDS: Final = 60.0
"""For one write, besides what its bytes take on the slowest line that is worth waiting for."""

WRITE_BYTES_PER_SECOND: Final = 50_000

_PERMANENT: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_PERMANENT_ERRNO: Final = (errno.ENAMETOOLONG, errno.EROFS, errno.EINVAL, errno.ELOOP)
_WORDS: Final = (
    "Timeout",
    "Connection",
    "Endpoint",
    "Payload",
    "ServerError",
    "HTTPClient",
    "SlowDown",
    "IncompleteRead",
    "Checksum",
)

_Result = TypeVar("_Result")


def is_network(error: BaseException) -> bool:
    """Client libraries have their own classes for lost connections and timeouts, so their names decide."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    names = " ".join(cls.__name__ for cls in type(error).__mro__)
    return any(word in names for word in _WORDS)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, StorageError):
        return error.transient
    if refusal_behind(error) is not None:
        return False
    if isinstance(error, FileNotFoundError):  # also what fsspec makes of a web server's trouble
        return error.__cause__ is not None and is_network(error.__cause__)
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT) and error.errno not in _PERMANENT_ERRNO
    return is_network(error)


def write_deadline(filesystem: Any, size: int) -> dict[str, float]:
    """Return how a write of so many bytes is bounded in time, as an option of fsspec's call.

    A client's own timeouts begin when the body is sent. A server that takes a connection and says nothing is never sent
    one, as s3fs first waits for it to ask for the body, and without an end.
    """
    return {"timeout": WRITE_SECONDS + size / WRITE_BYTES_PER_SECOND} if filesystem.async_impl else {}


def retried(action: Callable[[], _Result]) -> _Result:
    """Call `action` until it succeeds, fails for good, or has failed `ATTEMPTS` times; the last error comes out."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
    return action()
