"""Videos decoded in a process of their own, so that none of them can take the worker along.

The frames come through a ring of fixed length in shared memory: its length is the read-ahead, whatever the decoder. A
crash, a hang or a video that needs too much memory ends the process and becomes a `VideoError` that names the frame
reached; the next video gets a new process. Where decord was at work, PyAV goes on from that frame.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.config import DecoderName, DecodingLimits
from rts_batch.errors import RtsBatchError, VideoError
from rts_batch.io.decoding_child import OUT_OF_MEMORY
from rts_batch.io.decoding_messages import receive, send
from rts_batch.io.frames import Damage, Frame, FrameSource, VideoInfo
from rts_batch.io.storage import safe_uri
from rts_batch.io.streaming import ByteServer, RangedObject

__all__ = ["DecodingProcess"]

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from rts_batch.io.decoding_child import main; main()"
)

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "OMP_NUM_THREADS")
"""All that the process gets to see of ours: no credentials are among it."""

_REUSE = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""Has glibc keep a frame's memory for the next one; new memory, page by page, costs a third of decoding 1080p."""

STOP_SECONDS = 5.0
"""How long a process may take to leave a video that nobody wants any more; then it is replaced."""


class _Died(Exception):
    """The process is gone. `name` says of what; `outside` is true where it was killed and did not crash."""

    def __init__(self, name: str, *, outside: bool = False) -> None:
        self.outside = outside
        super().__init__(name)


