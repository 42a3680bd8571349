"""What is copied from a store is one version of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage.download import download, version_of


class Replaced:
    """A web server that gives no ETag, whose file is replaced by one of the same size while it is read."""

    protocol = ("http", "https")

    def get_file(self, remote: str, target: str) -> None:
        Path(target).write_bytes(b"12345678")

    def info(self, remote: str) -> dict[str, Any]:
        return {"size": 8, "Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}

    def invalidate_cache(self) -> None:
        pass


def test_a_version_is_known_by_its_time_where_it_has_no_digest(tmp_path: Path) -> None:
    before = {"size": 8, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    with pytest.raises(StorageError, match="changed while it was fetched") as caught:
        download(Replaced(), "https://host/a.mp4?X-Amz-Signature=SECRET", tmp_path / "a.mp4", before)
    assert caught.value.transient
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["ETag", "md5Hash"])
def test_a_digest_goes_before_a_time(name: str) -> None:
    one = {"size": 8, name: "abc", "LastModified": 1}
    assert version_of(one) == version_of({**one, "LastModified": 2})
    assert version_of(one) != version_of({**one, name: "def"})
