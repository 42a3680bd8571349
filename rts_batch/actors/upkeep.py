"""A run's folder, looked after beside the pool: a store that does not answer holds up this thread, and no worker."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from rts_batch.errors import RunFolderError, StorageError
from rts_batch.io.storage import files
from rts_batch.runs.folder import RunFolder


class Upkeep:
    """Writes into a run's folder and looks into it, one thing after another in a thread of its own.

    It is a context manager, at whose end all is written; not where a RunFolderError ends it, as the folder is no more
    this run's then.

    Args:
        folder: the run's.
        lease: the token of the lease that is held.
    """

    def __init__(self, folder: RunFolder, *, lease: str) -> None:
        self._folder = folder
        self._lease = lease
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="folder")
        self._under_way: deque[Future[None]] = deque()
        self._looking: Future[None] | None = None
        self._troubles: deque[str] = deque()
        self.wish: Literal["no", "finish", "now"] = "no"
        """Whether the submission is to stop, as the last look has it."""

    def __enter__(self) -> Upkeep:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None and issubclass(kind, RunFolderError))

    def write(self, action: Callable[[], None]) -> None:
        """Have a note about a video written, which is not worth the run: see `troubles`."""
        self._under_way.append(self._thread.submit(self._try, action))

    def look(self, status: Mapping[str, Any]) -> None:
        """Have the status written and a wish to stop looked for, when it is its turn, unless it is due already."""
        if self._looking is None or self._looking.done():
            self._looking = self._thread.submit(self._look, status)
            self._under_way.append(self._looking)

    def troubles(self) -> list[str]:
        """Return what could not be written since the last call.

        Raises:
            RunFolderError: the folder is no run's any more.
        """
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft().result()
        return [self._troubles.popleft() for _ in range(len(self._troubles))]

    def _look(self, status: Mapping[str, Any]) -> None:
        self._refuse_to_go_on_alone()
        self._try(lambda: self._folder.put_status(status))
        with contextlib.suppress(StorageError):
            self.wish = self._folder.asked_to_stop(self._lease)

    def _refuse_to_go_on_alone(self) -> None:
        """Raise RunFolderError where the run's folder was moved or removed; what is written then is found by nobody."""
        with contextlib.suppress(StorageError):
            if not files.exists(self._folder.paths.record):
                raise RunFolderError(
                    f"{self._folder.uri} is no run's folder any more: it was moved or removed during the run; "
                    "resume it where it is now"
                )

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except StorageError as error:
            self._troubles.append(str(error))
