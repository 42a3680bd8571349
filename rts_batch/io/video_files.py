"""Video files through PyAV and decord.

Both give the same frames for the files that `unsuitable_for_decord` lets pass; docs/video.md has the measurements.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.frames import Frame, FrameSource, VideoInfo

__all__ = ["DecordSource", "Probe", "PyavSource", "probe_file", "unsuitable_for_decord"]

_CONTAINERS: Final = {"mov", "mp4", "matroska", "webm"}
_CODECS: Final = {"h264", "hevc", "vp8", "vp9", "mpeg4"}
_PIXELS: Final = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}


@dataclass(frozen=True)
class Probe:
    """What a look at a file's header, its first frame and, if asked for, its packets says."""

    path: str
    containers: frozenset[str]
    """FFmpeg's names of the format: one family, `{"mov", "mp4", …}` for example."""
    codec: str
    pixels: str
    video_streams: int
    rotation: int
    """Degrees counter-clockwise to turn the stored picture by: 0, 90, 180 or 270."""
    mirrored: bool
    interlaced: bool
    info: VideoInfo
    """As PyAV will give the video."""
    times: NDArray[np.float64] | None = None
    """Presentation times in seconds of all frames, in order; None where the packets were not read."""
    damaged_packets: int = 0
    discarded_packets: int = 0
    """Packets that an edit list cuts off."""

    @property
    def decoded_size(self) -> int:
        """Bytes of all frames as RGB, as far as the header can say; 0 where it says nothing."""
        frames = len(self.times) if self.times is not None else self.info.frames
        if frames is None and self.info.fps and self.info.duration:
            frames = round(self.info.fps * self.info.duration)
        return (frames or 0) * self.info.height * self.info.width * 3


def probe_file(path: str, *, packets: bool = False) -> Probe:
    """Opens a file and decodes its first frame; with `packets`, reads (but does not decode) all of it.

    Raises:
        VideoError: not a video, or one without a frame that can be decoded.
    """
    container, stream = _open(path)
    with container:
        first = next(_frames(path, container, stream, _Damage()), None)
        if first is None:
            raise VideoError(f"{path} holds a video stream without a frame that can be decoded")
        rotation, mirrored = _orientation(first)
        height, width = (first.width, first.height) if rotation in (90, 270) else (first.height, first.width)
        rate = stream.average_rate
        probe = Probe(
            path=path,
            containers=frozenset(container.format.name.split(",")),
            codec=stream.codec_context.codec.canonical_name,
            pixels=first.format.name,
            video_streams=len(container.streams.video),
            rotation=rotation,
            mirrored=mirrored,
            interlaced=first.interlaced_frame,
            info=VideoInfo(
                height=height,
                width=width,
                frames=stream.frames or None,
                fps=float(rate) if rate else None,
                duration=_duration(container, stream),
                decoder="pyav",
            ),
        )
    return _read_packets(probe) if packets else probe


