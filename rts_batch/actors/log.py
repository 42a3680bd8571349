"""A run's log: every word that a display is given, with the time, in the run's folder."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Final

from rts_batch.actors.display import Display
from rts_batch.actors.progress import RunProgress
from rts_batch.errors import StorageError
from rts_batch.io.storage import files, uris

SECONDS: Final = 10.0
"""Between two writings: nothing can be appended to an object in a store, so all of it is written each time."""


class LoggedDisplay(Display):
    """Shows what another display shows, with `details` those too, and writes it down once the run has begun.

    What cannot be written is not worth the run.
    """

    def __init__(self, shown: Display, uri: str, *, details: bool = True) -> None:
        self._shown = shown
        self._details = details
        self._uri = uri
        self._lines: list[str] = []
        self._earlier: bytes | None = None
        self._due = 0.0
        # A store that does not answer must not hold up who shows the run, which is the pool.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._writing: Future[None] | None = None

    def __enter__(self) -> LoggedDisplay:
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._shown.__exit__(*exception)
        self._thread.shutdown()
        self.write()

    def update(self, progress: RunProgress) -> None:
        self._shown.update(progress)
        if time.monotonic() >= self._due and (self._writing is None or self._writing.done()):
            self._due = time.monotonic() + SECONDS
            self._writing = self._thread.submit(self.write)

    def note(self, text: str) -> None:
        self.add(text)
        self._shown.note(text)

    def step(self, text: str) -> None:
        self.add(text)
        self._shown.step(text)

    def detail(self, text: str) -> None:
        self.add(text)
        if self._details:
            self._shown.note(text)

    def add(self, text: str) -> None:
        """Write down what is not to be shown."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._lines.append(f"{now} {text}")

    def write(self) -> None:
        """Bring the file up to date; what earlier submissions wrote stays before it."""
        path = uris.local_path(self._uri)
        if path is not None and not path.parent.is_dir():
            return  # the run was moved or removed, and shall not be found in its old place again
        with contextlib.suppress(StorageError):
            if self._earlier is None:
                self._earlier = files.read_bytes(self._uri) if files.exists(self._uri) else b""
            files.put_bytes(self._uri, self._earlier + "".join(f"{line}\n" for line in self._lines).encode())
