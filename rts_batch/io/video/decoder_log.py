"""What FFmpeg itself says is wrong with a video, beside the frames that it gives.

Decoders conceal damage inside a frame without marking the frame; their log is the only word of it. FFmpeg writes it to
standard error, so it can only be read in a process whose standard error is a file of ours: the decoding process.
"""

from __future__ import annotations

import fcntl
import os
import re
from typing import Final

import av

_READ_BYTES: Final = 1 << 20
# Concealment is only worth an "info" to FFmpeg, where it stands among much that is harmless.
_DAMAGE: Final = re.compile(
    r"conceal|corrupt|invalid|error|damage|mismatch|missing|unavailable|overread|overlap|truncat|partial file"
    r"|prematurely|illegal|non-existing|exceed|fail|could not find ref|out of range|too (small|large)|skipped",
    re.IGNORECASE,
)

_on = False


def enable() -> None:
    """Turn FFmpeg's log on. Standard error must be a file that is open for reading as well."""
    global _on
    _on = True
    # So that what is written after the file was emptied begins at its beginning.
    fcntl.fcntl(2, fcntl.F_SETFL, fcntl.fcntl(2, fcntl.F_GETFL) | os.O_APPEND)
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.INFO)


def enabled() -> bool:
    return _on


def take() -> list[str]:
    """What tells of damage among all that has been logged since the last call, without addresses.

    Empties the log.
    """
    if not _on or not os.fstat(2).st_size:
        return []
    text = os.pread(2, _READ_BYTES, 0).decode(errors="replace")
    os.ftruncate(2, 0)
    lines = (re.sub(r" @ 0x[0-9a-f]+", "", line).strip() for line in text.splitlines())
    return [line for line in lines if _DAMAGE.search(line)]
