"""Measuring on a GPU machine: `python3 -m benchmarks.gpu`, all of it that a CPU can try."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

import benchmarks.gpu.__main__ as session
from benchmarks.gpu import apart
from benchmarks.gpu.notes import Notes
from benchmarks.gpu.subject import Subject, parser
from rts_batch.model import fast
from rts_batch.model.fast import joined, launchable
from rts_batch.tracking.gpu.network import BatchedNetwork
from tests.support.offline import modules_of
from tests.support.places import REPOSITORY
from tests.support.running import wait_until

WRITES = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps({'complete': True}))"
TINY = ("--device", "cpu", "--network", "rts-mini", "--small", "--profiles", "exact")


def measure(out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), *options]
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def run_session(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *map(str, words)])
    return int(session.main())


def part(name: str, code: str, *arguments: str, **others: Any) -> Any:
    return session.Part(name, f"tries {name}", ("-c", code, *arguments), **others)


# A result is written after each step


def test_what_was_measured_is_kept_and_not_measured_again(tmp_path: Path) -> None:
    calls = []

    def take(name: str) -> dict[str, float]:
        calls.append(name)
        if name == "killed":
            raise KeyboardInterrupt
        return {"ms": 1.23456789}

    first = Notes(tmp_path / "a.json", {"device": "x"})
    first.step("one", take, "one")
    with pytest.raises(KeyboardInterrupt):
        first.step("two", take, "killed")
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["complete"] is False
    assert written["steps"]["one"]["ms"] == 1.235
    again = Notes(tmp_path / "a.json", {"device": "x"})
    again.step("one", take, "one")
    again.step("two", take, "two")
    assert again.finish() == 0
    assert calls == ["one", "killed", "two"]
    assert json.loads((tmp_path / "a.json").read_text())["complete"] is True
    other = Notes(tmp_path / "a.json", {"device": "y"})
    assert other.steps == {}, "of another device nothing is taken over"


def test_a_step_that_fails_costs_itself_and_is_tried_again(tmp_path: Path) -> None:
    def fail() -> dict[str, Any]:
        raise MemoryError("of the device")

    notes = Notes(tmp_path / "a.json", {})
    notes.step("too large", fail)
    notes.step("small", dict, ms=1)
    assert notes.finish() == 1
    written = json.loads((tmp_path / "a.json").read_text())
    assert (list(written["steps"]), written["failed"]) == (["small"], {"too large": "MemoryError: of the device"})
    again = Notes(tmp_path / "a.json", {})
    again.step("too large", dict, ms=2)
    assert again.finish() == 0


# Parts


def test_parts_are_chosen_and_followed_by_those_of_the_code_before(tmp_path: Path) -> None:
    def listed(*options: str) -> list[str]:
        found = measure(tmp_path, "--list", *options)
        assert found.returncode == 0, found.stderr
        return [line.split()[0] for line in found.stdout.splitlines() if not line.startswith("==")]

    assert listed() == ["tests", "network", "rates", "whole", "plain", "long"]
    assert "gates" in listed("--davis", str(tmp_path))
    assert listed("--parts", "whole", "network") == ["network", "whole"]
    before = listed("--before", str(tmp_path))
    assert before[2:6] == ["rates", "rates-before", "whole", "whole-before"]
    assert measure(tmp_path, "--parts", "everything").returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_parts_that_fail_or_take_too_long_leave_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    grandchild = tmp_path / "pid"
    sleeps = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(grandchild)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    parts = (
        part("fails", "import sys; print('what went wrong'); sys.exit(5)"),
        part("sleeps", sleeps),
        part("works", WRITES, "{out}"),
        part("plain", "print('3 passed')", notes=False),
    )
    monkeypatch.setattr(session, "PARTS", parts)
    assert run_session(monkeypatch, "--out", tmp_path / "out", "--part-seconds", 2) == 1
    said = capfd.readouterr().out
    assert "failed: fails" in said
    assert "left: sleeps" in said
    assert "what went wrong" in (tmp_path / "out" / "fails.log").read_text()
    assert json.loads((tmp_path / "out" / "plain.json").read_text())["complete"] is True
    wait_until(lambda: is_gone(int(grandchild.read_text())))  # what a part began ends with it

    monkeypatch.setattr(session, "PARTS", (part("fails", WRITES, "{out}"), part("sleeps", WRITES, "{out}"), *parts[2:]))
    assert run_session(monkeypatch, "--out", tmp_path / "out") == 0
    assert capfd.readouterr().out.count(": complete") == 2, "what is done is left out"


def test_when_the_time_is_over_nothing_more_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "PARTS", (part("one", WRITES, "{out}"), part("two", WRITES, "{out}")))
    assert run_session(monkeypatch, "--out", tmp_path / "out", "--seconds", 1) == session.OUT_OF_TIME
    assert "left: one two" in capfd.readouterr().out
    assert run_session(monkeypatch, "--out", tmp_path / "out", "--seconds", 600) == 0


AT_ONCE = """
import os, pathlib, signal, subprocess, sys
class Popen(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        pathlib.Path(sys.argv[-1], "pid").write_text(str(self.pid))
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen = Popen
"""


@pytest.mark.parametrize("before", ["", AT_ONCE], ids=["while it runs", "while it begins"])
def test_who_is_told_to_end_takes_the_part_along(tmp_path: Path, before: str) -> None:
    code = before + (
        "import importlib, os, pathlib, sys; s = importlib.import_module('benchmarks.gpu.__main__')\n"
        "part = 'import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); '\n"
        "part += 'time.sleep(600)'\n"
        "s.PARTS = (s.Part('sleeps', 'sleeps', ('-c', part, '{out}')),); sys.exit(s.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, "--out", str(tmp_path)], cwd=REPOSITORY)
    pid = tmp_path / ("pid" if before else "sleeps.json")
    wait_until(lambda: pid.exists() and pid.read_text())
    if not before:
        process.terminate()
    assert process.wait(90) == 143
    wait_until(lambda: is_gone(int(pid.read_text())))


def is_gone(pid: int) -> bool:
    """Also a process that nobody has buried yet."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_every_part_gets_only_options_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--davis", str(tmp_path), "--video", "clip.mp4", "--small", "--before", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *words])
    given = session.options()
    for one in session.parts_of(given):
        arguments = session.filled(one.arguments, given, tmp_path / "x.json")
        assert not [word for word in arguments if "{" in word]
        if one.notes:
            module = importlib.import_module(arguments[1])
            monkeypatch.setattr(sys, "argv", arguments[1:])
            monkeypatch.setattr(module, "Subject", _has_read)
            with pytest.raises(_Read):
                module.main()


