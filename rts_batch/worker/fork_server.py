"""A process that has read a run's tracker and divides itself: on this machine each worker's process is a copy of it.

To import PyTorch and OpenVINO and lay out a small network takes two seconds of a core, which every worker would spend
while videos wait. The server does it once, while Ray starts, and its copies share the memory.

The driver starts it (`fork_server`); an actor asks for a copy and hears of its end over a socket in the run's folder
(`ForkedProcess`). The server is the parent of all copies: it ends a copy whose actor is gone, and its own end is the
end of all of them. A copy has the actor's environment, place, output and priority, as a process that the actor itself
had started would have. Without the server, actors start processes themselves (`process.py`).

Only a tracker that says how it is read in two parts (`ForkableFactory`) is forked, and only on a CPU: what a process
has of a GPU cannot be divided, nor can threads.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rts_batch.io import processes
from rts_batch.worker.messages import WorkerSettings
from rts_batch.worker.tracker import ForkableFactory, find_factory

__all__ = ["ForkedProcess", "fork_server"]

_SOCKET: Final = "workers"
_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
_DESCRIPTORS: Final = 4
"""That come with a request: the worker's socket, its fault log, standard output and error."""


# ---- the driver's side ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fork_server(settings: WorkerSettings, folder: Path) -> Iterator[str | None]:
    """Have a server read the tracker from now on, and give the address for `WorkerSettings.fork_server`.

    It is gone afterwards, and with it every copy.

    Args:
        settings: what the workers will be told.
        folder: an empty one for the server's socket, which others may not enter.

    Yields:
        None where this tracker or system is not one to be forked.
    """
    if not _can_fork(settings):
        yield None
        return
    address = str(folder / _SOCKET)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        server = subprocess.Popen(
            processes.python("rts_batch.worker.fork_server", str(listener.fileno()), str(os.getpid())),
            pass_fds=(listener.fileno(),),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=processes.environment(),
            cwd=folder,
            start_new_session=True,  # signals to the driver's group are the driver's to answer
        )
    try:
        assert server.stdin is not None
        with contextlib.suppress(OSError), server.stdin as pipe:  # it is gone; the actors find out
            pickle.dump(settings, pipe)
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


# ---- the actor's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Circumstances:
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
            os.setpriority(os.PRIO_PROCESS, 0, self.niceness)
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
        self._server.send(_Circumstances())

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


# ---- the server ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copy:
    """A copy that runs."""

    pid: int
    end: int
    """Descriptor that can be read once it has ended."""
    actor: Connection


class _Server:
    """Divides this process at the actors' request, one after the other; it has no further thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._copies: set[_Copy] = set()

    def serve(self) -> Sequence[int]:
        """Return in every copy, with the descriptors of its request, and never in the server itself."""
        while True:
            for key, _ in self._selector.select():
                copy: _Copy | None = key.data
                if copy is None:
                    descriptors = self._divide()
                    if descriptors:
                        return descriptors
                elif key.fileobj == copy.end:
                    self._bury(copy)
                    break  # the other keys may be the same copy's
                else:
                    self._obey(copy)

    def _divide(self) -> Sequence[int]:
        """Return the request's descriptors in the copy, and nothing in the server."""
        accepted, _ = self._listener.accept()
        _, descriptors, *_ = socket.recv_fds(accepted, 1, _DESCRIPTORS)
        actor = Connection(accepted.detach())
        try:
            circumstances: _Circumstances = actor.recv()
        except (EOFError, OSError):  # it was gone at once
            actor.close()
            return self._closed(descriptors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # libraries' threads that know how to be forked
            pid = os.fork()
        if pid == 0:
            actor.close()
            for copy in self._copies:
                copy.actor.close()
                os.close(copy.end)
            self._selector.close()
            self._listener.close()
            circumstances.take_over()
            return descriptors
        copy = _Copy(pid, os.pidfd_open(pid), actor)
        self._copies.add(copy)
        self._selector.register(copy.end, selectors.EVENT_READ, copy)
        self._selector.register(actor, selectors.EVENT_READ, copy)
        return self._closed(descriptors)

    @staticmethod
    def _closed(descriptors: Sequence[int]) -> Sequence[int]:
        for descriptor in descriptors:
            os.close(descriptor)
        return ()

    def _obey(self, copy: _Copy) -> None:
        """Pass a signal on; a copy whose actor is gone is killed."""
        try:
            number = copy.actor.recv()
        except (EOFError, OSError):
            self._selector.unregister(copy.actor)
            number = signal.SIGKILL
        os.kill(copy.pid, number)  # it has not been waited for, so the number is still its own

    def _bury(self, copy: _Copy) -> None:
        """Tell an actor how its copy has ended."""
        self._copies.remove(copy)
        self._selector.unregister(copy.end)
        os.close(copy.end)
        _, status = os.waitpid(copy.pid, 0)
        with contextlib.suppress(KeyError):
            self._selector.unregister(copy.actor)
        with contextlib.suppress(OSError):
            copy.actor.send(os.waitstatus_to_exitcode(status))
        copy.actor.close()


def main(listener: int, driver: int) -> None:
    from rts_batch.worker.__main__ import die_with
    from rts_batch.worker.__main__ import main as work

    die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings: WorkerSettings = pickle.load(sys.stdin.buffer)
    factory = find_factory(settings.factory)
    assert isinstance(factory, ForkableFactory)

    load = None
    with contextlib.suppress(Exception):  # each worker meets it again, and says what is wrong
        load = factory.read(settings.tracker, threads=settings.threads, lanes=settings.lanes)
    server = os.getpid()
    connection, fault_log, output, errors = _Server(socket.socket(fileno=listener)).serve()
    os.dup2(output, 1)
    os.dup2(errors, 2)
    try:
        work(Connection(connection), fault_log, server, load=load)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
