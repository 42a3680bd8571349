"""The decoding process itself: opens the videos that its owner names and writes their frames to a shared ring.

It starts in a third of a second (nothing here imports PyTorch or Ray), has no credentials in its environment, no
connection but the one to its owner, and ends with it.
"""

from __future__ import annotations

import faulthandler
import functools
import mmap
import os
import resource
import select
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import RtsBatchError
from rts_batch.io.video import decoder_log
from rts_batch.io.video.frames import Frame, FrameSource, Moment
from rts_batch.io.video.isolated.contents import open_served
from rts_batch.io.video.isolated.messages import Line, Request
from rts_batch.io.video.limits import DecodingLimits
from rts_batch.io.video.opening import open_video
from rts_batch.io.video.sought import Entrance

OUT_OF_MEMORY: Final = 77
"""Exit code of a process that took more memory than it may."""

WATCH_SECONDS: Final = 0.05
BURST: Final = 1 << 30
"""Bytes that may be allocated between two looks at the memory before the system itself refuses more."""

GATHER_SECONDS: Final = 0.002
"""Frames that are ready sooner than this after a message wait for the next one; each wakes the owner."""


class _Stopped(Exception):
    """The owner wants no more of this video."""


class DecodingChild:
    """Serves its owner until that hangs up.

    Args:
        line: to the owner.
        contents: to the owner as well, for the bytes of videos that are no local files.
        memory: file descriptor of the memory that holds the ring; this process sets its size.
        limits: what this process may take.
    """

    def __init__(self, line: Line, contents: Connection, memory: int, limits: DecodingLimits) -> None:
        self._line = line
        self._contents = contents
        self._memory = memory
        self._limits = limits
        self._entrance = Entrance()
        self._ring = np.zeros(0, np.uint8)
        self._free = 0
        self._ready: list[Moment] = []
        """Frames in the ring that the owner does not know of yet."""
        self._last_frames = 0.0
        self._last_word = time.monotonic()
        self._saying = threading.Lock()

    def serve(self) -> None:
        while True:
            message = self._line.receive()
            if message["do"] == "stop":  # the video had ended by itself
                self._say({"is": "stopped"})
            elif message["do"] == "open":
                self._read_video(Request.of(message))

    def _read_video(self, request: Request) -> None:
        content = None
        if request.size is not None:
            name = os.path.basename(request.path)
            content = functools.partial(open_served, self._contents, name=name, size=request.size)
        try:
            with open_video(
                request.path,
                request.wanted,
                decoder=request.decoder,
                decode_memory=request.decode_memory,
                threads=request.threads,
                content=content,
                report=self._report,
                entrance=self._entrance,
            ) as source:
                self._deliver(source)
        except _Stopped:
            self._say({"is": "stopped"})
        except (EOFError, BrokenPipeError, ConnectionError):
            raise
        except RtsBatchError as error:
            self._fail("VideoError", str(error))
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            self._fail(type(error).__name__, str(error))

    def _deliver(self, source: FrameSource) -> None:
        info = source.info
        size = info.height * info.width * 3
        slots = max(2, min(self._limits.ring_frames, self._limits.ring_bytes // size))
        if self._ring.size < size * slots:  # memory that has been used is faster than new
            os.ftruncate(self._memory, size * slots)
            self._ring = np.frombuffer(mmap.mmap(self._memory, size * slots), np.uint8)
        ring = self._ring[: size * slots].reshape(slots, info.height, info.width, 3)
        self._free = slots
        self._say({"is": "opened", "info": asdict(info), "slots": slots})
        try:
            self._fill(ring, source)
        finally:
            self._offer()  # what was ready before an error, say
        found = {"info": asdict(source.info), "warnings": source.warnings, "damage": asdict(source.damage)}
        self._say({"is": "end", **found})

    def _fill(self, ring: NDArray[np.uint8], source: FrameSource) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="ring") as pool:  # copies one frame while the next is decoded
            before: Future[None] | None = None
            for count, finish in enumerate(source.unfinished()):
                if before is not None:
                    before.result()
                self._take_slot()
                before = pool.submit(self._put, finish, ring[count % len(ring)])
            if before is not None:
                before.result()

    def _put(self, finish: Callable[[], Frame], slot: NDArray[np.uint8]) -> None:
        frame = finish()
        slot[...] = frame.image
        self._ready.append(frame.moment)
        if time.monotonic() - self._last_frames > GATHER_SECONDS:
            self._offer()

    def _offer(self) -> None:
        """Tell the owner of the frames that are ready."""
        if self._ready:
            self._say({"is": "frames", "frames": [astuple(moment) for moment in self._ready]})
            self._ready = []
            self._last_frames = time.monotonic()

    def _take_slot(self) -> None:
        """Hear what the owner has said, and wait until a slot is free; no frame is under way then."""
        if not self._free:
            self._offer()
        while self._line.wait(0 if self._free else None):
            message = self._line.receive()
            if message["do"] == "stop":
                raise _Stopped
            self._free += message["slots"]
        self._free -= 1

    def _report(self, decoder: str | None) -> None:
        """Tell the owner that there is progress, or which decoder is about to be used."""
        if decoder is not None:
            self._say({"is": "trying", "decoder": decoder})
        elif time.monotonic() - self._last_word > 1:
            self._last_word = time.monotonic()
            self._say({"is": "alive"})

    def _say(self, message: dict[str, Any]) -> None:
        with self._saying:
            self._line.send(message)

    def _fail(self, error: str, message: str) -> None:
        self._say({"is": "error", "error": error, "message": message[-4000:]})


def main() -> None:
    """The arguments are `connection contents memory ring_frames ring_bytes memory_limit`.

    Standard input ends with the owner.
    """
    connection, contents, memory, ring_frames, ring_bytes, limit = (int(argument) for argument in sys.argv[1:])
    faulthandler.enable()
    decoder_log.enable()
    threading.Thread(target=_keep_watch, args=(limit,), daemon=True).start()
    limits = DecodingLimits(ring_frames=ring_frames, ring_bytes=ring_bytes, memory=limit)
    try:
        DecodingChild(Line(connection), Connection(contents), memory, limits).serve()
    except (EOFError, OSError):
        os._exit(0)  # the owner has hung up


def _keep_watch(memory: int) -> None:
    """End the process with its owner, and when it takes more than `memory` bytes beyond what it has now.

    A thread can do that even while a decoder is at work in C. Standard input is a pipe that the owner holds open while
    it lives. Decoders take a failed allocation for a damaged frame, so a limit by the system alone would be silent.
    """
    most = _memory("RssAnon") + memory
    if most > memory:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _memory("VmData") + memory + BURST
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    while not select.select([0], [], [], WATCH_SECONDS)[0]:
        if _memory("RssAnon") > most > memory:
            os._exit(OUT_OF_MEMORY)
    os._exit(0)


def _memory(name: str) -> int:
    """Bytes of this process's memory of one kind; 0 where the system does not say (Linux does)."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(f"{name}:")) * 1024
    except (OSError, StopIteration):
        return 0


if __name__ == "__main__":
    main()
