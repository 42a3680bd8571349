"""Processes of ours import nothing from the folder that they are started in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rts_batch.io import processes
from rts_batch.io.video.isolated.process import DecodingProcess
from tests.support import users_folder
from tests.support.running import REPOSITORY
from tests.support.videos import make_video


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    folder = users_folder.fill(tmp_path / "user")
    monkeypatch.chdir(folder)
    return folder


SHOW_PATH = "import json, sys; print(json.dumps(sys.path))"
START_ANOTHER = f"""
import subprocess
from rts_batch.io import processes
command = processes.python("timeit", "-n", "1", "-r", "1", {SHOW_PATH!r})
shown = subprocess.run(command, env=processes.environment(), stdout=subprocess.PIPE, text=True, check=True).stdout
print(shown.splitlines()[0])
"""


def path_of_child(*words: str, **environment: str) -> list[str]:
    """Where a process looks for modules that was started, by our means, by a process that was started so."""
    shown = subprocess.run(
        [sys.executable, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    path: list[str] = json.loads(shown)
    return path


def test_a_module_is_run_without_the_current_folder(folder: Path) -> None:
    command = processes.python("json.tool")
    environment = processes.environment()
    shown = subprocess.run(command, input="[1]", env=environment, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout) == [1]
    assert users_folder.imported(folder) == []


def test_a_module_gets_its_arguments_as_with_m() -> None:
    command = processes.python("timeit", "-n", "1", "-r", "1", "import sys; print(sys.argv[1:], __name__)")
    shown = subprocess.run(command, env=processes.environment(), capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("['-n', '1', '-r', '1', 'import sys; print(sys.argv[1:], __name__)'] ")


@pytest.mark.parametrize("how", ["-c", "script", "-m"])
def test_what_a_users_program_starts_does_not_look_into_its_folder(tmp_path: Path, how: str) -> None:
    """In a notebook, a script or a module of a user's, Python looks for modules beside it."""
    (tmp_path / "program.py").write_text(START_ANOTHER)
    words = {"-c": ["-c", START_ANOTHER], "script": [str(tmp_path / "program.py")], "-m": ["-m", "program"]}[how]
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        path = path_of_child(*words)
    finally:
        os.chdir(before)
    assert str(tmp_path) not in path
    assert "" not in path
    assert str(REPOSITORY) in path


def test_a_folder_that_is_named_in_pythonpath_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    assert str(tmp_path) in path_of_child("-c", START_ANOTHER, PYTHONPATH=named)
    for unnamed in (f"{os.pathsep}{REPOSITORY}", f"{REPOSITORY}{os.pathsep}", f"{REPOSITORY}{os.pathsep * 2}/nowhere"):
        assert str(tmp_path) not in path_of_child("-c", START_ANOTHER, PYTHONPATH=unnamed)


def test_the_package_is_found_where_only_the_current_folder_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a checkout that is not installed; but then after everything else, for which it cannot stand."""
    monkeypatch.chdir(REPOSITORY)
    path = path_of_child("-c", START_ANOTHER, PYTHONPATH="")
    assert str(REPOSITORY) in path
    assert path.index(str(REPOSITORY)) > path.index(os.path.dirname(os.__file__)) or path[0] != str(REPOSITORY)


def test_videos_are_decoded_without_the_users_files(folder: Path) -> None:
    make_video(folder / "clip.mp4", 4)
    with DecodingProcess() as process, process.open("clip.mp4") as source:
        assert len(list(source)) == 4
    assert users_folder.imported(folder) == []


@pytest.mark.parametrize("words", [["-m", "rts_batch.cli"], ["-mrts_batch.cli"], ["-m", "rts_batch.cli.__main__"]])
@pytest.mark.long
def test_the_command_does_not_look_into_the_current_folder(folder: Path, words: list[str]) -> None:
    done = validate(folder, *words, PYTHONPATH=str(REPOSITORY))
    assert users_folder.imported(folder) == []
    assert done.returncode == 0, done.stderr


def validate(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "m.csv").write_text('video,box\na.mp4,"1,2,3,4"\n')
    return subprocess.run(
        [sys.executable, *words, "validate", "m.csv"],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_an_empty_entry_of_pythonpath_is_not_the_current_folder_to_the_command(tmp_path: Path) -> None:
    """What Python itself imports before the command begins is out of its reach; the usual victims are not."""
    folder = users_folder.fill(tmp_path / "user", names=("random", "queue", "secrets", "tempfile", "rich", "click"))
    done = validate(folder, "-m", "rts_batch.cli", PYTHONPATH=f"{os.pathsep}{REPOSITORY}")
    assert users_folder.imported(folder) == []
    assert done.returncode == 0, done.stderr


def test_a_library_starts_its_processes_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/named")
    before = os.getcwd(), sys.path[:], os.environ["PYTHONPATH"]
    with processes.elsewhere():
        assert os.getcwd() != str(folder)
        assert str(folder) not in sys.path
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == "/named"
        assert "" not in os.environ["PYTHONPATH"].split(os.pathsep)
    assert (os.getcwd(), sys.path, os.environ["PYTHONPATH"]) == before
