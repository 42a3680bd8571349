"""Which version of a video is read: what has been replaced is known by it, what has not is the same every time."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage import files
from rts_batch.io.video.limits import SpoolLimits
from rts_batch.io.video.spool import bring_version, version_of_video


def version(uri: str, folder: Path) -> str:
    """Both ways to learn it, which must agree."""
    found = version_of_video(uri)
    assert bring_version(uri, folder / uuid.uuid4().hex, SpoolLimits(), decoder="auto").version == found
    return found


@pytest.mark.parametrize("stored", [False, True], ids=["local", "stored"])
def test_a_file_that_was_replaced_has_another_version(tmp_path: Path, stored: bool) -> None:
    uri = f"memory://{uuid.uuid4().hex}/a.mp4" if stored else str(tmp_path / "a.mp4")
    files.put_bytes(uri, b"a video")
    found = version(uri, tmp_path)
    assert version(uri, tmp_path) == found
    files.put_bytes(uri, b"another")
    assert version(uri, tmp_path) != found


@pytest.mark.parametrize("stored", [False, True], ids=["local", "stored"])
def test_a_folder_in_which_a_picture_was_replaced_added_or_removed_has_another_version(
    tmp_path: Path, stored: bool
) -> None:
    uri = f"memory://{uuid.uuid4().hex}/frames" if stored else str(tmp_path / "frames")
    for number in range(3):
        files.put_bytes(f"{uri}/{number}.png", b"a picture")
    seen = [version(uri, tmp_path)]
    assert version(uri, tmp_path) == seen[0]
    files.put_bytes(f"{uri}/1.png", b"a pigture")
    seen.append(version(uri, tmp_path))
    files.put_bytes(f"{uri}/3.png", b"a picture")
    seen.append(version(uri, tmp_path))
    files.delete(f"{uri}/0.png")
    seen.append(version(uri, tmp_path))
    assert len(set(seen)) == 4


def test_an_object_is_known_by_its_digest_and_not_by_when_it_was_written(s3: str, tmp_path: Path) -> None:
    seen = []
    for content in (b"a video", b"a video", b"another"):
        files.put_bytes(f"{s3}/a.mp4", content)
        seen.append(version(f"{s3}/a.mp4", tmp_path))
    assert seen[0] == seen[1] != seen[2]


def test_a_copy_that_keeps_its_time_is_the_same_version(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a video")
    found, written = version(str(path), tmp_path), path.stat()
    path.unlink()
    path.write_bytes(b"a video")
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert version(str(path), tmp_path) == found


def test_what_does_not_exist_has_none(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "a.mp4"), f"memory://{uuid.uuid4().hex}/a.mp4"):
        with pytest.raises(StorageError, match="does not exist"):
            version_of_video(uri)
