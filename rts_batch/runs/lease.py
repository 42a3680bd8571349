"""Who may write into a run's folder: one process at a time, whatever happens to the others.

The lease is a small JSON file that names its holder and is rewritten every few seconds. A holder that died on this host
is recognised by its process and replaced at once. A holder elsewhere can only be watched: it is replaced when its file
has not changed for a minute by our own clock, so that no two hosts' clocks are ever compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rts_batch.errors import RtsBatchError, RunBusyError, StorageError
from rts_batch.io.storage import files, uris

HEARTBEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0


class Lease:
    """The right to write into a run's folder. Use it as a context manager, and look at `lost` now and then.

    Args:
        uri: Where the lease file lies.
        note: Called with a sentence when the lease has to be waited for.
        heartbeat: Seconds between two renewals.
        silent: Seconds after which an unchanged lease of another host counts as abandoned.

    Raises:
        RunBusyError: Another process that is alive holds the folder.
    """

    def __init__(
        self,
        uri: str,
        *,
        note: Callable[[str], None] = lambda text: None,
        heartbeat: float = HEARTBEAT_SECONDS,
        silent: float = SILENT_SECONDS,
    ) -> None:
        self._uri = uri
        self._note = note
        self._heartbeat = heartbeat
        self._silent = silent
        self.token = uuid.uuid4().hex
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.lost = threading.Event()
        """Set when another process has taken the folder over; stop writing then."""

    def __enter__(self) -> Lease:
        while True:
            with only_one_here(self._uri):
                holder = _read(self._uri)
                if holder is None and files.create_bytes(self._uri, self._content()):
                    break
                if holder is not None and _is_dead(holder):
                    self._write()
                    break
            if holder is None:
                continue  # somebody was faster by a moment
            self._wait_for_silence(holder)
        # On a store without conditional writes two processes may both have found the lease free; the later writer has
        # it.
        if uris.local_path(self._uri) is None:
            time.sleep(1.0)
            self._refuse_unless_ours()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        # A lease that stays behind costs the next run nothing here and a minute elsewhere.
        with contextlib.suppress(RtsBatchError, OSError), only_one_here(self._uri, create=False):
            holder = _read(self._uri)
            if holder is not None and holder.get("token") == self.token:
                files.delete(self._uri)

    def _write(self) -> None:
        files.put_bytes(self._uri, self._content())

    def _content(self) -> bytes:
        return json.dumps(_identity() | {"token": self.token, "beat": time.time()}).encode()

    def _refuse_unless_ours(self) -> None:
        holder = _read(self._uri)
        if holder is None or holder.get("token") != self.token:
            raise RunBusyError(f"{self._uri}: {_describe(holder or {})} took the run at the same moment")

    def _wait_for_silence(self, holder: dict[str, Any]) -> None:
        """Return when `holder` has been silent for long enough; raise RunBusyError where it is alive."""
        busy = RunBusyError(
            f"{self._uri}: the run is held by {_describe(holder)}, which is alive; "
            "wait for it, stop it, or give another folder with --out"
        )
        if _is_here(holder):
            raise busy
        self._note(f"the run is held by {_describe(holder)}; taking over if it stays silent for {self._silent:.0f} s")
        deadline = time.monotonic() + self._silent
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._silent / 10))
            now = _read(self._uri)
            if now is None:
                return
            if now != holder:
                raise busy
        with only_one_here(self._uri):
            if _read(self._uri) == holder:
                files.delete(self._uri)

    def _renew(self) -> None:
        while not self._closing.wait(self._heartbeat):
            # A store that cannot be reached says nothing about who holds the lease: try again at the next beat.
            # Nor does any other trouble with its file, and a thread that ends of it would let another process in.
            with contextlib.suppress(RtsBatchError, OSError), only_one_here(self._uri, create=False):
                holder = _read(self._uri)
                if holder is not None and holder.get("token") != self.token:
                    self.lost.set()
                    return
                self._write()


class Holder(NamedTuple):
    """Who holds a lease."""

    state: Literal["nobody", "alive", "dead", "unknown"]
    """Whether it lives; `unknown` is one on another host, which only time can tell."""
    process: str = ""
    beat: float | None = None
    """When it renewed the lease last, in seconds since the epoch by its own clock."""


def holder_of(uri: str) -> Holder:
    holder = _read(uri)
    if holder is None:
        return Holder("nobody")
    state: Literal["alive", "dead", "unknown"] = "alive" if _is_here(holder) else "unknown"
    return Holder("dead" if _is_dead(holder) else state, _describe(holder), holder.get("beat"))


def token_of(uri: str) -> str:
    """What tells a lease from every other, `Lease.token`; empty where there is none."""
    return str((_read(uri) or {}).get("token", ""))


def _identity() -> dict[str, Any]:
    """What tells this process from every other: host, boot, process-id namespace, id, and when it started."""
    return {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "namespace": _pid_namespace(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
    }


def _is_here(holder: dict[str, Any]) -> bool:
    """True where the holder's process can be looked up from this one."""
    ours = _identity()
    return all(holder.get(name) == ours[name] for name in ("host", "boot", "namespace"))


def _is_dead(holder: dict[str, Any]) -> bool:
    """True where the holder is known to have ended: an earlier boot of this host, or a process that is gone."""
    ours = _identity()
    if holder.get("host") == ours["host"] and ours["boot"] and holder.get("boot") not in (None, "", ours["boot"]):
        return True
    if not _is_here(holder):
        return False
    started = _start_of(int(holder.get("pid", 0)))
    return started is None or started != holder.get("started")


def _start_of(pid: int) -> str | None:
    """When the process started, as an opaque word; None where it does not run (any more)."""
    try:
        # The command in parentheses may hold spaces, so count from its end: state is field 3, start time field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _describe(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}"


def _read(uri: str) -> dict[str, Any] | None:
    """Return the lease's content, None where there is none; a file that is not ours is refused."""
    if not files.exists(uri):
        return None
    try:
        holder = json.loads(files.read_bytes(uri))
    except ValueError as error:
        raise RunBusyError(f"{uri} is not a lease ({error}); remove it if no run uses this folder") from error
    except StorageError as error:
        if error.transient or files.exists(uri):
            raise
        return None
    if not isinstance(holder, dict):
        raise RunBusyError(f"{uri} is not a lease; remove it if no run uses this folder")
    return holder


@contextlib.contextmanager
def only_one_here(uri: str, *, create: bool = True) -> Iterator[None]:
    """Make reading and then writing a file one step among the processes of this host (local folders only).

    Raises:
        RtsBatchError: the file's folder cannot be used, or without `create` is not there.
    """
    path = uris.local_path(uri)
    if path is None:
        yield
        return
    folder = path.parent
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RtsBatchError(f"{folder}: cannot be used as a run's folder ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
