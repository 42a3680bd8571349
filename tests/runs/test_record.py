"""What run.json says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.errors import RunFolderError
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.record import RunRecord, versions

RECORD = RunRecord(
    results={"weights": "abc", "tracker": {"rules": "code", "crop_size": (480, 832)}},
    environment={"threads_per_worker": 2, "versions": {"torch": "2.13"}},
)


def manifest(tmp_path: Path, *names: str, box: str = "1,2,3,4") -> Manifest:
    path = tmp_path / "manifest.csv"
    path.write_text("video,box\n" + "".join(f'{name},"{box}"\n' for name in names))
    return read_manifest(str(path))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99, "results": {}, "environment": {}}', "\x00"])
def test_a_foreign_run_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"run\.json"):
        RunFolder(str(tmp_path)).prepare(manifest(tmp_path, "a.mp4"), RECORD)


def test_versions_name_what_computes() -> None:
    assert {"rts-batch", "torch", "numpy", "pyarrow", "av"} <= versions().keys()
