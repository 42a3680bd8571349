"""Videos of a store that are too large for the local disk, read by ranges while they are decoded.

The decoding process has no network, so its owner reads the object and serves the bytes
(`rts_batch.io.video.isolated.contents` is the other end). A few blocks are in memory at a time, whatever the object's
size, and nothing is on disk.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Final

from rts_batch.errors import StorageError
from rts_batch.io.storage import files, trouble, uris
from rts_batch.io.storage.download import version_of
from rts_batch.io.storage.retries import retried
from rts_batch.io.video.isolated.contents import CHUNK_BYTES, QUESTION

BLOCK_BYTES: Final = 8 << 20
"""Of one request."""

BLOCKS_HELD: Final = 4
"""Enough for a header at either end of a file, and for sound and picture that lie apart."""


class RangedObject:
    """One version of an object of a store, read in blocks.

    A block is checked to be of the version that was found first, and the next one is fetched before it is asked for.

    Raises:
        StorageError: the object does not exist, or says not how large it is.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._filesystem, self._remote = files.open_filesystem(uri)
        with trouble.translated("read", uri):
            info = retried(lambda: self._filesystem.info(self._remote))
        if not info.get("size"):
            raise StorageError(f"cannot read {uris.safe_uri(uri)} by ranges: it says not how large it is")
        self.size: int = info["size"]
        self._version = version_of(info)
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="ranges")

    def read(self, start: int, length: int) -> bytes:
        """At least one and at most `length` bytes from `start` on, which lies within the object; one caller at a time.

        Raises:
            StorageError: a range cannot be read, or the object has changed (both worth trying again later).
        """
        number, place = divmod(start, BLOCK_BYTES)
        block = self._block(number)
        if place >= BLOCK_BYTES // 2 and (number + 1) * BLOCK_BYTES < self.size:
            self._block(number + 1)
        return block.result()[place : place + length]

    def _block(self, number: int) -> Future[bytes]:
        if number not in self._blocks:
            self._blocks[number] = self._pool.submit(self._fetch, number * BLOCK_BYTES)
            if len(self._blocks) > BLOCKS_HELD:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, start: int) -> bytes:
        end = min(start + BLOCK_BYTES, self.size)

        def fetch() -> bytes:
            data: bytes = self._filesystem.cat_file(self._remote, start=start, end=end)
            if len(data) != end - start:  # a body that broke off, or another object than at first
                self._check_version()
                raise OSError(f"{len(data)} of {end - start} bytes arrived")
            return data

        with trouble.translated("read", self.uri):
            data = retried(fetch)
            self._check_version()
        return data

    def _check_version(self) -> None:
        """Looked at after the bytes: what has not changed by then had not when they were sent."""
        self._filesystem.invalidate_cache()
        if version_of(retried(lambda: self._filesystem.info(self._remote))) != self._version:
            raise StorageError(f"{uris.safe_uri(self.uri)} changed while it was read", transient=True)


class ByteServer:
    """Answers the decoding process's questions for bytes, in a thread of its own, until that process is gone.

    Args:
        connection: to the process; closed in the end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._object: RangedObject | None = None
        self.failure: Exception | None = None
        """Why the present object cannot be read any further."""
        self.busy = False
        """Whether the process is waiting for bytes."""
        threading.Thread(target=self._serve, name="bytes", daemon=True).start()

    def offer(self, stored: RangedObject | None) -> None:
        """What is asked for from now on."""
        self._object, self.failure = stored, None

    def _serve(self) -> None:
        # What the process asks for is not to be trusted: another process has decoded a video of anyone's.
        with self._connection, contextlib.suppress(EOFError, OSError, struct.error):
            while True:
                question = self._connection.recv_bytes(QUESTION.size)
                self.busy = True
                answer = self._answer(*QUESTION.unpack(question))
                self.busy = False
                self._connection.send_bytes(answer)

    def _answer(self, start: int, length: int) -> bytes:
        stored = self._object
        if stored is None or start >= stored.size:
            return b""
        try:
            return stored.read(start, min(length, CHUNK_BYTES))
        except Exception as error:  # told by the owner, to whom the process's failure is only a consequence
            self.failure = error
            return b""
