"""What a submission says is written down in the run's folder."""

from __future__ import annotations

from pathlib import Path

from rts_batch.actors.display import Display
from rts_batch.actors.log import LoggedDisplay


def test_a_folder_that_was_moved_does_not_come_back_with_the_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with LoggedDisplay(Display(), str(run / "log.txt")) as display:
        display.note("began")
        display.write()
        run.rename(tmp_path / "moved")
        display.note("ended")
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
    assert "began" in (tmp_path / "moved" / "log.txt").read_text()
