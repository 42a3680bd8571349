"""How a submission ended."""

from __future__ import annotations

import pytest

from rts_batch.actors.summary import Summary, VideoFailure


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
