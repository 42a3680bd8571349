"""What runs inside a worker's process; see `worker.process`.

Each lane has one video in hand and takes the next from a queue that they share. The first lane is the main thread, the
others are threads beside it; all have the one model.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import Queue
from types import FrameType
from typing import Final

from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.worker.lane import Lane
from rts_batch.worker.messages import Job, Ready, WorkerSettings
from rts_batch.worker.tracker import LoadedTracker

_PARENT_DEATH_SIGNAL: Final = 1


def main(
    connection: Connection,
    fault_log: int,
    parent: int,
    *,
    tracker: LoadedTracker | None = None,
    decoding: DecodingProcess | None = None,
) -> None:
    """Load the model, then track videos until the parent is gone or SIGTERM has come and none is in hand.

    Args:
        connection: by which settings and videos come, and events go.
        fault_log: descriptor of the file for the fault handler's last words.
        parent: process id.
        tracker: the model, where it is loaded already.
        decoding: the first lane's decoding process, where it is started already.
    """
    die_with(parent)
    faulthandler.enable(fault_log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the driver's
    leaving = threading.Event()
    main_thread = threading.get_ident()
    jobs: Queue[Job] = Queue()

    def leave(number: int, frame: FrameType | None) -> None:
        leaving.set()
        if not jobs.unfinished_tasks:
            sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with contextlib.suppress(EOFError, ConnectionError):
        settings: WorkerSettings = connection.recv()
        try:
            first = Lane(settings, leaving=leaving.is_set, tracker=tracker, decoding=decoding)
            others = [Lane(settings, leaving=leaving.is_set, tracker=first.tracker) for _ in range(settings.lanes - 1)]
        except Exception as error:
            connection.send("".join(traceback.format_exception_only(error)).strip())
            return
        connection.send(Ready(name=f"{socket.gethostname()}:{os.getpid()}"))
        speaking = threading.Lock()

        def work(lane: Lane) -> None:
            while True:
                job = jobs.get()
                for event in lane.run(job):
                    with speaking:
                        connection.send(event)
                jobs.task_done()
                if leaving.is_set():
                    # Whoever is the last to leave has the handler end the process. The main thread alone runs it, and
                    # must be woken for that.
                    signal.pthread_kill(main_thread, signal.SIGTERM)

        _start(_receive, connection, jobs)
        for lane in others:
            _start(work, lane)
        work(first)


def _receive(connection: Connection, jobs: Queue[Job]) -> None:
    while True:
        jobs.put(connection.recv())


def _start(target: Callable[..., None], *arguments: object) -> None:
    """Start a thread without which the process is of no use: it ends with the first of them that does."""

    def run() -> None:
        try:
            target(*arguments)
        except (EOFError, ConnectionError):
            os._exit(0)  # the parent is gone
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=run, daemon=True).start()


def die_with(parent: int) -> None:
    """No worker goes on working for an actor that was killed. Elsewhere than on Linux the closed socket tells it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), *map(int, sys.argv[2:]))
