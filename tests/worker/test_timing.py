"""Where the time of a video goes."""

from __future__ import annotations

import time

from rts_batch.actors.progress import RunProgress
from rts_batch.worker.messages import Finished
from rts_batch.worker.timing import Timing, efficiency


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