class DecodingProcess:
    """Decodes one video after another for its owner, in a child process that is started once.

    ::

        with DecodingProcess() as process, process.open("clip.mp4") as source:
            for frame in source:
                ...
    """

    def __init__(self, limits: DecodingLimits = DecodingLimits()) -> None:  # noqa: B008 - frozen
        self.limits = limits
        self.starts = 0
        """How often a process has been started so far."""
        self._process: subprocess.Popen[bytes] | None = None
        self._open: _RemoteSource | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None where there is none now."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> DecodingProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Starts the process unless it runs; `open` does so too, this only saves it the wait."""
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
                [
                    *(sys.executable, "-c", _START),
                    *map(str, (*descriptors, *limits)),
                    json.dumps(sys.path),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                pass_fds=descriptors,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _REUSE,
            )
        self._connection = Connection(ours.detach())
        self._contents = ByteServer(Connection(our_contents.detach()))
        self.starts += 1

    def open(
        self,
        video: str | Path | RangedObject,
        *,
        decoder: DecoderName = "auto",
        start: int = 0,
        end: int | None = None,
        stride: int = 1,
        backward: bool = False,
        last_time: float | None = None,
        threads: int = 1,
    ) -> FrameSource:
        """Opens a video as `rts_batch.io.video.open_video` does. One video can be open at a time.

        An object of a store is read through this process, which serves its bytes; PyAV decodes it.

        Raises:
            VideoError: the video cannot be read, or took the process down before its first frame.
            StorageError: an object's bytes cannot be read; so may taking frames from it.
        """
        if self._open is not None:
            raise RuntimeError(f"{self._open.path} is still open; a decoding process reads one video at a time")
        stored = video if isinstance(video, RangedObject) else None
        request = {
            "path": safe_uri(video.uri) if isinstance(video, RangedObject) else os.path.abspath(video),
            "size": stored.size if stored is not None else None,
            "decoder": decoder,
            "start": start,
            "end": end,
            "stride": stride,
            "backward": backward,
            "last_time": last_time,
            "threads": threads,
            "decode_memory": self.limits.decode_memory,
        }
        self._open = _RemoteSource(self, request, stored)
        try:
            self._open.begin()
        except BaseException as error:
            self._open.close()
            if not isinstance(error, RtsBatchError):
                self.kill()  # an interruption, say: the process is still busy with this video
            raise
        return self._open

    def close(self) -> None:
        """Ends the process; `open` would start another."""
        if self._open is not None:
            self._open.close()
        self.kill()

    # What an open video does with the process.

    def tell(self, message: dict[str, Any]) -> None:
        """Says something; that the process is gone shows when it is listened to, after its last words."""
        with contextlib.suppress(OSError):
            send(self._connection, message)

    def hear(self, patience: float | None = None) -> dict[str, Any]:
        """Waits for the next word. Raises _Died where the process is gone or hangs, ValueError where it babbles."""
        patience = self.limits.silence if patience is None else patience
        try:
            while not self._connection.poll(patience):
                if self._contents.busy:  # a store that takes its time; this process gives it up or not
                    continue
                self.kill()
                raise _Died(f"hung: it made no progress for {patience:g} s")
            return receive(self._connection)
        except (EOFError, OSError):
            raise self._death() from None

    def ring(self, size: int) -> NDArray[np.uint8]:
        """The first `size` bytes of the ring."""
        if not 0 < size <= os.fstat(self._memory.fileno()).st_size:
            raise ValueError("the ring is not there")
        if self._ring.size < size:
            self._ring = np.frombuffer(mmap.mmap(self._memory.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
        return self._ring[:size]

    def serve(self, stored: RangedObject | None) -> None:
        """Gives the process the bytes of this object when it asks for some."""
        self._contents.offer(stored)

    def check_contents(self) -> None:
        """Raises what has kept this process from serving bytes, if anything has."""
        if self._contents.failure is not None:
            raise self._contents.failure

    def released(self) -> None:
        self._open = None
        if self._process is not None:
            self.serve(None)

    def kill(self) -> str:
        """Ends the process at once and returns what it said last."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        process.kill()
        return self._bury(process)

    def _death(self) -> _Died:
        """Finds out what the process died of."""
        assert self._process is not None
        process, self._process = self._process, None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)  # its connection is gone, so it is on its way
        process.kill()
        words = self._bury(process)
        code = process.returncode
        if code == OUT_OF_MEMORY:
            return _Died(f"needs more than {self.limits.memory >> 20} MiB of memory")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _Died(f"died of {name}" + (f" ({words})" if words else ""), outside=code == -signal.SIGKILL)

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        self._connection.close()
        self._memory.close()
        with self._words as words:
            words.seek(0)
            lines = words.read(20_000).decode(errors="replace").splitlines()
        return next((line.strip() for line in lines if line.startswith("Fatal") or "Error" in line), "")[:300]


class _RemoteSource(FrameSource):
    """A video whose frames come from the decoding process."""

    def __init__(self, process: DecodingProcess, request: dict[str, Any], stored: RangedObject | None) -> None:
        # `info` is known once `begin` has heard from the process.
        super().__init__(
            request["path"],
            VideoInfo(0, 0, None, None, None, "pyav"),
            request["start"],
            request["end"],
            request["stride"],
        )
        self._process = process
        self._request = request
        self._stored = stored
        self._backward: bool = request["backward"]
        self._next: int | None = self.end if self._backward else self.start
        """Where to go on: the next frame's index, read backward the last one's."""
        self._trying = ""
        self._restarts = 0
        self._slots: NDArray[np.uint8] = np.zeros((0, 0, 0, 0), np.uint8)
        self._under_way = False

    def begin(self) -> None:
        """Has the process open the video."""
        while not self._under_way:
            try:
                with self._nonsense():
                    self._begin()
            except _Died as death:  # noqa: PERF203 - it happens a few times at most
                self._recover(death)

    def _begin(self) -> None:
        self._process.start()
        self._process.serve(self._stored)
        self._process.tell({"do": "open", **self._request})
        message = self._hear()
        self.info = VideoInfo(**message["info"])
        shape = (message["slots"], self.info.height, self.info.width, 3)
        self._slots = self._process.ring(math.prod(shape)).reshape(shape)
        self._under_way = True

    def frames(self) -> Iterator[Frame]:
        slot = 0
        while True:
            try:
                with self._nonsense():
                    message = self._hear()
                    if message["is"] == "end":
                        self._under_way = False
                        self.info = VideoInfo(**message["info"])
                        self.warnings += message["warnings"]
                        self.damage = Damage(**message["damage"])
                        return
                    frame = Frame(message["index"], message["time"], self._slots[slot % len(self._slots)].copy())
                    self._next = frame.index if self._backward else frame.index + self.stride
                self._process.tell({"do": "free"})
            except _Died as death:
                self._recover(death)
                self.begin()
                slot = 0
                continue
            slot += 1
            yield frame

    def _hear(self) -> dict[str, Any]:
        """The next message that says something about the video."""
        while True:
            message = self._process.hear()
            if message.get("is") in ("error", "end"):
                self._check_contents()
            match message.get("is"):
                case "alive":
                    pass
                case "trying":
                    self._trying = str(message["decoder"])
                case "error" if message["error"] == "VideoError":
                    self._under_way = False
                    raise VideoError(message["message"])
                case "error":
                    self._process.kill()  # an unexpected error may have left it in any state
                    raise _Died(f"failed with {message['error']} ({message['message']})")
                case "opened" | "frame" | "end":
                    return message
                case other:
                    raise ValueError(other)

    def _check_contents(self) -> None:
        """A video whose bytes did not come is not to blame for how it ended."""
        try:
            self._process.check_contents()
        except Exception:
            self._under_way = False
            raise

    @contextlib.contextmanager
    def _nonsense(self) -> Iterator[None]:
        """Takes a message that cannot be for the end of the process that sent it."""
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            self._process.kill()
            raise _Died(f"sent a message that cannot be ({error!r})") from None

    def _recover(self, death: _Died) -> None:
        """Prepares another try from the frame reached, or raises VideoError where there is none."""
        self._under_way = False
        where = "the beginning" if self._next is None else f"frame {self._next}"
        reason = f"{self._trying or 'the decoder'} {death} at {where}"
        if death.outside and self._restarts < self._process.limits.restarts:
            self._restarts += 1
            self.warnings.append(f"the decoding process was killed at {where}; another one went on from there")
        elif self._trying == "decord" and self._request["decoder"] == "auto":
            self._request["decoder"] = "pyav"
            self.warnings.append(f"{reason}; PyAV went on from there")
        else:
            raise VideoError(f"{self.path}: {reason}") from None
        if self._next is not None:
            self._request |= {"end" if self._backward else "start": self._next, "last_time": None}

    def close(self) -> None:
        if self._under_way:
            self._under_way = False
            with contextlib.suppress(_Died), self._nonsense():
                self._process.tell({"do": "stop"})
                while self._process.hear(STOP_SECONDS).get("is") != "stopped":
                    pass
        self._slots = np.zeros((0, 0, 0, 0), np.uint8)
        self._process.released()


def _shared_memory() -> IO[bytes]:
    """A file of no name, which no crash can leave behind; in memory where the system has such."""
    if hasattr(os, "memfd_create"):  # unlike /dev/shm, not limited to the 64 MiB that containers have there
        return os.fdopen(os.memfd_create("rts-batch-frames"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
