"""Videos decoded in a process of their own, so that none of them can take the worker along.

The frames come through a ring of fixed length in shared memory: its length is the read-ahead, whatever the decoder. A
crash, a hang or a video that needs too much memory ends the process and becomes a `VideoError` that names the frame
reached; the next video gets a new process. Where decord was at work, PyAV goes on from that frame.
"""

from __future__ import annotations

import os
from pathlib import Path

from rts_batch.errors import RtsBatchError
from rts_batch.io.storage import uris
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.frames import EVERY_FRAME, FrameRange, FrameSource
from rts_batch.io.video.isolated.channel import Channel
from rts_batch.io.video.isolated.messages import Request
from rts_batch.io.video.isolated.source import RemoteSource
from rts_batch.io.video.limits import DecoderName, DecodingLimits


class DecodingProcess:
    """Decodes one video after another for its owner, in a child process that is started once.

    ::

        with DecodingProcess() as process, process.open("clip.mp4") as source:
            for frame in source:
                ...
    """

    def __init__(self, limits: DecodingLimits = DecodingLimits()) -> None:  # noqa: B008 - frozen
        self._channel = Channel(limits)
        self._open: RemoteSource | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None where there is none now."""
        return self._channel.pid

    @property
    def starts(self) -> int:
        """How often a process has been started so far."""
        return self._channel.starts

    def __enter__(self) -> DecodingProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process unless it runs; `open` does so too, this only saves it the wait."""
        self._channel.start()

    def open(
        self,
        video: str | Path | RangedObject,
        wanted: FrameRange = EVERY_FRAME,
        *,
        uri: str | None = None,
        decoder: DecoderName = "auto",
        threads: int = 1,
    ) -> FrameSource:
        """Open a video as `rts_batch.io.video.opening.open_video` does. One video can be open at a time.

        An object of a store is read through this process, which serves its bytes; PyAV decodes it. `uri` says where a
        video that has been copied came from, by which messages call it.

        Raises:
            VideoError: the video cannot be read, or took the process down before its first frame.
            StorageError: an object's bytes cannot be read; so may taking frames from it.
        """
        if self._open is not None:
            raise RuntimeError(f"{self._open.path} is still open; a decoding process reads one video at a time")
        stored = video if isinstance(video, RangedObject) else None
        request = Request(
            path=uris.safe_uri(video.uri) if isinstance(video, RangedObject) else os.path.abspath(video),
            size=stored.size if stored is not None else None,
            wanted=wanted,
            decoder=decoder,
            threads=threads,
            decode_memory=self._channel.limits.decode_memory,
        )
        name = request.path if uri is None else uris.safe_uri(uri)
        self._open = RemoteSource(self._channel, request, stored, name=name, on_close=self._forget)
        try:
            self._open.begin()
        except BaseException as error:
            self._open.close()
            if not isinstance(error, RtsBatchError):
                self._channel.kill()  # an interruption, say: the process is still busy with this video
            raise
        return self._open

    def close(self) -> None:
        """End the process; `open` would start another."""
        if self._open is not None:
            self._open.close()
        self._channel.kill()

    def _forget(self) -> None:
        self._open = None
