"""The doctor: what it says of this machine, of a broken one, and never of a secret."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from rts_batch.doctor import libraries, machine, stores
from rts_batch.doctor.examination import examine
from rts_batch.doctor.finding import Finding
from tests.support.running import Outcome, finish, start

pytestmark = pytest.mark.long


def about(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {event["about"]: event for event in outcome.events() if event["event"] == "finding"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """What the command says of this machine, and of a folder in one that does not exist; which heavy modules it has."""
    out = tmp_path_factory.mktemp("doctor") / "new" / "run"
    script = (
        "import sys; from rts_batch.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print({'torch', 'ray', 'decord', 'av'} & set(sys.modules), file=sys.stderr)"
    )
    return finish(start("doctor", "--json", "--out", out, program=("-c", script))), out


def test_a_machine_that_runs_these_tests_is_fit(here: tuple[Outcome, Path]) -> None:
    found, out = here
    assert found.code == 0, found.out
    findings = about(found)
    assert {"python", "memory", "shared memory", "torch", "ray", "av", "s3://", "run's folder"} <= findings.keys()
    assert "FFmpeg" in findings["av"]["text"]
    assert all((event["level"] == "ok") == (event["advice"] is None) for event in findings.values())
    assert not out.parent.exists()


def test_it_imports_neither_torch_nor_ray_itself(here: tuple[Outcome, Path]) -> None:
    assert here[0].err == "set()\n"


def test_what_is_broken_is_named_and_ends_nothing(tmp_path: Path) -> None:
    broken = {
        "torch": "raise ImportError('libcudart.so.13: cannot open shared object file')",
        "numpy": "raise RuntimeError('built for another machine')",
        "av": "import os; os.abort()",
        "decord": "raise OSError('libdecord.so is not for this processor')",
        "cv2": "print('welcome'); __version__ = '9.9'",
    }
    for name, source in broken.items():
        (tmp_path / f"{name}.py").write_text(source)
    found = finish(start("doctor", "--json", PYTHONPATH=str(tmp_path)))
    assert found.code == 1, found.err
    assert "Traceback" not in found.err
    findings = about(found)
    assert [findings[name]["level"] for name in ("torch", "numpy", "av", "decord")] == ["fail", "fail", "fail", "warn"]
    assert "libcudart.so.13" in findings["torch"]["text"]
    assert "SIGABRT" in findings["av"]["text"]
    assert "PyAV decodes" in findings["decord"]["advice"]
    assert (findings["cv2"]["level"], findings["cv2"]["text"]) == ("ok", "9.9")
    assert findings["loopback"]["level"] == "ok"
    assert found.events()[-1]["fail"] >= 3


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> Finding:
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(machine, "LOOKS", (lost, machine.loopback))
    monkeypatch.setattr(libraries, "REQUIRED", ("json",))
    first, second, *_ = examine()
    assert (first.level, first.about) == ("fail", "lost")
    assert "no such thing" in first.text
    assert second.level == "ok"


def test_credentials_are_found_and_never_shown(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = hush-file\n[plain]\nregion = eu-west-1\n"
    )
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT",
        "AWS_SECRET_ACCESS_KEY": "hush-environment",
        "AWS_ENDPOINT_URL": "http://somebody:hush-endpoint@127.0.0.1:9000",
        "AZURE_STORAGE_KEY": "hush-azure",
    }
    for name in ("torch", "ray", "openvino"):  # which take seconds to import, and have no credentials
        (tmp_path / f"{name}.py").write_text("__version__ = '9.9'")
    found = finish(start("doctor", HOME=str(home), PYTHONPATH=str(tmp_path), **secrets))
    assert "AWS_ACCESS_KEY_ID in the environment" in found.out
    assert f"profile 'default' in {home / '.aws' / 'credentials'}" in found.out
    assert "AWS_ENDPOINT_URL is set" in found.out
    for secret in ("AKIA", "hush", "somebody"):
        assert secret not in found.out + found.err


@pytest.mark.parametrize(
    ("variables", "level", "words"),
    [
        ({}, "ok", "no credentials found; public buckets are read with FSSPEC_S3_ANON=true"),
        ({"FSSPEC_S3_ANON": "true"}, "ok", "FSSPEC_S3_ANON is set"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "warn", "AWS_SECRET_ACCESS_KEY is not"),
        ({"AWS_SECRET_ACCESS_KEY": "a"}, "warn", "AWS_ACCESS_KEY_ID is not"),
        ({"AWS_PROFILE": "none"}, "warn", "AWS_PROFILE is 'none'"),
        ({"AWS_PROFILE": "works"}, "ok", "profile 'works'"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "ok", "AWS_WEB_IDENTITY_TOKEN_FILE in the environment"),
    ],
)
def test_credentials_of_s3(
    variables: dict[str, str], level: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile works]\nrole_arn = arn:aws:iam::1:role/r\n[profile none]\nregion = x\n")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = next(iter(stores.examine_stores()))
    assert found.level == level
    assert words in found.text


Usage = namedtuple("Usage", "total used free")


def test_a_containers_shared_memory_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: Usage(64 << 20, 0, 64 << 20))
    found = machine.shared_memory(tmp_path)
    assert (found.level, "--shm-size" in (found.advice or "")) == ("warn", True)
    assert machine.disk("disk", tmp_path, "elsewhere").level == "warn"
    assert machine.shared_memory(tmp_path / "none").level == "ok"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert machine.disk("disk", tmp_path / "file" / "run", "elsewhere").level == "fail"
    assert machine.disk("disk", tmp_path / "a" / "b", "elsewhere").text.endswith(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize(
    ("cuda", "driver", "visible", "level", "words"),
    [
        (None, False, None, "ok", "runs take the CPU"),
        (None, True, None, "warn", "built for CPUs"),
        ("13.0", True, None, "warn", "finds no device"),
        ("13.0", True, "", "warn", "hidden by CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_is_not_found(
    cuda: str | None,
    driver: bool,
    visible: str | None,
    level: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if driver:
        (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(libraries, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    _, found = libraries.DESCRIBED["torch"]("torch", {"version": "2.13", "cuda": cuda, "gpus": []})
    assert found.level == level
    assert words in found.text


def test_ffmpeg_without_a_decoder() -> None:
    about_av = {"version": "18", "ffmpeg": "8.1", "missing_decoders": ["hevc"], "writes_h264": True}
    (found,) = libraries.DESCRIBED["av"]("av", about_av)
    assert (found.level, "hevc" in found.text) == ("warn", True)
