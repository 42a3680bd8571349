"""How a run looks on a terminal; what else the display does is looked at in `tests/cli/test_app.py`."""

from __future__ import annotations

import pytest

from rts_batch.actors.display import BarDisplay
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
