"""What tests of decoding do with frames."""

from __future__ import annotations

import os
import signal

import numpy as np

from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.opening import Frame, FrameSource


def same(ours: list[Frame], others: list[Frame]) -> bool:
    """Whether both have the same indices, times and pixels."""
    return [(frame.index, frame.time) for frame in ours] == [(frame.index, frame.time) for frame in others] and all(
        np.array_equal(one.image, two.image) for one, two in zip(ours, others, strict=True)
    )


def frames_with_a_kill(process: DecodingProcess, source: FrameSource, *, at: int) -> list[Frame]:
    """Takes all frames of a video that `process` reads, and kills the process when it has handed out frame `at`."""
    frames = []
    for frame in source:
        frames.append(frame)
        if frame.index == at:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
    return frames