class _Read(Exception):
    """A part has understood its options."""


def _has_read(options: object) -> None:
    raise _Read


# Without a package index


def wheel(folder: Path, name: str, version: str, content: str) -> None:
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


def test_what_is_missing_comes_from_a_folder_of_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WHEELS", {"little_thing": "little-thing", "json": "json"})
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/nowhere")
    with pytest.raises(SystemExit, match="not installed: little_thing; give"):
        session.install(None, tmp_path / "site")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(SystemExit, match="has no wheel of little-thing"):
        session.install(wheels, tmp_path / "site")
    wheel(wheels, "little_thing", "1.0", "value = 7")
    (tmp_path / "site").mkdir()  # as an installation leaves it that was interrupted
    (tmp_path / "site" / "little_thing.py").write_text("value = 0")
    for _ in range(2):
        environment = session.install(wheels, tmp_path / "site")
        found = subprocess.run(
            [sys.executable, "-c", "import little_thing; print(little_thing.value)"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found.stdout == "7\n"


def test_an_image_without_pytorch_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "EXPECTED", ("torch", "no_such_module"))
    with pytest.raises(SystemExit, match="lacks no_such_module"):
        session.install(None, tmp_path)


@pytest.mark.long
def test_the_parts_import_nothing_else() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "files = {n: getattr(m, '__file__', None) or '' for n, m in sys.modules.items()}\n"
        "print(*sorted({n.partition('.')[0] for n, f in files.items() if 'site-packages' in f}))"
    )
    names = [arguments.arguments[1] for arguments in session.PARTS if arguments.notes]
    tests = ["tests.conftest", "tests.tracking.gpu.test_tracker"]
    found = subprocess.run(
        [sys.executable, "-c", code, *names, *tests, "triton"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    brought = {"numpy", "torch", "triton", "cv2", "pyarrow", "pytest", *session.WHEELS}
    theirs = {"pluggy", "iniconfig", "pygments", "tqdm", "torchgen", "functorch", "sympy", "mpmath", "networkx"}
    theirs |= {
        "attr",
        "attrs",
        "trio",
        "outcome",
        "sniffio",
        "idna",
        "exceptiongroup",
        "py",
    }  # of pytest, if they are there
    unexpected = {name for name in found.stdout.split() if not name.startswith("_")} - brought - theirs
    assert not unexpected


@pytest.mark.long
def test_the_tests_of_the_gpu_are_found_without_pytests_plugins() -> None:
    (arguments,) = [one.arguments for one in session.PARTS if one.name == "tests"]
    command = [sys.executable, *arguments, "--collect-only", "-p", "no:xdist", "-p", "no:timeout"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]


def test_the_packages_whose_wheels_are_fetched_have_a_version_of_ours() -> None:
    known = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    }
    assert {name.lower() for name in session.WHEELS.values()} <= known


def test_make_bench_gpu_is_this_script_and_installs_nothing() -> None:
    found = subprocess.run(
        ["make", "-n", "bench-gpu", "BENCH_GPU=--wheels .whl", "VENV=no-such-folder", "PYTHON=python9"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "python9 -m benchmarks.gpu --out build/gpu --wheels .whl\n"


def test_the_script_itself_needs_nothing_but_python() -> None:
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, '.'); import benchmarks.gpu.__main__"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


# The code before, and the measures themselves


def test_the_code_before_is_measured_by_these_benchmarks(tmp_path: Path) -> None:
    other = tmp_path / "other" / "rts_batch"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    folder = session.before(tmp_path / "other", tmp_path)
    found = subprocess.run(
        [sys.executable, "-c", "import rts_batch as a, benchmarks.gpu as b; print(a.__file__); print(b.__file__)"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    package, benchmarks = (Path(line).resolve() for line in found.stdout.splitlines())
    assert package == other / "__init__.py"
    assert benchmarks.is_relative_to(REPOSITORY)


def test_without_kernels_no_part_of_the_network_asks_for_one() -> None:
    asking = [module for module in modules_of(fast) if module is not launchable and hasattr(module, "kernels_for")]
    assert joined in asking
    with apart._without_kernels(True):
        assert [module.__name__ for module in asking if module.kernels_for is launchable.kernels_for] == []
    assert all(module.kernels_for is launchable.kernels_for for module in asking)


@pytest.mark.networks
@pytest.mark.long
def test_a_step_begins_without_the_networks_of_the_step_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have on a device would count as the step's own."""
    monkeypatch.setenv("RTS_BATCH_CPU_ENGINE", "packed")
    subject = Subject(parser("").parse_args(["--device", "cpu", "--small", "--network", "rts-mini"]))
    gc.disable()
    try:
        engine = weakref.ref(BatchedNetwork(subject.model("exact"), subject.config).engine)
        assert engine() is not None
        subject.model("exact")
        assert engine() is None
    finally:
        gc.enable()


@pytest.mark.networks
@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    options = [*TINY, "--places", "2", "--lanes", "2", "--targets", "2", "--long", "20"]
    parts = ["--parts", "network", "rates", "whole", "plain", "long"]
    found = measure(tmp_path / "out", *options, *parts, RTS_BATCH_CPU_ENGINE="packed", OMP_NUM_THREADS="1")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-2000:]
    said = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert sorted(said) == ["long", "network", "plain", "rates", "whole"]
    assert all(one["complete"] and one["about"]["network"] == "rts-mini" for one in said.values())
    network = said["network"]["steps"]
    assert network["exact, 2 places"]["ms a place"] == pytest.approx(network["exact, 2 places"]["ms"] / 2, rel=0.01)
    assert network["exact, 2 places, kernels"]["kernels"][0][1] > 0
    assert list(network)[-1] == "exact, 2 places, kernels", "whatever is timed after a profiler is slower"
    assert network["exact, stages of a target"]["finish"] > 0
    for step in (*said["rates"]["steps"].values(), *said["plain"]["steps"].values()):
        assert step["dense frames/s"] > 0
        assert step["settled frames/s"] > 0
    assert said["whole"]["steps"]["exact, 2 lanes"]["frames"] == 2 * 2 * 6
    assert len(said["long"]["steps"]["exact, 20 frames"]["looks"]) == 10
    again = measure(tmp_path / "out", *options, *parts)
    assert (again.returncode, again.stdout.count(": complete")) == (0, 5)
