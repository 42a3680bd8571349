"""What runs inside a worker's process; see `worker_process`."""

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
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final

from rts_batch.actors.video_worker import VideoWorker, WorkerSettings
from rts_batch.actors.worker_process import Job, Ready

_PARENT_DEATH_SIGNAL: Final = 1


def main(connection: Connection, fault_log: int, parent: int) -> None:
    """Loads the model, then tracks one video after another until the parent is gone."""
    _die_with(parent)
    faulthandler.enable(fault_log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the driver's
    leaving = threading.Event()
    busy = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        leaving.set()
        if not busy.is_set():
            sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with contextlib.suppress(EOFError, ConnectionError):
        settings: WorkerSettings = connection.recv()
        try:
            worker = VideoWorker(settings, leaving=leaving.is_set)
        except Exception as error:
            connection.send("".join(traceback.format_exception_only(error)).strip())
            return
        connection.send(Ready(name=f"{socket.gethostname()}:{os.getpid()}"))
        while True:
            job: Job = connection.recv()
            busy.set()
            for event in worker.run(job.task, job.attempt, fetched=job.fetched):
                connection.send(event)
            busy.clear()
            if leaving.is_set():
                return


def _die_with(parent: int) -> None:
    """No worker goes on working for an actor that was killed. Elsewhere than on Linux the closed socket tells it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), *map(int, sys.argv[2:]))
