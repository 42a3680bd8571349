"""Frames a second with frames in memory: lanes from threads, on the frames that learn and after; targets of one video.

A result is read a frame late, as a worker reads it. Every lane tracks the same length; the second turn is measured, as
the first captures the stages. `plain` is the tracker as the paper has it, alone. Nothing of this needs more of the
package than scenes, so that another checkout's can be measured the same way.

    python3 -m benchmarks.gpu.rates --profiles plain bf16 --lanes 1 4 8 16 --targets 2 4 8 --out rates.json
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.subject import Subject, parser
from rts_batch.masks import Marking
from rts_batch.tracking.opener import SceneOpener
from rts_batch.tracking.scene import Scene
from rts_batch.tracking.tracker import Tracker

MARKS = (1, 5, 101, 241)
"""The first frame, between which two the models learn on each, and the last one."""

SMALL_MARKS = (1, 2, 4, 8)


def main() -> int:
    made = parser(__doc__, profiles=("plain", "exact", "tf32", "bf16"))
    made.add_argument("--lanes", type=int, nargs="*", default=[1, 4, 8, 16])
    made.add_argument("--targets", type=int, nargs="*", default=[2, 4, 8])
    options = made.parse_args()
    subject = Subject(options)
    notes = subject.notes(options.out)
    for name in subject.profiles:
        for lanes in [1] if name == "plain" else options.lanes:
            notes.step(f"{name}, {lanes} lanes", lanes_rates, subject, name, lanes)
        for targets in [] if name == "plain" else options.targets:
            notes.step(f"{name}, {targets} targets", targets_rates, subject, name, targets)
    return notes.finish()


def lanes_rates(subject: Subject, name: str, lanes: int) -> dict[str, Any]:
    """Return ms of a start, and frames/s of all lanes together while they learn on every frame and afterwards."""
    model = subject.model(name)
    if name == "plain":
        opened: Callable[[], Scene] = lambda: Scene(model, subject.config, single=True, tracker=Tracker)  # noqa: E731
    else:
        opened = functools.partial(SceneOpener(model, subject.config, lanes=lanes).open, 1)
    first, times = follow_all(subject, opened, lanes, targets=1), []
    peak = reset_peak(subject)
    times = follow_all(subject, opened, lanes, targets=1)
    return {**rates(subject, times, lanes), "first turn s": first[-1] - first[0], **peak()}


def targets_rates(subject: Subject, name: str, targets: int) -> dict[str, Any]:
    """The same of one video with several targets; frames/s are the video's."""
    opened = functools.partial(SceneOpener(subject.model(name), subject.config).open, targets)
    follow_all(subject, opened, 1, targets=targets)
    peak = reset_peak(subject)
    return {**rates(subject, follow_all(subject, opened, 1, targets=targets), 1), **peak()}


def rates(subject: Subject, times: list[float], lanes: int) -> dict[str, float]:
    begun, started, early, dense, last = times
    _, first, learnt, end = SMALL_MARKS if subject.small else MARKS
    return {
        "start ms": 1e3 * (started - begun) / lanes,
        "dense frames/s": lanes * (learnt - first) / (dense - early),
        "settled frames/s": lanes * (end - learnt) / (last - dense),
        "all frames/s": lanes * end / (last - begun),
    }


def follow_all(subject: Subject, opened: Callable[[], Scene], lanes: int, *, targets: int) -> list[float]:
    """Track a video in each of so many threads; return when they began and when all had reached each mark."""
    marks = SMALL_MARKS if subject.small else MARKS
    meeting = threading.Barrier(lanes + 1)
    errors: list[BaseException] = []

    def work(lane: int) -> None:
        try:
            image, mask = subject.frames.pairs[0]
            apart = mask.shape[1] // targets
            marked = {key + 1: Marking(mask=np.roll(mask, key * apart, axis=1)) for key in range(targets)}
            scene = opened()
            meeting.wait()
            late: Any = None
            for number in range(1, marks[-1] + 1):
                found = scene.step(subject.frames.image(number - 1 + lane) if number > 1 else image, marked)
                marked = {}
                read(late)
                late = found
                if number in marks:
                    read(late)
                    meeting.wait()
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    times = []
    try:
        for _ in range(1 + len(marks)):
            meeting.wait()
            times.append(time.perf_counter())
    except threading.BrokenBarrierError:
        pass
    for thread in threads:
        thread.join()
    if errors:
        raise next((one for one in errors if not isinstance(one, threading.BrokenBarrierError)), errors[0])
    return times


def read(found: Any) -> None:
    for key in found or ():
        _ = found[key]


def reset_peak(subject: Subject) -> Callable[[], dict[str, float]]:
    if subject.device == "cpu":
        return dict
    torch.cuda.reset_peak_memory_stats()
    return lambda: {"memory MiB": torch.cuda.max_memory_allocated() / 2**20}


if __name__ == "__main__":
    sys.exit(main())
