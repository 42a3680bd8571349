"""A run from Python; that it gives the command's bytes is shown in `tests/whole/test_submit.py`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rts_batch
from rts_batch.errors import ManifestError, SettingsError, UsageError, WeightsError
from tests.support.running import write_manifest

STUB = "tests.support.stub_tracker:Stub"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "manifest.jsonl", [{"video": str(tmp_path / "a.mp4"), "box": [0, 0, 9, 9]}])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"wights": "rts50"}, UsageError, "wights is no setting of a run; did you mean weights"),
        ({"zzz": 1}, UsageError, "zzz is no setting of a run; there are weights, "),
        ({"workers": 0}, SettingsError, "workers is 0"),
        ({"weights": "no/such.pth"}, WeightsError, "no such weights file"),
        ({"weights": Path("no/such.pth")}, WeightsError, "no such weights file"),
        ({"profile": "fp16"}, SettingsError, "profile is 'fp16'; expected one of auto, exact"),
    ],
)
def test_errors_are_the_commands(
    changes: dict[str, Any], error: type[Exception], message: str, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        rts_batch.submit(manifest, tmp_path / "run", **{"device": "cpu", **changes})
    assert not (tmp_path / "run").exists()


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    bad = write_manifest(tmp_path / "bad.jsonl", [{"video": "a.mp4", "box": [0, 0, -1, 9]}])
    with pytest.raises(ManifestError) as caught:
        rts_batch.submit(bad, tmp_path / "run", tracker=STUB)
    assert len(caught.value.problems) == 1


def test_settings_as_an_object_are_the_base_of_changes(manifest: Path, tmp_path: Path) -> None:
    settings = rts_batch.RunSettings(workers=1, tracker=STUB)
    with pytest.raises(SettingsError, match="min workers is 3, more than the 1 workers"):
        rts_batch.submit(manifest, tmp_path / "run", settings, min_workers=3)


def test_numbers_may_be_numpys(manifest: Path, tmp_path: Path) -> None:
    """They were written into `run.json`, which cannot hold them."""
    settings = rts_batch.RunSettings(workers=np.int64(1), tracker=STUB)  # type: ignore[arg-type]
    summary = rts_batch.submit(
        manifest, tmp_path / "run", settings, lanes=np.int32(1), scope=rts_batch.Scope(limit=0), progress=False
    )
    assert (summary.videos, summary.done) == (1, 0)


def test_another_thread_is_refused(manifest: Path, tmp_path: Path) -> None:
    caught: list[Exception] = []

    def call() -> None:
        try:
            rts_batch.submit(manifest, tmp_path / "run", tracker=STUB)
        except UsageError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
