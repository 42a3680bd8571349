"""Where things lie: the repository, and the data that may not be committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RTS_BATCH_SHARED", REPOSITORY.parent / "shared"))


def shared_folder(name: str) -> Path:
    """Returns `<shared>/<name>` or skips the calling test."""
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"{folder} is absent (set RTS_BATCH_SHARED to the folder that holds {name!r})")
    return folder
