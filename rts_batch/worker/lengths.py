"""How long the videos of a manifest are, by what their containers say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rts_batch.errors import RtsBatchError
from rts_batch.io.storage import uris
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.manifest import VideoTask
from rts_batch.manifest.lengths import expected_lengths, frames_of_task

SECONDS: Final = 10.0
"""For so long videos are opened; of the others the length is guessed."""


def read_lengths(tasks: Sequence[VideoTask], *, seconds: float = SECONDS) -> dict[str, int]:
    """Return every video's number of frames by its task's key, 0 where nothing is known of it.

    Local videos are opened, for so many seconds at most, in a process of its own. What that shows corrects the guesses
    for the others, which go by the size of files.
    """
    guesses = expected_lengths(tasks)
    until = time.monotonic() + seconds
    read: dict[str, int] = {}
    with DecodingProcess() as process:
        for task in tasks:
            if task.frames is None and uris.local_path(task.uri) is not None and time.monotonic() < until:
                length = _length(process, task)
                if length is not None:
                    read[task.key] = length
    guessed = sum(guesses[key] for key in read)
    scale = sum(read.values()) / guessed if guessed else 1.0
    given = {task.key for task in tasks if task.frames is not None}
    return {key: read.get(key, guess if key in given else round(scale * guess)) for key, guess in guesses.items()}


def _length(process: DecodingProcess, task: VideoTask) -> int | None:
    """What a local video's container, or folder, says; None where it says nothing or cannot be opened."""
    try:
        with process.open(str(uris.local_path(task.uri)), decoder="pyav") as source:
            info = source.info
    except RtsBatchError:
        return None
    length = info.frames
    if length is None and info.fps and info.duration:
        length = round(info.fps * info.duration)
    return None if length is None else frames_of_task(task, length)
