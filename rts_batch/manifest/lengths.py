"""How long the videos of a manifest probably are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rts_batch.io.storage import uris
from rts_batch.manifest.task import VideoTask

MOST_LOOKED_AT: Final = 20_000
"""Videos without a given length beyond which none is looked at."""

BYTES_PER_FRAME: Final = 8192
"""A usual compressed frame; only videos without a given length are put in order by it."""


def expected_lengths(tasks: Iterable[VideoTask]) -> dict[str, int]:
    """Guess every video's number of frames, for the order and the progress bar only.

    The manifest's `frames` is taken where it is given, else the size of a local file or folder, unless those are so
    many that looking at each would take long.
    """
    tasks = list(tasks)
    look = sum(task.frames is None for task in tasks) <= MOST_LOOKED_AT
    return {task.key: _expected_length(task) if look or task.frames is not None else 0 for task in tasks}


def _expected_length(task: VideoTask) -> int:
    length = task.frames
    if length is None:
        path = uris.local_path(task.uri)
        try:
            if path is None:
                length = 0
            elif path.is_dir():
                length = sum(1 for _ in path.iterdir())
            else:
                length = path.stat().st_size // BYTES_PER_FRAME
        except OSError:
            length = 0
    return frames_of_task(task, length)


def frames_of_task(task: VideoTask, length: int) -> int:
    """How many frames of a video of so many are tracked, those of a second pass once more."""
    end = min(length, task.end if task.end is not None else length)
    again_from, _ = task.second_pass_from()
    again = 0 if again_from is None or again_from <= task.start else min(again_from + 1, end) - task.start
    return max(0, end - task.start) + max(0, again)
