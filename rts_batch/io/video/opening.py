"""The frames of a video, whatever it is: a file through decord or PyAV, or a folder of images."""

from __future__ import annotations

import os
from typing import Final

from rts_batch.errors import VideoError
from rts_batch.io.video import decoder_log
from rts_batch.io.video.backward import BackwardSource
from rts_batch.io.video.decord import DecordSource
from rts_batch.io.video.frames import EVERY_FRAME, Content, Damage, Frame, FrameRange, FrameSource, Report, VideoInfo
from rts_batch.io.video.images import ImagesSource
from rts_batch.io.video.limits import DecoderName, DecodingLimits
from rts_batch.io.video.members import is_archive
from rts_batch.io.video.probe import probe_file, read_packets, uncounted, unsuitable_for_decord
from rts_batch.io.video.pyav import PyavSource
from rts_batch.io.video.sought import Entrance

__all__ = ["DECODE_MEMORY", "EVERY_FRAME", "Damage", "Frame", "FrameRange", "FrameSource", "VideoInfo", "open_video"]

DECODE_MEMORY: Final = DecodingLimits.decode_memory


def open_video(
    path: str,
    wanted: FrameRange = EVERY_FRAME,
    *,
    decoder: DecoderName = "auto",
    decode_memory: int = DECODE_MEMORY,
    threads: int = 1,
    content: Content | None = None,
    report: Report = lambda decoder: None,
    entrance: Entrance | None = None,
) -> FrameSource:
    """Open a local video file, or a folder or archive (zip, tar) of images.

    Videos are decoded in this very process; for files that nobody vouches for see
    `rts_batch.io.video.isolated.process`.

    Args:
        path: a local path.
        wanted: which frames to give, and in which order.
        decoder: `auto` takes decord where it is exact and its read-ahead bounded, and only where its log can be read
            (`decoder_log`), PyAV elsewhere. `decord` takes it without its log too, and lets its failures out; a file
            that it is not fit for PyAV reads all the same, with a warning. Backward, outward, and from `start_time`
            on, PyAV reads, whatever it says.
        decode_memory: bytes up to which decord gets a video, as decoded RGB.
        threads: of the decoder.
        content: opens the bytes of a video that is no local file, which PyAV reads, whatever `decoder` says; `path` is
            only its name then.
        report: is told of progress.
        entrance: keeps open what is entered in its middle, to be closed with it.

    Raises:
        VideoError: the path does not exist, is no video, or has no frame that can be decoded.
    """
    if content is not None:
        decoder = "pyav"
    elif not os.path.exists(path):
        raise VideoError(f"{path} does not exist")
    elif os.path.isdir(path) or (os.path.isfile(path) and os.path.getsize(path) and is_archive(path)):
        return ImagesSource(path, wanted, report=report)
    elif not os.path.isfile(path):
        raise VideoError(f"{path} is neither a file nor a folder")
    elif os.path.getsize(path) == 0:
        raise VideoError(f"{path} is empty")

    report("pyav")
    if not wanted.backward and (wanted.around or wanted.start_time is not None):
        return (entrance or Entrance()).open(path, wanted, threads=threads, content=content, report=report)
    probe = probe_file(path, report=report, content=content)
    if wanted.backward:
        return BackwardSource(probe, wanted, threads=threads, report=report)

    def with_pyav() -> FrameSource:
        report("pyav")
        return PyavSource(probe, wanted, threads=threads, report=report)

    if decoder == "pyav":
        return with_pyav()
    if uncounted(probe) is None and probe.decoded_size <= decode_memory:
        probe = read_packets(probe, report)
    reason = unsuitable_for_decord(probe, decode_memory)
    if reason is not None:
        return _instead(with_pyav(), f"decord is not fit for this file ({reason})" if decoder == "decord" else None)
    if decoder == "auto" and not decoder_log.enabled():
        return with_pyav()
    report("decord")
    try:
        return DecordSource(probe, wanted, threads=threads, fallback=with_pyav if decoder == "auto" else None)
    except VideoError as error:
        if decoder == "decord":
            raise
        return _instead(with_pyav(), str(error))


def _instead(source: FrameSource, reason: str | None) -> FrameSource:
    if reason is not None:
        source.warnings.append(f"{reason}; PyAV read it instead")
    return source
