"""A video file opened by FFmpeg's libraries: formats of a list only, and decoded to its end whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rts_batch.errors import VideoError
from rts_batch.io.video import decoder_log
from rts_batch.io.video.frames import Content, Damage, Moment, Report
from rts_batch.io.video.times import Clock, Decoded

# What may be opened at all. FFmpeg knows several hundred formats and codecs, among them playlists that name other files
# and hosts, and many that nobody has looked at for years.
_DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "vvc",
    "av1", "obu", "ivf", "gif", "apng", "flv", "asf", "ogg", "mxf", "dv", "mjpeg", "rawvideo", "yuv4mpegpipe", "nut",
)  # fmt: skip
_DECODERS: Final = (
    "h264", "hevc", "vvc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "mpeg4", "mpeg1video",
    "mpeg2video", "mpegvideo", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "msmpeg4v3", "h263", "h263p", "flv", "flv1", "wmv1",
    "wmv2", "wmv3", "vc1", "mjpeg", "mjpegb", "prores", "dnxhd", "cfhd", "dvvideo", "ffv1", "huffyuv", "ffvhuff",
    "utvideo", "theora", "gif", "apng", "png", "qtrle", "rawvideo", "v210", "jpeg2000", "webp",
)  # fmt: skip


_OPTIONS: Final = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(_DEMUXERS),
    # Sound is never decoded; its decoders are only named so that the search for the streams' parameters may use them.
    "codec_whitelist": ",".join(_DECODERS),
}


Opened = tuple[InputContainer, VideoStream]


def silent(decoder: str | None) -> None:
    pass


def open_container(
    path: str, threads: int = 1, *, content: Content | None = None, seeks: bool = False, quick: bool = False
) -> Opened:
    """Open a video file.

    FFmpeg decodes a frame to find out what the stream is, which takes as long as ten others where it is a key frame of
    1080p. Where its packets' times do not depend on that, `quick` leaves it out; the pixels' format is not known then.

    Args:
        path: a local path, or only the name of what `content` opens.
        threads: of the decoder.
        content: opens the bytes of a video that is no local file.
        seeks: whether the container will be sought in.
        quick: for who only looks at a video.
    """
    try:
        # An absolute path, so that no file name is taken for a protocol, and no file may name another host.
        file: Any = os.path.abspath(path) if content is None else content()
        # FFmpeg looks for all fragments of a fragmented mp4 when it opens one, to seek in it later. That would read all
        # of an object, so without seeking they are taken as they come.
        as_they_come = content is not None and not seeks and file.peek(8)[4:8] == b"ftyp"
        look_only = quick and content is None and _is_mp4(path)
        options = _OPTIONS | ({"fflags": "+ignidx"} if as_they_come else {"skip_frame": "all"} if look_only else {})
        container = av.open(file, metadata_errors="replace", options=options)
    except MemoryError:  # also FFmpeg's; says nothing about the file
        raise
    except av.error.ArgumentError as error:  # FFmpeg's word for what is not on the list
        raise VideoError(f"{path} is not a video of a format that is read here: {_text(error)}") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path} is not a video that can be read: {_text(error)}") from error
    try:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
            kinds = " and ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"
            raise VideoError(f"{path} holds no video, only {kinds}")
        if stream.codec_context is None:
            raise VideoError(f"{path} holds a video whose codec is not known")
        if stream.codec_context.codec.name not in _DECODERS:
            raise VideoError(f"{path}: videos of the codec {stream.codec_context.codec.name} are not read here")
    except BaseException:
        container.close()
        raise
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return container, stream


def _is_mp4(path: str) -> bool:
    """mp4 and mov alone say all of a stream, and of each packet's times, without decoding."""
    with open(path, "rb") as file:
        return file.read(8)[4:] == b"ftyp"


def decode_stream(
    container: InputContainer,
    stream: VideoStream,
    damage: Damage,
    report: Report = silent,
    *,
    whole_from: int | None = None,
) -> Iterator[Decoded]:
    """Decode to the end whatever happens, and count in `damage` what was wrong.

    Frames of H.264 that are shown before `whole_from`, in the stream's time base, are left out where no other frame is
    predicted from them; that is half of what x264 makes by default.
    """
    context = stream.codec_context
    index = 0
    packets = container.demux(stream)
    clock = Clock(stream, container.format.name, damage)
    at_end = False
    decoder_log.take()  # of whatever was read before
    while not at_end:
        packet = None
        report(None)
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            damage.stopped = _text(error)
        # The last packet is empty: it takes out of the decoder what it still holds, as None does after an error.
        at_end = packet is None or not packet.size
        damage.cut_off_packets += packet is not None and packet.is_discard
        if packet is not None and packet.size:
            clock.feed(packet)
            context.skip_frame = "NONREF" if _may_be_left_out(packet, stream, whole_from) else "DEFAULT"
        try:
            frames = context.decode(packet)
        except av.error.EOFError:
            return
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError):
            damage.lost_packets += 1
            if packet is not None:
                clock.drop(packet)
            decoder_log.take()  # says the same
            continue
        count_errors(damage)
        for frame in frames:
            if frame.is_corrupt:
                damage.corrupt_frames += 1
                damage.first_corrupt = index if damage.first_corrupt is None else damage.first_corrupt
            yield Decoded(frame, clock.time(frame))
            index += 1
    clock.end()


def _may_be_left_out(packet: av.Packet[VideoStream], stream: VideoStream, whole_from: int | None) -> bool:
    """Whether nobody wants the frame of a packet, unless others need it: only H.264 says that exactly."""
    early = whole_from is not None and packet.pts is not None and packet.pts < whole_from
    return early and stream.codec_context.codec.canonical_name == "h264"


def with_neighbours(frames: Iterable[Decoded]) -> Iterator[tuple[VideoFrame, Moment]]:
    """Each frame from the video's beginning on with its index and times; a frame is held until the next has come."""
    before: float | None = None
    held: Decoded | None = None
    index = -1
    for index, following in enumerate(frames):
        if held is not None:
            yield held.picture, Moment(index - 1, held.time, before, following.time)
            before = held.time
        held = following
    if held is not None:
        yield held.picture, Moment(index, held.time, before)


def count_errors(damage: Damage) -> None:
    """Add what the decoders have logged since the last time."""
    errors = decoder_log.take()
    damage.decoder_errors += len(errors)
    damage.first_error = damage.first_error or next(iter(errors), "")


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
