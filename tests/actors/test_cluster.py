"""Ray, found and reached."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rts_batch.actors.cluster import _home_takes_no_token, _interruptible, _twice, _within, ray_session
from rts_batch.actors.interruptions import sigterm_as_interrupt
from rts_batch.errors import EXIT_INTERRUPTED
from tests.support.running import STUB, finish, start, write_manifest
from tests.support.videos import make_video


def test_a_cluster_that_never_answers_is_waited_for_only_so_long() -> None:
    forever = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        _within(0.05, lambda: wait_for(forever))
    with pytest.raises(ConnectionError, match="refused"):
        _within(60, fail_to_connect)
    _within(60, lambda: None)


def wait_for(event: threading.Event) -> None:
    event.wait(60)


def fail_to_connect() -> None:
    raise ConnectionError("refused")


def test_a_local_ray_that_does_not_start_is_started_once_more(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def starts_at(call: int) -> Callable[[], None]:
        def connect() -> None:
            seen.append("start")
            if seen.count("start") < call:
                raise RuntimeError("timed out during startup")

        return connect

    _twice(starts_at(1), between=lambda: seen.append("end"))
    assert (seen, caplog.messages) == (["start"], [])
    seen.clear()
    _twice(starts_at(2), between=lambda: seen.append("end"))
    assert seen == ["start", "end", "start"]
    assert "started once more: timed out during startup" in caplog.text
    seen.clear()
    with pytest.raises(RuntimeError, match="timed out"):
        _twice(starts_at(3), between=lambda: seen.append("end"))


def test_a_home_that_cannot_be_written_is_no_place_for_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # root may write wherever there is a folder
    assert _home_takes_no_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert not _home_takes_no_token()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert not _home_takes_no_token()


@pytest.mark.ray
def test_a_local_run_starts_without_a_home_inside_a_job_of_another_ray(tmp_path: Path) -> None:
    """As in a container under any user id, in what `ray job submit --working-dir .` starts there."""
    make_video(tmp_path / "clip.mp4", 4)
    (tmp_path / "m.csv").write_text('video,box\nclip.mp4,"30,30,20,20"\n')
    (tmp_path / "file").touch()
    job = {
        "runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip", "env_vars": {"A": "1"}},
        "metadata": {"job_submission_id": "raysubmit_x"},
    }
    environment = {
        "HOME": str(tmp_path / "file"),
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job),
    }
    outcome = finish(start("submit", tmp_path / "m.csv", "--out", tmp_path / "run", *STUB, **environment))
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "run" / "masks").iterdir())) == 1


@pytest.mark.ray
@pytest.mark.long
def test_a_local_ray_starts_no_process_that_nobody_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_prestart_worker_first_driver", raising=False)
    with tempfile.TemporaryDirectory(prefix="rtsb-") as folder, ray_session("local", folder=Path(folder), cpus=2):
        names = [child.name() for child in psutil.Process().children(recursive=True)]
        assert any("raylet" in name for name in names)
        assert not [name for name in names if name.startswith("ray::IDLE")]


def test_ray_that_puts_in_an_exit_at_sigterm_does_not_decide_the_exit_code() -> None:
    with sigterm_as_interrupt():
        ours = signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            start_and_be_ended()
        assert signal.getsignal(signal.SIGTERM) == ours


def start_and_be_ended(
    answer: Callable[[int], object] = sys.exit, error: Exception | None = None, number: int = signal.SIGTERM
) -> None:
    with _interruptible():
        earlier = signal.signal(number, lambda number, frame: answer(number))
        os.kill(os.getpid(), number)
        signal.signal(number, earlier)
        if error is not None:
            raise error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("error", [None, RuntimeError("the raylet died")])
def test_a_signal_of_which_nothing_is_raised_is_not_lost(error: Exception | None, number: int) -> None:
    """Python ignores what is raised while it forks: the run went on as if nobody had ended it."""
    with sigterm_as_interrupt(), pytest.raises(KeyboardInterrupt):
        start_and_be_ended(lambda number: None, error, number)


def test_an_error_without_a_sigterm_stays_one() -> None:
    with sigterm_as_interrupt(), pytest.raises(RuntimeError), _interruptible():
        raise RuntimeError


@pytest.mark.ray
@pytest.mark.long
def test_sigterm_while_ray_starts_is_an_interruption(tmp_path: Path) -> None:
    make_video(tmp_path / "video.mp4", 5)
    manifest = write_manifest(tmp_path / "manifest.jsonl", [{"video": "video.mp4", "box": [10, 10, 20, 20]}])
    process = start("submit", manifest, "--out", tmp_path / "run", *STUB, "--workers", 1)
    assert process.stderr is not None
    while "starting Ray" not in process.stderr.readline():
        assert process.poll() is None
    threading.Event().wait(1.5)  # in the midst of it, on a machine that is not much faster
    process.send_signal(signal.SIGTERM)
    # The latter, for which a shell says the same, is Python's own where it was just evaluating text.
    assert finish(process).code in (EXIT_INTERRUPTED, -signal.SIGINT)
    assert not (tmp_path / "run" / "lease.json").exists()
