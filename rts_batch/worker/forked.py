"""A worker's process that is a copy of a fork server: the driver's side, which starts the server, and the actor's.

See `fork_server.py`, which is what runs in the server and begins each copy.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rts_batch.io import processes
from rts_batch.worker.messages import WorkerSettings
from rts_batch.worker.tracker import ForkableFactory, find_factory

DESCRIPTORS: Final = 4
"""That come with an actor's request: the worker's socket, its fault log, standard output and error."""

_SOCKET: Final = "workers"
_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")


@contextlib.contextmanager
def fork_server(settings: WorkerSettings, folder: Path, *, spares: int = 0) -> Iterator[str | None]:
    """Have a server read the tracker from now on, and give the address for `WorkerSettings.fork_server`.

    It is gone afterwards, and with it every copy.

    Args:
        settings: what the workers will be told.
        folder: for the server's socket and log; others may not enter it.
        spares: copies that are made before anybody asks for one.

    Yields:
        None where this tracker or system is not one to be forked.
    """
    if not _can_fork(settings):
        yield None
        return
    address = str(folder / _SOCKET)
    with (
        socket.socket(socket.AF_UNIX) as listener,
        tempfile.TemporaryFile() as told,
        open(folder / "fork-server.log", "wb") as log,
    ):
        listener.bind(address)
        listener.listen()
        pickle.dump(settings, told)
        told.seek(0)
        server = subprocess.Popen(
            processes.python("rts_batch.worker.fork_server", *map(str, (listener.fileno(), os.getpid(), spares))),
            pass_fds=(listener.fileno(),),
            stdin=told,
            stdout=subprocess.DEVNULL,
            stderr=log,
            # Threads that share cores sleep while they wait; OpenMP asks once, before an actor's environment is known.
            env={"OMP_WAIT_POLICY": "PASSIVE", **processes.environment()},
            cwd=folder,
            start_new_session=True,  # signals to the driver's group are the driver's to answer
        )
    try:
        yield address
    finally:
        server.kill()
        server.wait()


def _can_fork(settings: WorkerSettings) -> bool:
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and settings.tracker.device == "cpu"
        and isinstance(find_factory(settings.factory), ForkableFactory)
    )


@dataclass(frozen=True)
class Circumstances:
    """What a process takes over from the one that starts it, beside its descriptors."""

    folder: str = field(default_factory=os.getcwd)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    niceness: int = field(default_factory=lambda: os.getpriority(os.PRIO_PROCESS, 0))
    oom_score: str = field(default_factory=_OOM_SCORE.read_text)

    def take_over(self) -> None:
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        with contextlib.suppress(OSError):  # lower than the server's own, which takes privileges
            os.setpriority(os.PRIO_PGRP, 0, self.niceness)
        with contextlib.suppress(OSError):
            _OOM_SCORE.write_text(self.oom_score)


class ForkedProcess:
    """A copy of the server, used as a `subprocess.Popen` is.

    Args:
        address: the server's.
        connection: descriptor of the worker's end of the socket by which it is told what to do.
        fault_log: descriptor of the file for its fault handler's last words.

    Raises:
        OSError: the server is gone.
    """

    def __init__(self, address: str, connection: int, fault_log: int) -> None:
        self._code: int | None = None
        self._lock = threading.Lock()
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(address)
            socket.send_fds(ours, [b"f"], [connection, fault_log, 1, 2])
            self._server = Connection(ours.detach())
        self._server.send(Circumstances())

    def poll(self) -> int | None:
        return self._hear(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._hear(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("a worker's process", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(OSError):
                self._server.send(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _hear(self, seconds: float | None) -> int | None:
        with self._lock:
            if self._code is None:
                try:
                    self._code = self._server.recv() if self._server.poll(seconds) else None
                except (EOFError, OSError):  # the server is gone, and the kernel has killed its copies
                    self._code = -signal.SIGKILL
                if self._code is not None:
                    self._server.close()
            return self._code
