"""What a video file is: its format, its first frame and its packets, and whether decord would read it rightly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.video.container import decode_stream, open_container, silent
from rts_batch.io.video.frames import Content, Damage, Report, VideoInfo
from rts_batch.io.video.packets import PacketCheck

_CONTAINERS: Final = {"mov", "mp4", "matroska", "webm"}
_CODECS: Final = {"h264"}
"""decord's old FFmpeg leaves out damaged pictures of the others without a word, or does not see where sizes change."""
_COUNTED: Final = {"h264", "hevc", "vp8", "vp9"}
"""MPEG-4 has packets that say no more than that the frame before stands."""
_PIXELS: Final = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}


@dataclass(frozen=True)
class Orientation:
    """How the stored picture has to be turned: first transposed, then flipped."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def mirrored(self) -> bool:
        return self.transposed ^ self.flip_rows ^ self.flip_columns

    @property
    def turned(self) -> int:
        """Degrees: 0, 90, 180 or 270."""
        return 90 * (2 * self.flip_rows if not self.transposed else 3 if self.flip_rows else 1)

    def apply(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an image [H, W, 3]."""
        turned = image.swapaxes(0, 1) if self.transposed else image
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


@dataclass(frozen=True)
class Probe:
    """What a look at a file's header, its first frame and, if asked for, its packets says."""

    path: str
    containers: frozenset[str]
    """FFmpeg's names of the format: one family, `{"mov", "mp4", …}` for example."""
    codec: str
    pixels: str
    video_streams: int
    orientation: Orientation
    interlaced: bool
    info: VideoInfo
    """As PyAV will give the video."""
    announced: int | None
    """Frames that the header promises."""
    times: NDArray[np.float64] | None = None
    """Presentation times in seconds of all frames, in order; None where the packets were not read."""
    damaged_packets: int = 0
    discarded_packets: int = 0
    """Packets that an edit list cuts off."""
    miscounted: str | None = None
    """Why its packets may not be its frames, one for one and in the order of their times."""
    unseen: str | None = None
    """What decord would not see in its packets: another size or orientation than the container's."""
    pixel_aspect: Fraction | None = None
    """Width of a pixel by its height, as the frames are given; None where the file does not say."""
    content: Content | None = field(default=None, compare=False)
    """Opens the bytes of a video that is no local file."""

    @property
    def decoded_size(self) -> int:
        """Bytes of all frames as RGB, as far as the header can say; 0 where it says nothing."""
        frames = len(self.times) if self.times is not None else self.info.frames
        if frames is None and self.info.fps and self.info.duration:
            frames = round(self.info.fps * self.info.duration)
        return (frames or 0) * self.info.height * self.info.width * 3

    def missing_frames(self, frames: int, last: float | None, cut_off: int) -> int:
        """How many frames fewer came than the header promises; 0 where it promises nothing.

        Args:
            frames: that came.
            last: presentation time of the last of them.
            cut_off: packets that an edit list cuts off.
        """
        info = self.info
        if self.announced is not None:
            return max(0, self.announced - cut_off - frames)
        if last is not None and info.duration and info.fps and info.duration - last > max(0.5, 3 / info.fps):
            return max(1, round((info.duration - last) * info.fps))
        return 0


def probe_file(path: str, *, packets: bool = False, report: Report = silent, content: Content | None = None) -> Probe:
    """Open a file and decode its first frame; with `packets`, read (but do not decode) all of it.

    Raises:
        VideoError: not a video, or one without a frame that can be decoded.
    """
    container, stream = open_container(path, content=content, quick=True)
    with container:
        first = next(decode_stream(container, stream, Damage(), report), None)
        if first is None:
            raise VideoError(f"{path} holds a video stream without a frame that can be decoded")
        picture = first.picture
        orientation = _orientation(picture)
        height, width = picture.height, picture.width
        if orientation.transposed:
            height, width = width, height
        rate = stream.average_rate
        # AVI counts the empty packets that let the frame before them stand.
        announced = None if container.format.name == "avi" else stream.frames or None
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or None
        probe = Probe(
            path=path,
            containers=frozenset(container.format.name.split(",")),
            codec=stream.codec_context.codec.canonical_name,
            pixels=picture.format.name,
            video_streams=len(container.streams.video),
            orientation=orientation,
            interlaced=picture.interlaced_frame,
            info=VideoInfo(
                height=height,
                width=width,
                frames=announced,
                fps=float(rate) if rate else None,
                duration=_duration(container, stream),
                decoder="pyav",
                turned=orientation.turned,
                first_time=first.time,
            ),
            announced=announced,
            pixel_aspect=1 / aspect if aspect and orientation.transposed else aspect,
            content=content,
        )
    return read_packets(probe, report) if packets else probe


