"""Checksums of files that do not fit in memory."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
import uuid
from pathlib import Path

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage import digest, files


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 12_345])
@pytest.mark.parametrize("store", ["local", "memory"])
def test_a_file_has_one_checksum_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, size: int
) -> None:
    monkeypatch.setattr(digest, "PIECE_BYTES", 1000)
    content = random.Random(size).randbytes(size)
    uri = str(tmp_path / "a") if store == "local" else f"memory://{uuid.uuid4().hex}/a"
    files.put_bytes(uri, content)
    assert digest.sha256_of(uri) == hashlib.sha256(content).hexdigest()


def test_memory_is_that_of_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        digest.sha256_of(str(path))
        assert tracemalloc.get_traced_memory()[1] < 4 * digest.PIECE_BYTES
    finally:
        tracemalloc.stop()


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing"):
        digest.sha256_of(str(tmp_path / "nothing"))