def unsuitable_for_decord(probe: Probe, memory: int) -> str | None:
    """Why decord would read this file wrongly or take more than `memory` bytes; None where it is fit.

    Without `probe.times` only the header has been asked.
    """
    info = probe.info
    family = ", ".join(sorted(probe.containers))
    odd_height = (info.width if probe.rotation in (90, 270) else info.height) % 2 == 1
    reasons = {
        f"the container is {family}": not probe.containers & _CONTAINERS,
        f"the codec is {probe.codec}": probe.codec not in _CODECS,
        f"the pixels are {probe.pixels}": probe.pixels not in _PIXELS,
        f"it has {probe.video_streams} video streams": probe.video_streams > 1,
        "it is interlaced": probe.interlaced,
        "it is mirrored": probe.mirrored,
        "decord does not rotate this container": probe.rotation != 0 and "mp4" not in probe.containers,
        "decord shifts the colours of an odd height": odd_height and probe.pixels in ("yuv420p", "yuvj420p"),
        "an edit list cuts off frames": probe.discarded_packets > 0,
        "some packets are damaged or missing": probe.damaged_packets > 0
        or (probe.times is not None and len(probe.times) != info.frames),
        f"its frames take {probe.decoded_size >> 20} MiB": probe.decoded_size > memory,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class PyavSource(FrameSource):
    """Frames through PyAV, which opens what FFmpeg opens and decodes no further ahead than it is asked."""

    def __init__(self, probe: Probe, *, start: int, end: int | None, threads: int) -> None:
        super().__init__(probe.path, probe.info, start, end)
        self._probe = probe
        self._container, self._stream = _open(probe.path)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = threads

    def _decode(self) -> Iterator[Frame]:
        damage = _Damage()
        reformatter = VideoReformatter()
        index, time = -1, None
        for index, frame in enumerate(_frames(self.path, self._container, self._stream, damage)):
            if self.end is not None and index >= self.end:
                self._report(damage, None)
                return
            time = frame.time
            if index >= self.start:
                yield Frame(index, time, self._convert(frame, index, reformatter))
        self._report(damage, (index + 1, time))

    def _convert(self, frame: VideoFrame, index: int, reformatter: VideoReformatter) -> NDArray[np.uint8]:
        image: NDArray[Any] = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        rotation, mirrored = self._probe.rotation, self._probe.mirrored
        if mirrored:
            image = image[:, ::-1]
        image = np.ascontiguousarray(np.rot90(image, rotation // 90))
        if image.shape != (self.info.height, self.info.width, 3):
            height, width, _ = image.shape
            raise VideoError(
                f"{self.path}: frame {index} is {width}×{height} pixels, the video began with "
                f"{self.info.width}×{self.info.height}; cut it where its size changes"
            )
        return image

    def _report(self, damage: _Damage, end: tuple[int, float | None] | None) -> None:
        """Adds what is damaged to the warnings; `end` is the number of frames and the last one's time, once known."""
        if damage.frames:
            self.warnings.append(f"{damage.frames} corrupt frames, the first of them frame {damage.first}")
        if damage.packets:
            self.warnings.append(f"{damage.packets} packets could not be decoded")
        if damage.stopped:
            self.warnings.append(f"the file breaks off: {damage.stopped}")
        if end is None:
            return
        frames, time = end
        announced = self.info.frames
        if announced is not None and frames < announced - (damage.discarded if self._probe.times is None else 0):
            self.warnings.append(f"{frames} frames instead of the {announced} that the file announces")
        elif announced is None and time is not None and self.info.duration and self.info.fps:
            missing = self.info.duration - time
            if missing > max(0.5, 3 / self.info.fps):
                self.warnings.append(f"the frames end {missing:.1f} s before the {self.info.duration:.1f} s announced")

    def close(self) -> None:
        self._container.close()


class DecordSource(FrameSource):
    """Frames through decord; times come from the container, as decord rounds them to 32 bits.

    Args:
        fallback: opens the video with PyAV at a frame, when decord fails; None lets the failure out.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        start: int,
        end: int | None,
        threads: int,
        fallback: Callable[[int], FrameSource] | None,
    ) -> None:
        if probe.times is None:
            raise ValueError("decord needs a probe with the packets' times")
        self._times = probe.times
        self._fallback = fallback
        self._reader = _open_decord(probe.path, threads)
        frames = len(self._reader)
        super().__init__(probe.path, replace(probe.info, frames=frames, decoder="decord"), start, end)
        if frames != len(self._times):
            self.warnings.append(f"decord counts {frames} frames, the file has {len(self._times)}")

    def _decode(self) -> Iterator[Frame]:
        stop = len(self._reader) if self.end is None else min(self.end, len(self._reader))
        if self.start >= stop:
            return
        index = self.start
        try:
            if self.start:
                self._reader.skip_frames(self.start)
            for index in range(self.start, stop):
                image = self._reader.next().asnumpy()
                if image.shape != (self.info.height, self.info.width, 3):
                    raise VideoError(f"{self.path}: decord gives frame {index} as {image.shape[1]}×{image.shape[0]}")
                yield Frame(index, float(self._times[index]) if index < len(self._times) else None, image)
            return
        except (RuntimeError, StopIteration, VideoError) as error:
            reason = f"decord failed at frame {index}: {error}"
            if self._fallback is None:
                raise VideoError(f"{self.path}: {reason}") from error
            self.warnings.append(f"{reason}; PyAV went on from there")
        self.close()
        with self._fallback(index) as source:
            self.info = source.info
            yield from source._decode()
            self.warnings += source.warnings

    def close(self) -> None:
        self._reader = None


@dataclass
class _Damage:
    frames: int = 0
    first: int | None = None
    packets: int = 0
    discarded: int = 0
    stopped: str = ""


def _open(path: str) -> tuple[InputContainer, VideoStream]:
    try:
        # An absolute path, so that no file name is taken for a protocol, and no file may name another host.
        container = av.open(os.path.abspath(path), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path} is not a video that can be read: {_text(error)}") from error
    try:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
            kinds = " and ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"
            raise VideoError(f"{path} holds no video, only {kinds}")
        if stream.codec_context is None:
            raise VideoError(f"{path} holds a video whose codec is not known")
    except BaseException:
        container.close()
        raise
    return container, stream


def _frames(path: str, container: InputContainer, stream: VideoStream, damage: _Damage) -> Iterator[VideoFrame]:
    """Decodes to the end whatever happens, and counts what was wrong."""
    index = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            damage.stopped, packet = _text(error), None
        damage.discarded += packet is not None and packet.is_discard
        try:
            frames = stream.codec_context.decode(packet) if packet is None or packet.size else packet.decode()
        except av.error.EOFError:
            frames = []
        except (av.error.FFmpegError, OSError):
            damage.packets += 1
            frames = []
        for frame in frames:
            if frame.is_corrupt:
                damage.frames += 1
                damage.first = index if damage.first is None else damage.first
            yield frame
            index += 1
        if packet is None or not packet.size:
            return


def _read_packets(probe: Probe) -> Probe:
    container, stream = _open(probe.path)
    times: list[int] = []
    damaged = discarded = 0
    with container:
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                damaged += packet.is_corrupt or packet.pts is None
                discarded += packet.is_discard
                if packet.pts is not None and not packet.is_discard:
                    times.append(packet.pts)
        except (av.error.FFmpegError, OSError):
            damaged += 1
        base = stream.time_base
    numbers = np.sort(np.array(times, np.int64)).astype(np.float64)
    seconds = numbers * base.numerator / base.denominator if base else numbers
    # What an edit list cuts off is announced too, but never shown.
    announced = len(times) if probe.info.frames is None else probe.info.frames - discarded
    return replace(
        probe,
        info=replace(probe.info, frames=announced),
        times=seconds,
        damaged_packets=damaged,
        discarded_packets=discarded,
    )


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Rotation in degrees counter-clockwise, to the nearest quarter turn, and whether to mirror first."""
    side_data: Any = frame.side_data
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(np.float64)
            if a * d - b * c < 0:
                # Mirrored left to right and then turned: undo the mirror to read the turn.
                return round(np.degrees(np.arctan2(b, -a)) / 90) * 90 % 360, True
    return round(frame.rotation / 90) * 90 % 360, False


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


def _open_decord(path: str, threads: int) -> Any:
    try:
        import decord
    except ImportError as error:
        raise VideoError(f"decord is not installed on this machine ({error}); use --decoder auto or pyav") from None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=threads)
    except RuntimeError as error:
        raise VideoError(f"decord cannot read {path}: {error}") from error


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
