"""Video files through decord: the frames that PyAV gives, where `unsuitable_for_decord` has no objection."""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.video import decoder_log
from rts_batch.io.video.container import count_errors
from rts_batch.io.video.frames import Frame, FrameRange, FrameSource, Moment
from rts_batch.io.video.probe import Probe


class _Damaged(Exception):
    """decord goes on, but its log tells of an error."""


class DecordSource(FrameSource):
    """Frames through decord; times come from the container, as decord rounds them to 32 bits.

    It decodes as far ahead as its reader lets it, up to the whole video.

    Args:
        fallback: opens the same frames with PyAV, when decord fails or its log tells of damage; None lets failures out.
    """

    def __init__(
        self,
        probe: Probe,
        wanted: FrameRange,
        *,
        threads: int,
        fallback: Callable[[], FrameSource] | None,
    ) -> None:
        if probe.times is None:
            raise ValueError("decord needs a probe with the packets' times")
        self._times = probe.times
        self._fallback = fallback
        self._reader = _open_decord(probe.path, threads)
        frames = len(self._reader)
        super().__init__(probe.path, replace(probe.info, frames=frames, decoder="decord"), wanted)
        if frames != len(self._times):
            self.warnings.append(f"decord counts {frames} frames, the file has {len(self._times)}")
            self.damage.missing_frames = max(0, len(self._times) - frames)

    def frames(self) -> Iterator[Frame]:
        indices = self.wanted.of(len(self._reader))
        if not indices:
            return
        decoder_log.take()
        index = indices.start
        try:
            for image in self._images(indices):
                if image.shape != (self.info.height, self.info.width, 3):
                    raise VideoError(f"{self.path}: decord gives frame {index} as {image.shape[1]}×{image.shape[0]}")
                count_errors(self.damage)
                if self.damage.decoder_errors and self._fallback is not None:
                    # A packet that gives no frame shifts all those after it, and of that there is no other sign.
                    raise _Damaged(self.damage.first_error)
                yield Frame(self._moment(index), image)
                index += 1
            count_errors(self.damage)
            self.warnings += self.damage.warnings()
            return
        except MemoryError:
            raise
        except Exception as error:  # decord's own class among them
            # Of damage it tells at some time before the frame comes out, the earlier the slower its reader.
            happened = "told of damage" if isinstance(error, _Damaged) else f"failed at frame {index}"
            reason = f"decord {happened}: {_short(error)}"
            if self._fallback is None:
                raise VideoError(f"{self.path}: {reason}") from error
            self.warnings.append(f"{reason}; PyAV went on from there")
        self.close()
        time = self._time(index - 1) if index > indices.start else None
        with self._fallback() as source:
            self.info = source.info
            for frame in source.frames():
                # By time and not by index, since in a damaged file the two may not count alike.
                if time is None or (frame.time is not None and frame.time > time):
                    yield replace(frame, moment=replace(frame.moment, index=index))
                    index += 1
            self.warnings += source.warnings
            self.damage = source.damage

    def _moment(self, index: int) -> Moment:
        before, time, after = (self._time(place) for place in (index - 1, index, index + 1))
        return Moment(index, time, before, after)

    def _time(self, index: int) -> float | None:
        return float(self._times[index]) if 0 <= index < len(self._times) else None

    def _images(self, indices: range) -> Iterator[NDArray[np.uint8]]:
        # decord's own ways to skip frames seek, by the order in which packets are decoded: in open groups of pictures
        # and in fragments that leads to other frames than those asked for. Only reading from the beginning counts them.
        for _ in range(indices.start):
            self._reader.next()
        for _ in indices:
            yield _view(self._reader.next())

    def close(self) -> None:
        self._reader = None


def _open_decord(path: str, threads: int) -> Any:
    try:
        import decord
    except ImportError as error:
        raise VideoError(f"decord is not installed on this machine ({error}); use --decoder auto or pyav") from None
    decord.logging.set_level(decord.logging.INFO if decoder_log.enabled() else decord.logging.QUIET)
    try:
        return decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=threads)
    except MemoryError:
        raise
    except Exception as error:
        raise VideoError(f"decord cannot read {path}: {_short(error)}") from error


def _view(array: Any) -> NDArray[np.uint8]:
    """One of decord's arrays [H, W, 3] without the copy that its `asnumpy` makes, a tenth of what decoding costs."""
    memory = array.handle.contents
    buffer = (ctypes.c_uint8 * math.prod(array.shape)).from_address(memory.data + memory.byte_offset)
    buffer.owner = array  # decord fills the memory anew once its own array is gone
    view: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8).reshape(array.shape)
    return view


def _short(error: Exception) -> str:
    """What decord says, without the places in its source and the stack behind it."""
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", str(error))
    return " ".join(text.split("Stack trace")[0].split())[:300] or type(error).__name__
