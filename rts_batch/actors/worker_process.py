"""The process that tracks, as its parent sees it (`worker_main` is what runs inside).

A worker's model lives in a process of its own below the Ray actor. So the actor learns how it ended (by which signal,
with which exit code, for want of memory), which Ray does not say and which decides whether the video or somebody
outside is to blame; the actor outlives it, finds out when it hangs, and answers while it is busy.

The two talk over a socket: settings and videos go down, events come up. SIGTERM asks the process to leave: it stops
after the frame in hand, says so, and ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from rts_batch.actors.progress import Event, Failed, Finished, Phase
from rts_batch.actors.video_worker import WorkerSettings
from rts_batch.errors import ClusterError
from rts_batch.manifest import VideoTask

FROM_OUTSIDE: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that a process does not send to itself."""

TRANSFER_PATIENCE: Final = 6
"""So many times longer may a transfer from or to storage take, which reports no progress while it lasts."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What goes down to the process, after the settings."""

    task: VideoTask
    attempt: int
    fetched: str | None


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What comes up first; a string instead says why the model cannot be loaded."""

    name: str


class StartLost(ClusterError):
    """The process ended before it was ready, by something that another try may not meet."""


class WorkerProcess:
    """One process with a loaded model, seen from its parent.

    Args:
        settings: what the worker is told.
        stall_seconds: without a further frame for so long, the process counts as hung and is killed.

    Raises:
        ClusterError: the process cannot load its model, and says why.
        StartLost: it was gone before it had done so.
    """

    def __init__(self, settings: WorkerSettings, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._fault_log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._kills = _memory_kills()
        self.used = False
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "rts_batch.actors.worker_main",
                    *map(str, (theirs.fileno(), self._fault_log.fileno(), os.getpid())),
                ],
                pass_fds=(theirs.fileno(), self._fault_log.fileno()),
                stdin=subprocess.DEVNULL,
                # What the driver or Ray put on the path of this process, the other needs too.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(settings)
            answer = self._receive(max(stall_seconds, 600.0))
        except (EOFError, OSError, TimeoutError) as error:
            raise StartLost(f"the worker's process did not start: {self._verdict(error).message}") from error
        if not isinstance(answer, Ready):
            self.close()
            raise ClusterError(str(answer))
        self.name = answer.name

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def has_event(self) -> bool:
        """Whether the running video's next event is there already."""
        with contextlib.suppress(OSError):
            return self._connection.poll()
        return False

    def run(self, task: VideoTask, attempt: int, *, fetched: str | None = None) -> Iterator[Event]:
        """Has a video tracked. The last event is `Finished` or `Failed`, whatever becomes of the process."""
        self.used = True
        phase, frame, patience = "fetch", None, self._stall_seconds
        try:
            self._connection.send(Job(task=task, attempt=attempt, fetched=fetched))
            while True:
                event = self._receive(patience)
                if isinstance(event, Phase):
                    phase = event.phase
                    patience = self._stall_seconds * (1 if phase == "track" else TRANSFER_PATIENCE)
                frame = getattr(event, "frames", None) or frame
                yield event
                if isinstance(event, Finished | Failed):
                    return
        except TimeoutError:
            self.close()
            message = f"no progress for {patience:.0f} s in phase {phase}, after {frame or 0} frames"
            # A store that does not answer is not the video's fault.
            kind: Any = "crash" if phase == "track" else "transient"
            yield Failed(key=task.key, kind=kind, error="NoProgressError", message=message, frame=frame)
        except (EOFError, OSError) as error:
            verdict = self._verdict(error)
            yield Failed(key=task.key, kind=verdict.kind, error=verdict.error, message=verdict.message, frame=frame)

    def leave(self) -> None:
        """Asks the process to stop after the frame in hand."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._connection.close()
        self._fault_log.close()

    def _receive(self, seconds: float) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError
        return self._connection.recv()

    def _verdict(self, error: BaseException) -> Verdict:
        """Whose fault the end of the process is."""
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.close()
            return Verdict("killed", type(error).__name__, f"the worker's process stopped answering ({error})")
        self._connection.close()
        out_of_memory = code == -signal.SIGKILL and _memory_kills() > self._kills
        with self._fault_log:
            self._fault_log.seek(0)
            last_words = self._fault_log.read().decode(errors="replace").strip()
        return judge(code, last_words, out_of_memory=out_of_memory)


@dataclass(frozen=True)
class Verdict:
    kind: Any
    error: str
    message: str


def judge(code: int, last_words: str, *, out_of_memory: bool) -> Verdict:
    """What the end of a process with a video in hand says about that video.

    Args:
        code: as `Popen.returncode` has it: a signal's number, negative, or an exit code.
        last_words: what the fault handler wrote.
        out_of_memory: the kernel killed it for want of memory.
    """
    if out_of_memory:
        return Verdict("crash", "OutOfMemoryError", "the kernel killed the worker's process: its memory was used up")
    if code >= 0:
        return Verdict("crash", "ExitError", f"the worker's process ended itself with exit code {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code in FROM_OUTSIDE:
        return Verdict("killed", name, f"the worker's process was killed from outside with {name}")
    return Verdict("crash", name, f"the worker's process died of {name}\n{last_words[:2000]}".strip())


def _memory_kills() -> int:
    """How often the kernel has killed a process of this container for want of memory; 0 where it does not say."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0
