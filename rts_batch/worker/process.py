"""The process that tracks, as its parent sees it (`worker.__main__` is what runs inside).

A worker's model lives in a process of its own below the Ray actor. So the actor learns how it ended (by which signal,
with which exit code, for want of memory), which Ray does not say and which decides whether the video or somebody
outside is to blame; the actor outlives it, finds out when it hangs, and answers while it is busy.

The two talk over a socket: settings and videos go down, events come up. The process has as many videos in hand as it
was given, each in a lane of its own, and its end is the end of all of them. SIGTERM asks it to leave: every lane stops
after the frame in hand and says so, and the process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Final

from rts_batch.errors import ClusterError
from rts_batch.io import processes
from rts_batch.io.cgroups import memory_kills
from rts_batch.manifest import VideoTask
from rts_batch.worker.forked import ForkedProcess
from rts_batch.worker.messages import (
    OUT_OF_MEMORY,
    Advanced,
    Event,
    Failed,
    FailureKind,
    Finished,
    Job,
    Phase,
    PhaseName,
    Ready,
    WorkerSettings,
)

FROM_OUTSIDE: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that a process does not send to itself."""

TRANSFER_PATIENCE: Final = 6
"""So many times longer may a transfer from or to storage take, which reports no progress while it lasts."""

PAUSE_SECONDS: Final = 2.0
"""The parent looks again within so long of the time that it means to, unless the whole machine stands still."""


class StartLost(ClusterError):
    """The process ended before it was ready, by something that another try may not meet."""


