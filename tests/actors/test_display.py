"""How a run looks on a terminal; what else the display does is looked at in `tests/cli/test_app.py`."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rts_batch.actors.display import BarDisplay, LineDisplay, QuietDisplay, choose_display, time_left
from rts_batch.actors.progress import RunProgress, VideoProgress


@pytest.mark.parametrize("name", ["take[red]1", "take[/1]", "{0}%s"])
def test_a_videos_name_is_shown_as_it_is(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # bars are drawn on terminals only
    progress = RunProgress(videos=1, running={"k": VideoProgress(name, 1, 2)})
    with BarDisplay() as display:
        display.update(progress)
        display._bars.refresh()
    assert name in capsys.readouterr().err


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("as_json", [False, True])
def test_a_display_that_cannot_be_written_is_not_worth_the_run(
    progress: RunProgress, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails too
    monkeypatch.setattr(sys, "stderr", full)
    with LineDisplay(stream=full, as_json=as_json) as display:
        display.step("starting Ray")
        display.update(progress)
        display.note("a warning")
    for shown in (QuietDisplay(), BarDisplay()):
        with shown as display:
            display.update(progress)
            display.note("a warning")
    with contextlib.suppress(OSError):
        full.close()


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


def test_the_main_bar_is_of_frames_where_their_number_is_known(progress: RunProgress) -> None:
    progress = RunProgress(videos=5, guesses={"a": 20, "b": 20}, running={"a": VideoProgress("one", 10, 40)})
    progress.started -= 30
    with BarDisplay() as display:
        display.update(progress)
        main = display._bars.tasks[0]
        # The one video that is open is twice as long as it was thought to be, so the other probably is, too.
        assert (main.description, main.completed, main.total) == ("frames", 10, 80)
        assert "0 of 5 videos" in main.fields["unit"]
        assert main.fields["unit"].endswith(" min left")


@pytest.mark.parametrize(("seconds", "words"), [(0.5, ""), (80, ", ~80 s left"), (600, ", ~10 min left")])
def test_the_time_that_is_left(seconds: float, words: str) -> None:
    progress = RunProgress(videos=2, guesses={"a": 10, "b": 10}, running={"a": VideoProgress("one", 10, 10)})
    progress.started -= seconds
    assert time_left(progress) == words
    assert time_left(RunProgress(videos=2)) == ""


def test_quiet_says_what_matters(progress: RunProgress, capsys: pytest.CaptureFixture[str]) -> None:
    display = choose_display(as_json=False, stream=io.StringIO(), quiet=True)
    assert isinstance(display, QuietDisplay)
    with display:
        display.step("reading")
        display.update(progress)
        display.note("failed: one")
    assert capsys.readouterr() == ("", "failed: one\n")
