"""A folder appears whole or not at all, whatever its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.errors import StorageError, UsageError
from rts_batch.io.storage import files
from rts_batch.io.storage.staging import staged_folder


@pytest.mark.parametrize("name", [".", "../here", "", "link"])
def test_an_empty_folder_is_filled_however_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(here)
    if name == "link":
        name = str(tmp_path / "link")
        Path(name).symlink_to(tmp_path / "there")
    with pytest.raises(StorageError), staged_folder(name) as stage:
        (stage / "half" / "a").touch()
    with staged_folder(name) as stage:
        (stage / "masks").mkdir()
        (stage / "masks" / "a").write_bytes(b"a")
        assert not any(Path(name).iterdir())
    assert Path(name, "masks", "a").read_bytes() == b"a"
    assert Path.cwd() == here  # what stands in it still does
    with pytest.raises(UsageError, match="exists already"), staged_folder(name):
        pass
    assert {path.name for path in tmp_path.iterdir()} <= {"here", "there", "link"}


def test_in_a_store_a_folder_is_not_empty_that_only_has_folders() -> None:
    files.put_bytes("memory://staging/annotations/theirs.json", b"theirs")
    with pytest.raises(UsageError, match="holds files already"), staged_folder("memory://staging"):
        pass
    assert files.read_bytes("memory://staging/annotations/theirs.json") == b"theirs"