def unsuitable_for_decord(probe: Probe, memory: int) -> str | None:
    """Why decord would read this file wrongly or take more than `memory` bytes; None where it is fit.

    Without `probe.times` only the header has been asked.
    """
    info = probe.info
    odd_height = (info.width if probe.orientation.transposed else info.height) % 2 == 1
    reasons = {
        f"the codec is {probe.codec}": probe.codec not in _CODECS,
        f"the pixels are {probe.pixels}": probe.pixels not in _PIXELS,
        f"it has {probe.video_streams} video streams": probe.video_streams > 1,
        "it is mirrored": probe.orientation.mirrored,
        "decord does not turn this container": probe.orientation != Orientation() and "mp4" not in probe.containers,
        "decord pads narrow pictures": min(info.height, info.width) < 32,
        "decord shifts the colours of an odd height": odd_height and "444" not in probe.pixels,
        str(probe.unseen): probe.unseen is not None,
        f"its frames take {probe.decoded_size >> 20} MiB": probe.decoded_size > memory,
    }
    return uncounted(probe) or next((reason for reason, holds in reasons.items() if holds), None)


def uncounted(probe: Probe) -> str | None:
    """Why the times of a file's packets may not be those of its frames, in their order; None where they are.

    Without `probe.times` only the header has been asked.
    """
    times = probe.times
    missing = 0
    if times is not None:
        last = float(times[-1]) if len(times) else None
        missing = probe.missing_frames(len(times), last, probe.discarded_packets)
    reasons = {
        f"the container is {', '.join(sorted(probe.containers))}": not probe.containers & _CONTAINERS,
        f"the codec is {probe.codec}": probe.codec not in _COUNTED,
        "it is interlaced": probe.interlaced,
        "an edit list cuts off frames": probe.discarded_packets > 0,
        "some packets are damaged": probe.damaged_packets > 0,
        str(probe.miscounted): probe.miscounted is not None,
        f"it has {missing} frames fewer than it announces": missing > 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def read_packets(probe: Probe, report: Report = silent) -> Probe:
    """The probe with what all packets say."""
    container, stream = open_container(probe.path, content=probe.content, quick=True)
    times: list[int] = []
    shown = damaged = discarded = 0
    check = PacketCheck(probe.codec, stream.codec_context.extradata)
    with container:
        try:
            for packet in container.demux(stream):
                report(None)
                if not packet.size:
                    continue
                check.feed(packet)
                damaged += packet.is_corrupt or packet.pts is None
                discarded += packet.is_discard
                shown += not packet.is_discard
                if packet.pts is not None and not packet.is_discard:
                    times.append(packet.pts)
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError):
            damaged += 1
        base = stream.time_base
    numbers = np.sort(np.array(times, np.int64)).astype(np.float64)
    seconds = numbers * base.numerator / base.denominator if base else numbers
    # What an edit list cuts off is announced too, but never shown.
    frames = shown if probe.announced is None else probe.announced - discarded
    return replace(
        probe,
        info=replace(probe.info, frames=frames),
        times=seconds,
        damaged_packets=damaged,
        discarded_packets=discarded,
        miscounted=check.miscounted,
        unseen=check.unseen,
    )


def _orientation(frame: VideoFrame) -> Orientation:
    """To the nearest quarter turn, from the display matrix, whose (a, b, c, d) take x, y to ax + cy, bx + dy."""
    side_data: Any = frame.side_data
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
            if abs(c) > abs(a):
                return Orientation(transposed=True, flip_rows=b < 0, flip_columns=c < 0)
            return Orientation(flip_rows=d < 0, flip_columns=a < 0)
    return Orientation()


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds; of the stream itself if it says so, else of the file where the video is all there is."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if text := stream.metadata.get("DURATION"):  # Matroska's tag, 00:00:01.000000000
        try:
            hours, minutes, seconds = text.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return None
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
