"""What every source of frames gives: `VideoInfo`, `Frame` and the `FrameSource` that yields them in order."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError

__all__ = ["Frame", "FrameSource", "Report", "VideoInfo"]

Report = Callable[[str | None], None]
"""Called with a decoder's name when that is about to be used, and with None whenever there is progress."""


@dataclass(frozen=True)
class VideoInfo:
    height: int
    """Of the frames as they are given, that is after rotation, in pixels."""
    width: int
    frames: int | None
    """Length of the whole video as the file announces it; the frames that come may be fewer. None: it does not say."""
    fps: float | None
    """Average frames per second."""
    duration: float | None
    """Seconds."""
    decoder: Literal["decord", "pyav", "images"]


@dataclass(frozen=True, slots=True)
class Frame:
    index: int
    """Counted from the video's first frame, whatever `start` is."""
    time: float | None
    """Presentation time in seconds, from the stream's own time base; None for images."""
    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""


class FrameSource(abc.ABC):
    """The frames of one video from `start` to `end` (exclusive), once, in order of presentation.

    ::

        with open_video("clip.mp4") as source:
            for frame in source:
                ...
    """

    info: VideoInfo
    warnings: list[str]
    """What was wrong with the video but did not stop it; complete once the frames have been read."""

    def __init__(self, path: str, info: VideoInfo, start: int, end: int | None) -> None:
        self.path = path
        self.info = info
        self.warnings = []
        self.start = start
        self.end = end

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames.

        Raises:
            VideoError: the video cannot be decoded any further, or has no frame at `start`.
        """
        last: Frame | None = None
        for last in self.frames():
            yield last
        if last is None:
            length = f"{self.info.frames} frames" if self.info.frames is not None else "too few frames"
            raise VideoError(f"{self.path} has no frame {self.start} to start from: it has {length}")

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yields the frames from `start` to `end`, as iterating does, but none where the video ends before `start`."""

    def close(self) -> None:  # noqa: B027
        """Gives back what the source holds; it can be called twice."""
