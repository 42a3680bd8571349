"""Single frames of videos, read in the decoding process: the one asked for, and those around it, which come next."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.video.frames import Frame, FrameRange, FrameSource, VideoInfo
from rts_batch.io.video.isolated.process import DecodingProcess
from rts_batch.io.video.spool import bring
from rts_batch.runs.sources import other_size

JPEG_BYTES: Final = 96 << 20
IMAGE_BYTES: Final = 192 << 20
"""What the caches hold, of JPEG and of decoded frames."""

JPEG_QUALITY: Final = 88

MUCH: Final = 1.25
"""A picture so many times as wide as it is shown is made smaller before it is sent; encoding is what takes longest."""

AHEAD: Final = 32
"""Frames that are read and left out rather than that the file is entered again."""

AROUND: Final = 64
AROUND_BYTES: Final = 256 << 20
"""Frames before a place that is jumped to, which are decoded on the way there, that are kept while they are not asked
for, at most: whoever looks for where a label went wrong steps back next."""

THREADS: Final = max(1, min(4, os.cpu_count() or 1))
"""Of the decoder: somebody is waiting."""

VIDEOS: Final = 3
"""Videos of a store that are kept on disk."""


@dataclass(frozen=True)
class Source:
    """A video as the catalogue knows it."""

    uri: str
    size: tuple[int, int] | None
    """Height and width that its frames must have; None takes any."""
    time_of: Callable[[int], float | None]
    """When a frame is shown, in seconds, where that is known."""


Key = tuple[str, int] | tuple[str, int, int | None]
"""Video and frame, of a JPEG also the width that was asked for."""


class _Cache:
    """The values used last, up to a number of bytes; at least one. For several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, bytes | NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> bytes | NDArray[np.uint8] | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: Key, value: bytes | NDArray[np.uint8]) -> None:
        with self._lock:
            old = self._held.pop(key, None)
            self._bytes += _size(value) - (0 if old is None else _size(old))
            self._held[key] = value
            while self._bytes > self._most and len(self._held) > 1:
                _, gone = self._held.popitem(last=False)
                self._bytes -= _size(gone)


def _size(value: bytes | NDArray[np.uint8]) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes


