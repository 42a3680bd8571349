"""What every source of frames gives: `VideoInfo`, `Frame` and the `FrameSource` that yields them in order."""

from __future__ import annotations

import abc
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError

Report = Callable[[str | None], None]
"""Called with a decoder's name when that is about to be used, and with None whenever there is progress."""


Content = Callable[[], io.BufferedReader]
"""Opens the bytes of a video that is no local file, to read and to seek in."""


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
    turned: int = 0
    """Degrees by which the file has its stored pictures turned before they are shown; 90 and 270 exchange the sides."""
    first_time: float | None = None
    """Presentation time of frame 0 in seconds, in many files not 0; None where frames have no times."""


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Which frames of a video are wanted, and in which order."""

    start: int = 0
    """Counted from the video's first frame, 0."""
    end: int | None = None
    """Exclusive; None is the video's end."""
    backward: bool = False
    """From the one before `end` down to `start`; `rts_batch.io.video.backward` says what that costs."""
    last_time: float | None = None
    """Seconds; reading backward begins no earlier than with the frame that is nearest to it."""
    start_time: float | None = None
    """Seconds at which frame `start` is shown, where that is known: PyAV, reading forward, enters a file there and not
    at its beginning, unless the file shows no frame then."""
    around: int = 0
    """For who looks at frame `start` and its neighbours: up to so many frames before it that are decoded on the way to
    it come too. The order is outward then: `start`, the frame before it, the one after it, …, and the frames after
    those. Where `start_time` is not known, the file's packets are asked for it (`rts_batch.io.video.sought`)."""

    def __post_init__(self) -> None:
        if self.around and self.backward:
            raise ValueError("frames come backward or outward, not both")
        if self.start < 0:
            raise ValueError(f"frames are counted from 0, and the first one wanted is {self.start}")

    def has(self, index: int) -> bool:
        return index >= self.start and not self.is_past(index)

    def is_past(self, index: int) -> bool:
        return self.end is not None and index >= self.end

    def of(self, frames: int) -> range:
        """The wanted indices of a video of so many frames, in the order of reading, but for `around`."""
        indices = range(self.start, frames if self.end is None else min(self.end, frames))
        return indices[::-1] if self.backward else indices

    def outward(self, frames: int) -> list[int]:
        """The same with those `around`, in their order."""
        indices = self.of(frames)
        before = range(self.start - 1, max(0, self.start - self.around) - 1, -1) if indices else range(0)
        pairs = zip_longest(before, indices[1:])
        return [*indices[:1], *(index for pair in pairs for index in pair if index is not None)]


EVERY_FRAME: Final = FrameRange()


@dataclass(frozen=True, slots=True)
class Moment:
    """When a frame is shown."""

    index: int
    """Counted from the video's first frame, whichever are wanted."""
    time: float | None
    """Presentation time in seconds, from the stream's own time base; None for images."""
    before: float | None = None
    """That of the frame before it in the video, whether wanted or not; None for the video's first frame."""
    after: float | None = None
    """That of the frame after it; None for the video's last frame."""

    @staticmethod
    def halfway(one: float, next_one: float) -> float:
        """The last time that is no nearer to the second of two frames; a microsecond more, as times have few digits."""
        return (one + next_one) / 2 + 1e-6

    def side(self, time: float) -> int:
        """Where the frame is that is nearest to a time: 0 is this one, -1 an earlier one, 1 a later one.

        Of two that are as near it is the one shown then, the earlier.
        """
        if self.time is None:
            raise ValueError("a frame without a time is near to none")
        if self.before is not None and time <= self.halfway(self.before, self.time):
            return -1
        return int(self.after is not None and time > self.halfway(self.time, self.after))


@dataclass(frozen=True, slots=True)
class Frame:
    moment: Moment
    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""

    @property
    def index(self) -> int:
        return self.moment.index

    @property
    def time(self) -> float | None:
        return self.moment.time


