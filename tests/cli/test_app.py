"""The command line: what is quick, what goes where, and the exit codes that need no run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import rts_batch
from rts_batch.actors.display import BarDisplay, LineDisplay
from rts_batch.actors.prepare import choose_size
from rts_batch.actors.progress import RunProgress, VideoProgress
from rts_batch.actors.summary import Summary, VideoFailure
from rts_batch.cli.app import app
from rts_batch.errors import SettingsError
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings
from rts_batch.worker.messages import Finished
from rts_batch.worker.timing import Timing, efficiency
from rts_batch.worker.tracker import TrackerDescription, find_factory
from tests.support.running import REPOSITORY, STUB
from tests.support.stub_tracker import Stub

MANIFEST = 'video,box\na.mp4,"1,2,3,4"\n'


def test_help_needs_no_heavy_import() -> None:
    script = (
        "import sys; from rts_batch.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'cv2', 'pyarrow', 'numpy', 'fsspec', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "submit" in outcome.stdout
    assert "validate" in outcome.stdout
    assert "weights" in outcome.stdout


def test_help_starts_as_fast_as_python_allows() -> None:
    def seconds(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, check=True)
        return time.perf_counter() - started

    ours = min(seconds("-m", "rts_batch.cli", "--help") for _ in range(3))
    torch = min(seconds("-c", "import torch") for _ in range(2))
    assert ours < torch / 2


def test_version() -> None:
    outcome = CliRunner().invoke(app, ["--version"])
    assert (outcome.exit_code, outcome.stdout) == (0, f"rts-batch {rts_batch.__version__}\n")


def test_the_weights_commands_are_there() -> None:
    outcome = CliRunner().invoke(app, ["weights", "inspect", "no-such-file"])
    assert outcome.exit_code == 12
    assert "no-such-file" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "m.csv"],
        ["submit", "m.csv", "--out", "run", "--workers", "0"],
        ["submit", "m.csv", "--out", "run", "--decoder", "cv2"],
        ["submit", "m.csv", "--out", "run", "--no-such-option"],
        ["no-such-command"],
    ],
)
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert "Error" in outcome.stderr


def test_errors_as_json(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('video,box\na.mp4,"1,2,3"\n')
    outcome = CliRunner().invoke(app, ["validate", str(path), "--json"])
    assert outcome.exit_code == 10
    content = json.loads(outcome.stdout)
    assert (content["event"], content["error"], content["exit_code"]) == ("error", "ManifestError", 10)
    assert len(content["problems"]) == 1
    assert "1 of 1 rows cannot be used" in outcome.stderr


def test_validate_as_json(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(MANIFEST)
    outcome = CliRunner().invoke(app, ["validate", str(path), "--json"])
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout) == {
        "event": "manifest",
        "manifest": str(path),
        "videos": 1,
        "targets": 1,
        "left_out": [],
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--not-found-threshold", "-1"], 10, "not_found_threshold is -1"),
        (["--gpus-per-worker", "1.5"], 10, "GPUs per worker is 1.5"),
        (["--tracker", "no.such:Thing"], 10, "cannot be imported"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, options: list[str], code: int, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(MANIFEST)
    outcome = CliRunner().invoke(app, ["submit", str(path), "--out", str(tmp_path / "run"), *STUB, *options])
    assert outcome.exit_code == code, outcome.output
    assert message in outcome.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--weights", "rts51"], 12, "rts51"),
        (["--weights", "rts-mini-untrained"], 10, "give a mask, or weights with an STA network"),
        (["--weights", "rts-mini-untrained", "--address", "auto"], 10, "--device auto looks at this machine"),
    ],
)
def test_weights_are_looked_at_before_anything_starts(
    tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_text(MANIFEST)
    outcome = CliRunner().invoke(app, ["submit", str(path), "--out", str(tmp_path / "run"), *options])
    assert outcome.exit_code == code, outcome.output
    assert message in outcome.stderr
    assert not (tmp_path / "run").exists()


def test_the_papers_ablations_are_settings_of_the_tracker() -> None:
    factory = find_factory(RunSettings.tracker)
    options = {"rules": "paper", "not_found_threshold": 0.5, "localisation_conditioning": False}
    description = factory.describe(RunSettings(weights="rts-mini-untrained", device="cpu", tracker_options=options))
    assert {name: description.settings["tracker"][name] for name in options} == options
    plain = factory.describe(RunSettings(weights="rts-mini-untrained", device="cpu"))
    assert plain.settings["tracker"]["rules"] == "code"
    assert plain.fingerprint == description.fingerprint


# How many workers


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [
        (1, None, None, (1, 1)),
        (2, None, None, (1, 2)),
        (16, None, None, (4, 4)),
        (18, None, None, (4, 4)),
        (16, 3, None, (3, 5)),
        (2, 8, None, (8, 1)),
        (16, None, 2, (8, 2)),
        (16, 2, 1, (2, 1)),
    ],
)
def test_workers_and_threads_share_the_cores(
    cores: int, workers: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    settings = RunSettings(workers=workers, threads_per_worker=threads)
    assert choose_size(settings, description(), cores=cores) == expected


def test_a_run_keeps_its_threads_whatever_its_workers() -> None:
    begun = RunRecord(results={}, environment={"threads_per_worker": 4})
    assert choose_size(RunSettings(), description(), begun, cores=8) == (2, 4)
    assert choose_size(RunSettings(workers=1), description(), begun, cores=8) == (1, 4)
    assert choose_size(RunSettings(threads_per_worker=8), description(), begun, cores=8) == (1, 8)


def description() -> TrackerDescription:
    return Stub.describe(RunSettings())


@pytest.mark.parametrize("values", [{"workers": 0}, {"threads_per_worker": -1}, {"gpus_per_worker": 0}])
def test_settings_check_themselves(values: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        RunSettings(**values)


# What is shown


@pytest.fixture
def progress() -> RunProgress:
    running = {"k": VideoProgress("one", frames=7, expected=20)}
    return RunProgress(videos=5, done=2, failed=1, already_done=1, finished_frames=30, running=running)


def test_lines_come_now_and_then(progress: RunProgress) -> None:
    stream, now = io.StringIO(), [0.0]
    with LineDisplay(stream=stream, interval=5, clock=lambda: now[0]) as display:
        for now[0] in np.arange(0, 10.1, 0.5):
            display.update(progress)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("3/5 videos done, 1 failed, 1 running, 37 frames, ")


def test_steps_add_up_to_the_efficiency() -> None:
    steps = Timing()
    with steps("track"):
        time.sleep(0.03)
    assert list(steps.waiting("decode", iter([1, 2]))) == [1, 2]
    assert steps.seconds["track"] >= 0.03 > steps.seconds["decode"] > 0
    progress = RunProgress(videos=2)
    for seconds in (4.0, 6.0):
        progress.add(Finished(key="k", frames=10, seconds=seconds, steps={"track": 4.0, "decode": 0.5}))
    assert (progress.done, progress.finished_frames) == (2, 20)
    assert progress.step_seconds == {"track": 8.0, "decode": 1.0}
    assert efficiency(progress.step_seconds, progress.video_seconds) == 0.8
    assert efficiency({}, 0.0) is None


def test_lines_as_json(progress: RunProgress) -> None:
    stream = io.StringIO()
    LineDisplay(stream=stream, as_json=True).update(progress)
    status = json.loads(stream.getvalue())
    assert (status["event"], status["frames"], status["frames_by_video"]) == ("status", 37, {"one": 7})


def test_bars_follow_the_videos_in_flight(progress: RunProgress, capsys: pytest.CaptureFixture[str]) -> None:
    with BarDisplay() as display:
        display.update(progress)
        assert [(task.description.strip(), task.completed, task.total) for task in display._bars.tasks] == [
            *(("videos", 4, 5), ("one", 7, 20))
        ]
        progress.running.clear()
        display.update(progress)
        assert len(display._bars.tasks) == 1
        display.note("[not markup]")
    assert "[not markup]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("done", "failures", "interrupted", "code"),
    [(3, 0, False, 0), (2, 1, False, 3), (0, 3, False, 1), (2, 1, True, 130), (0, 0, True, 130)],
)
def test_the_exit_code_says_how_it_went(done: int, failures: int, interrupted: bool, code: int) -> None:
    failure = VideoFailure(video_id="v", error="E", message="m", attempts=1)
    summary = Summary(
        out="run",
        weights="w",
        videos=3,
        done=done,
        already_done=0,
        failures=(failure,) * failures,
        left_out=(),
        frames=0,
        seconds=0.0,
        interrupted=interrupted,
        warnings=(),
    )
    assert summary.exit_code == code
    assert summary.to_dict()["not_started"] == 3 - done - failures
