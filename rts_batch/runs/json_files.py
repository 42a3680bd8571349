"""The small JSON files of a run's folder, read so that a damaged one is named."""

from __future__ import annotations

import json
from typing import Any

from rts_batch.errors import RunFolderError
from rts_batch.io.storage import files


def read_object(uri: str) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        RunFolderError: the file holds none.
        StorageError: it cannot be read.
    """
    try:
        content = json.loads(files.read_bytes(uri))
    except ValueError as error:
        raise RunFolderError(f"{uri} is damaged: it is no JSON ({error}); remove it to go on without it") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{uri} is damaged: it holds no JSON object; remove it to go on without it")
    return content
