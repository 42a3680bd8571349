"""`rts-batch weights get`: from a Drive on loopback, a web server or a folder into the cache, or not at all."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.errors import WeightsError
from rts_batch.runs.settings import RunSettings
from rts_batch.weights.fetching import Folder, GoogleDrive, get
from rts_batch.weights.publications import PUBLISHED, cache_folder, cached
from rts_batch.weights.registry import load_weights
from rts_batch.worker.rts import RtsFactory
from tests.support.drive import Drive, drive_on_loopback
from tests.support.places import REPOSITORY

pytestmark = pytest.mark.long  # a checkpoint of rts50's size is written and read

RTS50 = PUBLISHED["rts50"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTS_BATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def drive(official: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    with drive_on_loopback(official, monkeypatch) as server:
        yield server


def invoke(*arguments: object, **options: Any) -> Any:
    return CliRunner().invoke(app, ["weights", "get", *map(str, arguments)], **options)


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "weights").iterdir())


@pytest.mark.networks
def test_from_drive_into_the_cache_and_by_name_from_then_on(cache: Path, drive: Drive) -> None:
    with pytest.raises(WeightsError, match=r"rts-batch weights get rts50"):
        load_weights("rts50")
    drive.cut = 1
    answer = invoke("rts50", "--yes")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == f"{cached('rts50')}\n"
    for words in ("Danelljan", "GPL-3.0", RTS50.drive_folder):
        assert words in answer.stderr
    assert kept(cache) == ["rts50.safetensors"]
    with safe_open(cached("rts50"), "pt") as file:
        assert RTS50.licence in file.metadata()["rts_batch"]
    described = RtsFactory.describe(RunSettings(weights="rts50", device="cpu"))
    assert (described.weights, described.boxes) == ("rts50", True)
    asked = len(drive.asked)
    again = invoke("rts50")
    assert (again.exit_code, again.stdout) == (0, answer.stdout)
    assert "--again" in again.stderr
    assert len(drive.asked) == asked


@pytest.mark.long
def test_a_mirror_does_as_well(cache: Path, official: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTS_BATCH_PRIVATE_HTTP", "allow")
    with safe_open(get(RTS50, Folder(drive.address)), "pt") as file:
        assert {key.partition(".")[0] for key in file.keys()} == {"rts", "sta"}  # noqa: SIM118 - it is no mapping
    assert not any("/uc" in path for path in drive.asked)


def test_nothing_is_fetched_without_consent(cache: Path, drive: Drive) -> None:
    nobody = invoke("rts50")
    assert nobody.exit_code == 2
    assert "--yes" in nobody.stderr
    assert "GPL-3.0" in nobody.stderr
    assert drive.asked == []
    assert not cache.exists()


def test_no_credentials_are_printed(cache: Path) -> None:
    answer = invoke("rts50", "--from", "https://me:hunter2@127.0.0.1:9/x?sig=SECRET", "--yes")
    assert answer.exit_code == 12
    assert "127.0.0.1:9/x" in answer.output
    assert "hunter2" not in answer.output
    assert "SECRET" not in answer.output


def test_another_name_is_refused() -> None:
    answer = invoke("rts101", "--yes")
    assert answer.exit_code == 2
    assert "rts50" in answer.stderr


@pytest.mark.long
def test_what_is_there_stays_when_fetching_fails(cache: Path, official: Path, drive: Drive, tmp_path: Path) -> None:
    cached("rts50").parent.mkdir(parents=True)
    cached("rts50").write_bytes(b"before")
    drive.status = 404
    answer = invoke("rts50", "--yes", "--again")
    assert answer.exit_code == 12
    for words in (RTS50.address, "rts50.pth and sta.pth.tar", "--from FOLDER"):
        assert words in answer.stderr
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    shutil.copy(official / "sta.pth.tar", swapped / "rts50.pth")
    shutil.copy(official / "rts50.pth", swapped / "sta.pth.tar")
    cut = tmp_path / "cut"
    shutil.copytree(official, cut)
    os.truncate(cut / "rts50.pth", (cut / "rts50.pth").stat().st_size // 2)
    for folder in (swapped, cut, tmp_path / "nowhere"):
        answer = invoke("rts50", "--yes", "--again", "--from", folder)
        assert answer.exit_code == 12, answer.output
    assert kept(cache) == ["rts50.safetensors"]
    assert cached("rts50").read_bytes() == b"before"


def test_a_folder_without_the_files_says_what_it_has(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "rts50.pth").write_bytes(b"x")
    with (
        drive_on_loopback(tmp_path / "drive", monkeypatch),
        pytest.raises(WeightsError, match=r"no sta.pth.tar; it has rts50"),
    ):
        get(RTS50, GoogleDrive(RTS50, quiet=True))


def test_without_gdown_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "gdown":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WeightsError, match=r"rts-batch\[weights\]"):
        get(RTS50, GoogleDrive(RTS50))


def test_a_cache_that_cannot_be_written(tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RTS_BATCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="RTS_BATCH_CACHE"):
        get(RTS50, Folder(str(official)))


def test_where_the_platform_keeps_such_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RTS_BATCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "rts-batch"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "rts-batch"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "rts-batch"


def test_asking_imports_no_torch() -> None:
    script = (
        "import sys; from rts_batch.cli.app import app\n"
        "try: app(['weights', 'get', 'rts50'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "RTS_BATCH_CACHE": "/nowhere"}
    command = [sys.executable, "-c", script]
    outcome = subprocess.run(command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, check=False)
    assert outcome.returncode == 0
