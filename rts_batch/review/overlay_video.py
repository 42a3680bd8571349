"""A video with the masks on every frame."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import StorageError, VideoError
from rts_batch.io.storage import files
from rts_batch.io.video.frames import Frame
from rts_batch.review.painting import choose_colours, paint_caption, paint_rows
from rts_batch.runs.sources import VideoSources
from rts_batch.runs.video_masks import FrameMasks, VideoMasks

CLOCK: Final = 90_000
"""Ticks of a second in an overlay video."""

USUAL_RATE: Final = Fraction(25)
"""Frames per second of what has no times: folders of images."""


def write_overlay_video(video: VideoMasks, uri: str, sources: VideoSources) -> int:
    """Write an H.264 mp4 of the frames that any target covers, with the masks on them; return how many those are.

    Presentation times are those of the video. Odd sides are made even by repeating the last row or column, so that no
    pixel moves. One frame is in memory at a time.

    Args:
        uri: where to put it; it appears there complete.

    Raises:
        StorageError: the video cannot be reached, or `uri` cannot be written.
        VideoError: the video cannot be read, has changed, or ends before its masks do.
        ResultsError: a damaged mask.
    """
    first = min((target.first_frame for target in video.targets.values()), default=video.frames_total)
    if first >= video.frames_total:
        raise VideoError("no frame of it has masks")
    with (
        tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch,
        sources.open(video.video_id, video.size, start=first, end=video.frames_total) as source,
    ):
        path = Path(scratch) / "overlay.mp4"
        rate = Fraction(source.info.fps or video.fps or USUAL_RATE).limit_denominator(1001)
        written = _encode(path, _painted(video, iter(source)), rate)
        if first + written < video.frames_total:
            raise VideoError(
                f"it ends before frame {first + written}, but has masks up to frame {video.frames_total - 1}; it has "
                "changed since it was tracked"
            )
        files.put_file(path, uri)
    return written


def _painted(video: VideoMasks, frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames with their masks on them."""
    colours = choose_colours(video.targets)
    masks = video.frames()
    due: FrameMasks | None = next(masks, None)
    for frame in frames:
        while due is not None and due.index < frame.index:
            due = next(masks, None)
        image = _even(frame.image)
        if due is not None and due.index == frame.index:
            inner = np.ascontiguousarray(image[: frame.image.shape[0], : frame.image.shape[1]])
            paint_rows(inner, due.rows, colours)
            image = _even(inner)
        paint_caption(image, f"frame {frame.index}")
        yield replace(frame, image=image)


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy with even sides, as H.264 in its usual pixel format needs them."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _encode(path: Path, frames: Iterator[Frame], rate: Fraction) -> int:
    written, last = 0, -1
    start: float | None = None
    try:
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "22"}
            stream.codec_context.time_base = Fraction(1, CLOCK)
            for frame in frames:
                if written == 0:
                    stream.height, stream.width = frame.image.shape[:2]
                    start = frame.time
                picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
                seconds = written / rate if frame.time is None or start is None else frame.time - start
                last = max(last + 1, round(seconds * CLOCK))  # times that stand still or go back would end the file
                picture.pts, picture.time_base = last, Fraction(1, CLOCK)
                container.mux(stream.encode(picture))
                written += 1
            if written:
                container.mux(stream.encode(None))
    except (av.error.FFmpegError, OSError) as error:
        raise StorageError(f"the overlay video cannot be encoded: {error}") from error
    return written
