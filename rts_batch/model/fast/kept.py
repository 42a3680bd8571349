"""Compiled parts kept between processes, in a folder of the user's: as a whole or not at all, and not beyond a size.

Processes that lack the same part take turns, so that the workers of a machine compile each part once.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows, where every process compiles for itself
    fcntl = None  # type: ignore[assignment]

LARGEST = 1 << 30
"""Bytes of compiled parts that are kept, of all weights, shapes, threads and precisions together."""

TURNS = 16
"""Files that processes wait at for one another; parts share them by their names."""

LONGEST_WAIT_SECONDS = 60.0
"""For another process, which takes a few of them."""


def user_folder() -> Path | None:
    """Return the folder for compiled parts in the user's cache; None where nothing can be written there."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "rts-batch" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextlib.contextmanager
def turn(part: Path) -> Iterator[None]:
    """Wait while another process makes this part, but not for one that has got stuck, nor where files have no locks."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                place = part.with_name(f"{int(part.stem[:8], 16) % TURNS:02d}.turn")
                _lock(stack.enter_context(place.open("ab")))
        yield


def _lock(file: BinaryIO) -> None:
    """Lock a file until it is closed or its process dies; give up after `LONGEST_WAIT_SECONDS`."""
    until = time.monotonic() + LONGEST_WAIT_SECONDS
    while not _is_locked(file) and time.monotonic() < until:
        time.sleep(0.05)


def _is_locked(file: BinaryIO) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def read(part: Path) -> bytes | None:
    """Return a part's content and note that it was used; None where it is not, or no longer, there."""
    try:
        content = part.read_bytes()
        os.utime(part)
    except OSError:
        return None
    return content


def write(content: Any, part: Path) -> None:
    """Keep a part, bytes or a stream of them; a full disk costs the next process its time."""
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile(dir=part.parent, suffix=".part", delete=False) as file:
            file.write(content.getvalue() if hasattr(content, "getvalue") else bytes(content))
        os.replace(file.name, part)
        _make_room(part.parent)


def _make_room(folder: Path) -> None:
    """Delete what was not used for longest, and what a process that died has left, until the rest is small enough."""
    facts = [(file, file.stat()) for file in folder.iterdir() if file.suffix in (".blob", ".part")]
    total = sum(found.st_size for _, found in facts)
    for file, found in sorted(facts, key=lambda fact: fact[1].st_mtime):
        if total <= LARGEST:
            return
        file.unlink(missing_ok=True)
        total -= found.st_size
