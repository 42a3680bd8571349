"""What a message says of a name that is not there."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage import files


def refusal(uri: str) -> str:
    with pytest.raises(StorageError) as caught:
        files.read_bytes(uri)
    return str(caught.value)


@pytest.mark.parametrize(("on_disk", "given"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_that_are_written_otherwise_are_pointed_out(tmp_path: Path, on_disk: str, given: str) -> None:
    there = tmp_path / unicodedata.normalize(on_disk, "café") / unicodedata.normalize(on_disk, "Übung.mp4")
    there.parent.mkdir()
    there.touch()
    said = refusal(str(tmp_path / unicodedata.normalize(given, "café/Übung.mp4")))
    assert f"there is {there}, which looks the same" in said
    assert f"{given} in the name that was given, {on_disk} on disk" in said


def test_backslashes_case_spaces_and_percent_signs_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "My Clip.MP4"):
        (tmp_path / "clips" / name).touch()
    said = refusal(f"{tmp_path}/clips\\a.mp4")
    assert "write / between folders" in said
    assert f"there is {tmp_path}/clips/a.mp4" in said
    assert f"there is {tmp_path}/clips/My Clip.MP4" in refusal(f"{tmp_path}/clips/my clip.mp4 ")
    said = refusal(f"{tmp_path}/clips/My%20Clip.MP4")
    assert f"there is {tmp_path}/clips/My Clip.MP4: only file:// addresses are percent-encoded" in said
    assert refusal(str(tmp_path / "other.mp4")).endswith("other.mp4: it does not exist")