class WorkerProcess:
    """One process with a loaded model, seen from its parent.

    Args:
        settings: what the worker is told.
        stall_seconds: without a further frame of a video for so long, the process counts as hung and is killed.

    Raises:
        ClusterError: the process cannot load its model, and says why.
        StartLost: it was gone before it had done so.
    """

    def __init__(self, settings: WorkerSettings, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._fault_log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._kills = memory_kills()
        self._in_hand: dict[str, InLane] = {}
        self._leaving = False
        self._looks_again = 0.0
        self.used = False
        """A video has been given to it."""
        self.spoiled = False
        """Something broke in it, which may have left it in any state."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _begin(settings.fork_server, theirs.fileno(), self._fault_log.fileno())
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(settings)
            if not self._connection.poll(max(stall_seconds, 600.0)):
                raise TimeoutError
            answer = self._connection.recv()
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
    def busy(self) -> bool:
        """Whether it has a video in hand."""
        return bool(self._in_hand)

    def begin(self, job: Job) -> None:
        """Have a video tracked in a free lane; `events` says how it goes."""
        self.used = True
        if not self._in_hand:
            self._looks_again = time.monotonic()
        self._in_hand[job.task.key] = InLane(job.task)
        with contextlib.suppress(OSError):  # the process is gone, which `events` finds out
            self._connection.send(job)

    def events(self, seconds: float) -> list[Event]:
        """Wait until a video ends, but no longer than that, and return everything that has happened.

        Each video's last event is `Finished` or `Failed`, whatever becomes of the process.
        """
        events: list[Event] = []
        until = time.monotonic() + seconds
        try:
            while self._in_hand and not any(isinstance(event, Finished | Failed) for event in events):
                if not self._connection.poll(max(0.0, until - time.monotonic())):
                    break
                while self._connection.poll():
                    events.append(self._hear(self._connection.recv()))
        except (EOFError, OSError) as error:
            return [*events, *self._lost(error)]
        self._forgive_pauses(seconds)
        return [*events, *self._hung()]

    def _hear(self, event: Event) -> Event:
        if isinstance(event, Finished | Failed):
            del self._in_hand[event.key]
        else:
            self._in_hand[event.key].note(event)
        if isinstance(event, Failed) and event.kind == "crash":
            # An exception is its video's own, unless another one has broken something before, or shares the memory.
            if self.spoiled or (event.error in OUT_OF_MEMORY and self._in_hand):
                event = replace(event, kind="suspected")
            self.spoiled = True
        return event

    def _lost(self, error: BaseException) -> Iterator[Failed]:
        """The process is gone, and the videos in hand with it. Which of several is to blame cannot be told."""
        verdict = self._verdict(error)
        kind, message = verdict.kind, verdict.message
        if len(self._in_hand) > 1:
            kind = "suspected" if kind == "crash" else kind
            message = f"with {len(self._in_hand)} videos in hand: {message}"
        while self._in_hand:
            key, video = self._in_hand.popitem()
            yield Failed(key=key, kind=kind, error=verdict.error, message=message, frame=video.frames)

    def _forgive_pauses(self, seconds: float) -> None:
        """Count no time as silence in which this process did not run itself, as when its machine was suspended."""
        now = time.monotonic()
        pause = now - self._looks_again
        self._looks_again = now + seconds
        for video in self._in_hand.values():
            video.heard = min(video.heard + max(0.0, pause - PAUSE_SECONDS), now)

    def _hung(self) -> Iterator[Failed]:
        """Close the process if one of its videos makes no progress."""
        videos = list(self._in_hand.values())
        hung = [video for video in videos if video.silence > self._patience(video)]
        if not hung:
            return
        self.close()
        self._in_hand.clear()
        # What stops one lane may stop others: those that have been silent for nearly as long may be the ones to blame.
        silent = [video for video in videos if video.is_tracking and video.silence > self._stall_seconds / 2]
        blamed = silent if any(video.is_tracking for video in hung) else []
        names = ", ".join(video.task.video_id for video in hung)
        for video in videos:
            kind: FailureKind = "displaced"
            message = f"its process was closed because another video in it made no progress: {names}"
            if video in blamed or video in hung:
                # A store that does not answer is not the video's fault.
                kind = "transient" if video not in blamed else "crash" if len(blamed) == 1 else "suspected"
                seconds = min(video.silence, self._patience(video))
                message = f"no progress for {seconds:.0f} s in phase {video.phase}, after {video.frames} frames"
            yield Failed(key=video.task.key, kind=kind, error="NoProgressError", message=message, frame=video.frames)

    def _patience(self, video: InLane) -> float:
        return self._stall_seconds * (1 if video.is_tracking else TRANSFER_PATIENCE)

    def leave(self) -> None:
        """Ask the process to stop after the frames in hand."""
        self._leaving = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._connection.close()
        self._fault_log.close()

    def _verdict(self, error: BaseException) -> Verdict:
        """Whose fault the end of the process is."""
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.close()
            return Verdict("killed", type(error).__name__, f"the worker's process stopped answering ({error})")
        self._connection.close()
        out_of_memory = code == -signal.SIGKILL and memory_kills() > self._kills
        with self._fault_log:
            self._fault_log.seek(0)
            last_words = self._fault_log.read().decode(errors="replace").strip()
        if self._leaving and code == 0:
            return Verdict("preempted", "Leaving", "the worker was told to leave before the video began")
        return judge(code, last_words, out_of_memory=out_of_memory)


def _begin(fork_server: str | None, connection: int, fault_log: int) -> subprocess.Popen[bytes] | ForkedProcess:
    """Begin a worker's process, as a copy of the fork server where there is one."""
    if fork_server is not None:
        with contextlib.suppress(OSError):
            return ForkedProcess(fork_server, connection, fault_log)
    return subprocess.Popen(
        processes.python("rts_batch.worker", *map(str, (connection, fault_log, os.getpid()))),
        pass_fds=(connection, fault_log),
        stdin=subprocess.DEVNULL,
        env=processes.environment(),
    )


@dataclass(eq=False)
class InLane:
    """A video in the process's hands, as far as the process has told."""

    task: VideoTask
    phase: PhaseName = "fetch"
    frames: int = 0
    heard: float = field(default_factory=time.monotonic)

    def note(self, event: Event) -> None:
        self.heard = time.monotonic()
        if isinstance(event, Phase):
            self.phase = event.phase
        elif isinstance(event, Advanced):
            self.frames = event.frames

    @property
    def is_tracking(self) -> bool:
        return self.phase == "track"

    @property
    def silence(self) -> float:
        return time.monotonic() - self.heard


@dataclass(frozen=True)
class Verdict:
    kind: FailureKind
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
