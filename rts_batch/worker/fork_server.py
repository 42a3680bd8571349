"""A process that has read a run's tracker and divides itself: on this machine each worker's process is a copy of it.

To import PyTorch and OpenVINO and lay out a small network takes two seconds of a core, which every worker would spend
while videos wait. The server does it once, while Ray starts, and its copies share the memory. As many copies as there
will be workers are made at once, as spares: they go on to load the model, and wait for an actor.

The driver starts the server, and an actor asks for a copy and hears of its end over a socket in the run's folder
(`forked.py`). The server is the parent of all copies: it ends a copy whose actor is gone, and its own end is the end of
all of them. A copy takes over the actor's environment, folder, output and priority, and so is as a process that the
actor itself had started. Without the server, actors start processes themselves (`process.py`).

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
import sys
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection

import pyarrow

from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.worker.__main__ import die_with
from rts_batch.worker.__main__ import main as work
from rts_batch.worker.forked import DESCRIPTORS, Circumstances
from rts_batch.worker.messages import WorkerSettings
from rts_batch.worker.tracker import ForkableFactory, find_factory


@dataclass(eq=False)
class _Copy:
    """A copy that runs."""

    pid: int
    end: int
    """Descriptor that can be read once it has ended."""
    door: socket.socket
    """By which it will get its request."""
    actor: Connection | None = None
    """None for a spare."""

    def close(self) -> None:
        os.close(self.end)
        self.door.close()
        if self.actor is not None:
            self.actor.close()


class _Server:
    """Divides this process; it has no further thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._copies: list[_Copy] = []

    def serve(self, spares: int) -> socket.socket:
        """Return in every copy, with the socket by which its request comes, and never in the server itself."""
        for _ in range(spares):
            if (door := self._divide()) is not None:
                return door
        while True:
            for key, _ in self._selector.select():
                copy: _Copy | None = key.data
                if copy is None:
                    if all(other.actor for other in self._copies) and (door := self._divide()) is not None:
                        return door
                    self._hand_over(next(other for other in self._copies if other.actor is None))
                elif key.fileobj == copy.end:
                    self._bury(copy)
                    break  # the other keys may be the same copy's
                else:
                    self._obey(copy)

    def _divide(self) -> socket.socket | None:
        """Make a copy. Return its door in the copy and None in the server."""
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # libraries' threads, which know how to be forked
            pid = os.fork()
        if pid == 0:
            ours.close()
            for copy in self._copies:
                copy.close()
            self._selector.close()
            self._listener.close()
            return theirs
        theirs.close()
        copy = _Copy(pid, os.pidfd_open(pid), ours)
        self._copies.append(copy)
        self._selector.register(copy.end, selectors.EVENT_READ, copy)
        return None

    def _hand_over(self, copy: _Copy) -> None:
        """Take an actor's request and give it to a copy."""
        accepted, _ = self._listener.accept()
        _, descriptors, *_ = socket.recv_fds(accepted, 1, DESCRIPTORS)
        actor = Connection(accepted.detach())
        try:
            circumstances = actor.recv()
            socket.send_fds(copy.door, [b"f"], descriptors)
            with Connection(copy.door.detach()) as door:
                door.send(circumstances)
        except (EOFError, OSError):  # either was gone at once; the actor hears of it and asks again
            actor.close()
        else:
            copy.actor = actor
            self._selector.register(actor, selectors.EVENT_READ, copy)
        for descriptor in descriptors:
            os.close(descriptor)

    def _obey(self, copy: _Copy) -> None:
        """Pass a signal on; a copy whose actor is gone is killed."""
        assert copy.actor is not None
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
        _, status = os.waitpid(copy.pid, 0)
        if copy.actor is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(copy.actor)
            with contextlib.suppress(OSError):
                copy.actor.send(os.waitstatus_to_exitcode(status))
        copy.close()


def main(listener: int, driver: int, spares: int) -> None:
    """Read the tracker and serve; in a copy, load it and be a worker's process."""
    die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings: WorkerSettings = pickle.load(sys.stdin.buffer)
    pyarrow.array([0])  # imports pandas, if it is there
    factory = find_factory(settings.factory)
    assert isinstance(factory, ForkableFactory)
    load = None
    with contextlib.suppress(Exception):  # each worker meets it again, and says what is wrong
        load = factory.read(settings.tracker, threads=settings.threads, lanes=settings.lanes)
    server = os.getpid()
    door = _Server(socket.socket(fileno=listener)).serve(spares)
    die_with(server)
    os.setpgid(0, 0)  # with the decoding process
    decoding, tracker = DecodingProcess(), None
    decoding.start()  # while the model loads
    if load is not None:
        with contextlib.suppress(Exception):
            tracker = load()
    _, descriptors, *_ = socket.recv_fds(door, 1, DESCRIPTORS)
    circumstances: Circumstances = Connection(door.detach()).recv()
    circumstances.take_over()
    connection, fault_log, output, errors = descriptors
    os.dup2(output, 1)
    os.dup2(errors, 2)
    try:
        work(Connection(connection), fault_log, server, tracker=tracker, decoding=decoding)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
