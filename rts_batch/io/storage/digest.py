"""The SHA-256 of a file wherever it lies, without holding more than a piece of it."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Final

from rts_batch.io.storage.files import open_filesystem
from rts_batch.io.storage.retries import retried
from rts_batch.io.storage.trouble import translated

PIECE_BYTES: Final = 8 << 20


def sha256_of(uri: str) -> str:
    """Return the SHA-256 of a file, path or URI, in hexadecimal digits.

    Raises:
        StorageError: it cannot be read.
    """
    filesystem, path = open_filesystem(uri)
    digest = hashlib.sha256()
    with translated("read", uri):
        filesystem.invalidate_cache()
        size: int = retried(lambda: filesystem.info(path))["size"]
        for start in range(0, size, PIECE_BYTES):
            end = min(start + PIECE_BYTES, size)
            digest.update(retried(partial(filesystem.cat_file, path, start=start, end=end)))
    return digest.hexdigest()
