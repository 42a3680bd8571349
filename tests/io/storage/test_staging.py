"""A folder appears whole or not at all, whatever its name."""

from __future__ import annotations

import subprocess
import sys
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


def test_a_mounted_folder_is_filled(tmp_path: Path) -> None:
    try:
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    program = """
import pathlib, sys
from rts_batch.io.storage.staging import staged_folder
with staged_folder(sys.argv[1]) as stage:
    (stage / "masks").mkdir()
print(*pathlib.Path(sys.argv[1]).iterdir())
"""
    mounted = 'mount -t tmpfs none "$0" && exec "$1" -c "$2" "$0"'
    command = ["unshare", "-rm", "sh", "-c", mounted, tmp_path, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'masks'}\n", "")


def test_in_a_store_a_folder_is_not_empty_that_only_has_folders() -> None:
    files.put_bytes("memory://staging/annotations/theirs.json", b"theirs")
    with pytest.raises(UsageError, match="holds files already"), staged_folder("memory://staging"):
        pass
    assert files.read_bytes("memory://staging/annotations/theirs.json") == b"theirs"
