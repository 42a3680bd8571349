"""What may go on at the same time in one run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.actors.display import Display
from rts_batch.actors.driver import Driver
from rts_batch.actors.submit import refuse_other_divisions, submit
from rts_batch.errors import RunBusyError
from rts_batch.manifest import Manifest, read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.settings import RunSettings, Scope, Shard
from tests.support.manifests import write_many


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(str(write_many(tmp_path, 40)))


@pytest.mark.parametrize(
    ("held", "shard", "refused"),
    [
        ("lease-1-of-2.json", None, True),
        ("lease-1-of-2.json", "1/3", True),
        ("lease-1-of-2.json", "1/2", True),
        ("lease-1-of-2.json", "2/2", False),
        ("lease.json", "2/2", True),
    ],
)
def test_divisions_of_a_run_do_not_mix(
    manifest: Manifest, tmp_path: Path, held: str, shard: str | None, refused: bool
) -> None:
    out = tmp_path / "run"
    scope = Scope(shard=Shard.parse(shard) if shard else None)
    folder = RunFolder(str(out), scope.shard)

    def take_it() -> None:
        with Lease(folder.paths.lease):
            refuse_other_divisions(folder)

    with Lease(str(out / held)):
        if refused:
            with pytest.raises(RunBusyError, match="which is alive"):
                take_it()
        else:
            take_it()
    take_it()


def test_what_a_killed_worker_left_half_written_goes_with_the_run(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run is not gone on with, so no later submission would remove it."""
    half = tmp_path / "run" / "masks" / ".a-0123456789abcdef.parquet.0123abcd.part"

    def run(driver: Driver) -> bool:
        half.parent.mkdir(exist_ok=True)
        half.write_bytes(b"half")
        driver.progress.retries += 1
        return False

    monkeypatch.setattr(Driver, "run", run)  # in the place of a Ray whose workers are killed
    settings = RunSettings(tracker="tests.support.stub_tracker:Stub", device="cpu")
    submit(str(tmp_path / "manifest.jsonl"), str(tmp_path / "run"), settings, display=Display())
    assert not half.exists()