def _around(size: tuple[int, int] | None) -> int:
    """How many frames of this height and width are kept before one that is jumped to, as the decoder gives them."""
    height, width = size or (0, 0)
    return min(AROUND, AROUND_BYTES // (2 * height * width)) if height * width else AROUND // 4


def _encoded(image: NDArray[np.uint8], index: int, width: int | None) -> bytes:
    done, data = cv2.imencode(".jpg", _narrowed(image, width)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise VideoError(f"frame {index} cannot be encoded as JPEG")
    return data.tobytes()


def _narrowed(image: NDArray[np.uint8], width: int | None) -> NDArray[np.uint8]:
    """A picture made smaller, where it is much wider than is asked for; it stays as wide at least."""
    if width is None:
        return image
    if times := image.shape[1] // width // 2 * 2:  # means of whole pixels take a tenth of those of parts
        size = image.shape[1] // times, max(1, image.shape[0] // times)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if image.shape[1] > MUCH * width:
        size = width, max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image


class _Coming:
    """Which frames a source that was entered at one still gives: neighbours in turn, before it and after it."""

    def __init__(self, entered: int, around: int) -> None:
        self._entered = entered
        self._before = range(max(0, entered - around), entered)
        self._next = entered
        self._last: int | None = None

    def came(self, index: int) -> None:
        if index < self._entered:
            self._before = range(self._before.start, index)
        else:
            if self._last is not None and self._last >= self._entered:  # two of those after it: no more before it
                self._before = range(0)
            self._next = index + 1
        self._last = index

    def has(self, index: int) -> bool:
        """Whether a frame comes, and soon enough to wait for it."""
        return index in self._before or self._next <= index <= self._next + AHEAD


class FrameReader:
    """Reads frames by index, for several threads: what is kept at once, the rest one after another.

    Use it as a context manager.

    Args:
        locate: the source of a video, by its name.
    """

    def __init__(self, locate: Callable[[str], Source]) -> None:
        self._locate = locate
        self._lock = threading.Lock()
        self._process = DecodingProcess()
        self._scratch = tempfile.TemporaryDirectory(prefix="rts-batch-")
        self._near: OrderedDict[str, Path | RangedObject] = OrderedDict()
        self._jpegs, self._images = _Cache(JPEG_BYTES), _Cache(IMAGE_BYTES)
        self._video: str | None = None
        self._coming = _Coming(0, 0)
        self._source: FrameSource | None = None
        self._frames: Iterator[Frame] = iter(())

    def __enter__(self) -> FrameReader:
        self._process.start()  # which takes a while; somebody will ask for a frame soon
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._leave()
            self._process.close()
            self._scratch.cleanup()

    def jpeg(self, video: str, index: int, width: int | None = None) -> bytes:
        """Return a frame as JPEG, with the errors of `image`.

        Args:
            video: its name.
            index: of the frame.
            width: of the picture in pixels, about, where it need not have all of the frame's.
        """
        found = self._jpegs.get((video, index, width))
        if found is None:
            found = _encoded(self.image(video, index), index, width)
            self._jpegs.put((video, index, width), found)
        assert isinstance(found, bytes)
        return found

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        """Return a frame, [H, W, 3] RGB.

        Raises:
            StorageError: the video cannot be reached.
            VideoError: it cannot be read, has no such frame, or is not the one that was tracked.
        """
        found = self._images.get((video, index))
        if found is None:
            with self._lock:
                found = self._images.get((video, index))  # somebody else may have read it meanwhile
                if found is None:
                    found = self._read(video, index)
        assert isinstance(found, np.ndarray)
        return found

    def images(self, video: str, first: int, count: int) -> Iterator[NDArray[np.uint8]]:
        """Yield frames one after another, fewer where the video ends, with the errors of `image`."""
        yield self.image(video, first)
        with contextlib.suppress(VideoError):
            for index in range(first + 1, first + count):
                yield self.image(video, index)

    def info(self, video: str) -> VideoInfo:
        """Return what the file says of itself, or its packets do of their number; errors as of `image`."""
        with self._lock:
            if self._video != video or self._source is None:
                self._enter(video, 0)
            assert self._source is not None
            if self._source.info.frames is None:
                for index in (1, 0):  # a later frame is looked for in the packets, which are counted then
                    self._enter(video, index)
            return self._source.info

    def _read(self, video: str, index: int) -> NDArray[np.uint8]:
        """Read up to a frame, and put it and those on the way, which may be asked for next, into the cache."""
        if self._video != video or not self._coming.has(index):
            self._enter(video, index)
        try:
            while (frame := next(self._frames, None)) is not None:
                self._coming.came(frame.index)
                self._images.put((video, frame.index), frame.image)
                if frame.index == index:
                    return frame.image
                if not self._coming.has(index):  # it was not on the way to the frame that was jumped to
                    self._enter(video, index)
        except BaseException:
            self._leave()
            raise
        self._leave()
        raise VideoError(f"the video has no frame {index}")

    def _enter(self, video: str, index: int) -> None:
        """Open a video so that the frame comes first, and then its neighbours."""
        self._leave()
        place = self._locate(video)
        wanted = FrameRange(index, start_time=place.time_of(index) if index else None, around=_around(place.size))
        source = self._process.open(self._bring(video, place.uri), wanted, uri=place.uri, threads=THREADS)
        found = source.info.height, source.info.width
        if place.size not in (None, (0, 0), found):
            source.close()
            assert place.size is not None
            raise other_size(video, source.info, place.size)
        self._video, self._coming, self._source, self._frames = (
            video,
            _Coming(index, wanted.around),
            source,
            iter(source),
        )

    def _leave(self) -> None:
        if self._source is not None:
            self._source.close()
        self._video, self._source, self._frames = None, None, iter(())

    def _bring(self, video: str, uri: str) -> Path | RangedObject:
        if video not in self._near:
            folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
            self._near[video] = bring(uri, folder)
            if len(self._near) > VIDEOS:
                _, gone = self._near.popitem(last=False)
                if isinstance(gone, Path) and Path(self._scratch.name) in gone.parents:
                    shutil.rmtree(gone.parent, ignore_errors=True)
        near = self._near[video]
        if isinstance(near, Path) and not near.exists():
            del self._near[video]
            raise VideoError(f"{near} is not there any more")
        return near
