"""The frames of a video, whatever it is: a file through decord or PyAV, or a folder of images."""

from __future__ import annotations

import os
from typing import Final

from rts_batch.config import DecoderName
from rts_batch.errors import VideoError
from rts_batch.io.frames import Frame, FrameSource, VideoInfo
from rts_batch.io.video_files import DecordSource, PyavSource
from rts_batch.io.video_images import ImagesSource
from rts_batch.io.video_probe import probe_file, unsuitable_for_decord

__all__ = ["DECODE_MEMORY", "Frame", "FrameSource", "VideoInfo", "open_video"]

DECODE_MEMORY: Final = 1 << 30
"""decord decodes ahead of a slow consumer without limit, so `auto` gives it only videos that fit here as a whole."""


def open_video(
    path: str,
    *,
    decoder: DecoderName = "auto",
    start: int = 0,
    end: int | None = None,
    decode_memory: int = DECODE_MEMORY,
    threads: int = 1,
) -> FrameSource:
    """Opens a local video file or folder of images.

    Args:
        path: a local path.
        decoder: `auto` takes decord where it is exact and its read-ahead bounded, PyAV elsewhere; a name forces one.
        start: first frame to give, counted from 0.
        end: frame before which to stop; None is the video's end.
        decode_memory: bytes up to which `auto` gives a video, as decoded RGB, to decord.
        threads: of the decoder.

    Raises:
        VideoError: the path does not exist, is no video, or has no frame that can be decoded.
    """
    if not os.path.exists(path):
        raise VideoError(f"{path} does not exist")
    if os.path.isdir(path):
        return ImagesSource(path, start=start, end=end)
    if not os.path.isfile(path):
        raise VideoError(f"{path} is neither a file nor a folder")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{path} is empty")

    probe = probe_file(path, packets=decoder == "decord")

    def with_pyav(first: int) -> FrameSource:
        return PyavSource(probe, start=first, end=end, threads=threads)

    if decoder == "decord":
        return DecordSource(probe, start=start, end=end, threads=threads, fallback=None)
    if decoder == "pyav" or unsuitable_for_decord(probe, decode_memory):
        return with_pyav(start)
    probe = probe_file(path, packets=True)
    if unsuitable_for_decord(probe, decode_memory):
        return with_pyav(start)
    try:
        return DecordSource(probe, start=start, end=end, threads=threads, fallback=with_pyav)
    except VideoError as error:
        source = with_pyav(start)
        source.warnings.append(f"{error}; PyAV read it instead")
        return source