@dataclass
class Damage:
    """What is wrong with a video that could be read all the same."""

    missing_frames: int = 0
    """Fewer frames than the file announces; an estimate where it announces only its duration."""
    corrupt_frames: int = 0
    """Frames that the decoder marks as corrupt."""
    first_corrupt: int | None = None
    """Index of the first of them."""
    lost_packets: int = 0
    """Packets that gave an error instead of frames, and of transport streams those that are broken or missing."""
    decoder_errors: int = 0
    """Lines in which the decoder's log tells of errors; those inside frames it patches over. They are counted in the
    decoding process alone (`rts_batch.io.video.isolated.process`)."""
    first_error: str = ""
    """What the log says first."""
    disordered_times: int = 0
    """Frames whose presentation time is missing, or earlier than that of the frame before."""
    first_disordered: int | None = None
    """Index of the first of them."""
    stopped: str = ""
    """Why the file could not be read to its end."""
    cut_off_packets: int = 0
    """Packets that an edit list cuts off; no damage, but the header counts them."""

    def __bool__(self) -> bool:
        return bool(self.warnings())

    def merged(self, earlier: Damage) -> Damage:
        """Return what this reading of a video and an earlier one have found together.

        This one may have begun in the middle, and may or may not have seen what lies before.
        """
        return Damage(
            missing_frames=max(self.missing_frames, earlier.missing_frames),
            corrupt_frames=max(self.corrupt_frames, earlier.corrupt_frames),
            first_corrupt=self.first_corrupt if earlier.first_corrupt is None else earlier.first_corrupt,
            lost_packets=max(self.lost_packets, earlier.lost_packets),
            decoder_errors=max(self.decoder_errors, earlier.decoder_errors),
            first_error=earlier.first_error or self.first_error,
            disordered_times=max(self.disordered_times, earlier.disordered_times),
            first_disordered=self.first_disordered if earlier.first_disordered is None else earlier.first_disordered,
            stopped=earlier.stopped or self.stopped,
            cut_off_packets=max(self.cut_off_packets, earlier.cut_off_packets),
        )

    def warnings(self) -> list[str]:
        """One sentence for each kind."""
        texts = {
            f"{self.missing_frames} frames fewer than the file announces": self.missing_frames,
            f"{self.corrupt_frames} corrupt frames, the first of them frame {self.first_corrupt}": self.corrupt_frames,
            f"{self.lost_packets} packets are lost or could not be decoded": self.lost_packets,
            f"the decoder tells of errors {self.decoder_errors} times, first: {self.first_error}": self.decoder_errors,
            f"{self.disordered_times} frames have no time, or one before that of the frame before; the first is frame "
            f"{self.first_disordered}": self.disordered_times,
            f"the file breaks off: {self.stopped}": self.stopped,
        }
        return [text for text, holds in texts.items() if holds]


class FrameSource(abc.ABC):
    """The wanted frames of one video, once, in order of presentation.

    ::

        with open_video("clip.mp4") as source:
            for frame in source:
                ...
    """

    info: VideoInfo
    warnings: list[str]
    """What was wrong with the video but did not stop it; complete once the frames have been read."""
    damage: Damage
    """The same in numbers, as far as it can be counted."""
    lends = False
    """Whether what `frames` gives is overwritten when the next frame is taken."""

    def __init__(self, path: str, info: VideoInfo, wanted: FrameRange) -> None:
        self.path = path
        self.info = info
        self.warnings = []
        self.damage = Damage()
        self.wanted = wanted

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, whose images are the taker's own.

        Raises:
            VideoError: the video cannot be decoded any further, or has no frame at `start`.
        """
        for frame in self.lent():
            flags = frame.image.flags
            own = flags.c_contiguous and flags.writeable and not self.lends
            yield frame if own else replace(frame, image=frame.image.copy())

    def lent(self) -> Iterator[Frame]:
        """Yield the frames as iterating does, but uncopied, for who is done with one before taking the next.

        By then, and once the source is closed, an image may hold another picture; it may be turned, padded or
        read-only.
        """
        last: Frame | None = None
        for last in self.frames():
            yield last
        if last is None:
            length = f"{self.info.frames} frames" if self.info.frames is not None else "too few frames"
            raise VideoError(f"{self.path} has no frame {self.wanted.start} to start from: it has {length}")

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield the frames as `lent` does, but none where the video ends before the first that is wanted."""

    def unfinished(self) -> Iterator[Callable[[], Frame]]:
        """Yield for each of `frames` what is left to be done, which another thread may do while this one goes on."""
        for frame in self.frames():

            def whole(frame: Frame = frame) -> Frame:
                return frame

            yield whole

    def close(self) -> None:  # noqa: B027
        """Give back what the source holds; it can be called twice."""
