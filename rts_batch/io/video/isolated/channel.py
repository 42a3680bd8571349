"""The process that decodes, as its owner speaks with it: started, told, listened to, and buried.

The frames come through a ring of fixed length in shared memory, the words over a socket, and the bytes of a video that
is no local file over another.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import tempfile
from multiprocessing.connection import Connection
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.io import processes
from rts_batch.io.storage.ranges import ByteServer, RangedObject
from rts_batch.io.video.isolated.child import OUT_OF_MEMORY
from rts_batch.io.video.isolated.messages import Line
from rts_batch.io.video.limits import DecodingLimits

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "OMP_NUM_THREADS")
"""All that the process gets to see of ours: no credentials are among it."""

REUSE = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""Has glibc keep a frame's memory for the next one; new memory, page by page, costs a third of decoding 1080p."""


class Died(Exception):
    """The decoding process is gone. `name` says of what; `outside` is true where it was killed and did not crash."""

    def __init__(self, name: str, *, outside: bool = False) -> None:
        self.outside = outside
        super().__init__(name)


class Channel:
    """A child process that is started when it is needed, and again when it has died."""

    def __init__(self, limits: DecodingLimits) -> None:
        self.limits = limits
        self.starts = 0
        """How often a process has been started so far."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None where there is none now."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        our_contents, their_contents = socket.socketpair()
        self._memory = _shared_memory()
        self._ring: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - what the process says last; read when it dies
        limits = (self.limits.ring_frames, self.limits.ring_bytes, self.limits.memory)
        descriptors = (theirs.fileno(), their_contents.fileno(), self._memory.fileno())
        with theirs, their_contents:
            self._process = subprocess.Popen(
                processes.python("rts_batch.io.video.isolated.child", *map(str, (*descriptors, *limits))),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                pass_fds=descriptors,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | REUSE,
            )
        self._line = Line(ours.detach())
        self._contents = ByteServer(Connection(our_contents.detach()))
        self.starts += 1

    def tell(self, message: dict[str, Any]) -> None:
        """Say something; that the process is gone shows when it is listened to, after its last words."""
        with contextlib.suppress(OSError):
            self._line.send(message)

    def hear(self, patience: float | None = None) -> dict[str, Any]:
        """Wait for the next word. Raise Died where the process is gone or hangs, ValueError at what is no message."""
        patience = self.limits.silence if patience is None else patience
        try:
            while not self._line.wait(patience):
                if self._contents.busy:  # a store that takes its time; this process gives it up or not
                    continue
                self.kill()
                raise Died(f"hung: it made no progress for {patience:g} s")
            return self._line.receive()
        except (EOFError, OSError):
            raise self._death() from None

    def ring(self, size: int) -> NDArray[np.uint8]:
        """The first `size` bytes of the ring."""
        if not 0 < size <= os.fstat(self._memory.fileno()).st_size:
            raise ValueError("the ring is not there")
        if self._ring.size < size:
            self._ring = np.frombuffer(mmap.mmap(self._memory.fileno(), size), np.uint8)
        return self._ring[:size]

    def serve(self, stored: RangedObject | None) -> None:
        """Give the process, where there is one, the bytes of this object when it asks for some."""
        if self._process is not None:
            self._contents.offer(stored)

    def check_contents(self) -> None:
        """Raise what has kept this process from serving bytes, if anything has."""
        if self._contents.failure is not None:
            raise self._contents.failure

    def kill(self) -> str:
        """End the process at once and return what it said last."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        process.kill()
        return self._bury(process)

    def _death(self) -> Died:
        """Find out what the process died of."""
        assert self._process is not None
        process, self._process = self._process, None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)  # its connection is gone, so it is on its way
        process.kill()
        words = self._bury(process)
        code = process.returncode
        if code == OUT_OF_MEMORY:
            return Died(f"needs more than {self.limits.memory >> 20} MiB of memory")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Died(f"died of {name}" + (f" ({words})" if words else ""), outside=code == -signal.SIGKILL)

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        self._line.close()
        self._memory.close()
        with self._words as words:
            words.seek(0)
            lines = words.read(20_000).decode(errors="replace").splitlines()
        return next((line.strip() for line in lines if line.startswith("Fatal") or "Error" in line), "")[:300]


def _shared_memory() -> IO[bytes]:
    """A file of no name, which no crash can leave behind; in memory where the system has such."""
    if hasattr(os, "memfd_create"):  # unlike /dev/shm, not limited to the 64 MiB that containers have there
        memory = os.memfd_create("rts-batch-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a page that is gone would end its reader
        return os.fdopen(memory, "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
