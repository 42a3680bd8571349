"""Frames of a video as JPEG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from rts_batch.errors import StorageError, VideoError
from rts_batch.io.video.frames import FrameSource
from rts_batch.runs.video_masks import VideoMasks

JPEG_QUALITY = 95


def write_frames(source: FrameSource, images: Sequence[tuple[int, str]], folder: Path, video: VideoMasks) -> int:
    """Write frames to their places in the folder and return how many images that were.

    Args:
        source: opened at the first of these frames.
        images: index of the frame and path in the folder; a frame may be wanted at several places.

    Raises:
        VideoError: the video is not the one that was tracked, or ends before its last frame.
    """
    places: dict[int, list[str]] = {}
    for index, place in images:
        places.setdefault(index, []).append(place)
    height, width = video.size
    for frame in source:
        wanted = places.pop(frame.index, [])
        if wanted and frame.image.shape[:2] != (height, width):
            shown = f"{frame.image.shape[1]}×{frame.image.shape[0]}"
            raise VideoError(
                f"video {video.video_id!r}: {video.uri} has frames of {shown} pixels, its masks {width}×{height}; it "
                "has changed since it was tracked"
            )
        for place in wanted:
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not with OpenCV's own `imwrite`, which cannot take every name on every system.
            _, jpeg = cv2.imencode(".jpg", frame.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            try:
                path.write_bytes(jpeg.tobytes())
            except OSError as error:
                raise StorageError(f"cannot write {path}: {error}", transient=True) from error
        if not places:
            break
    if places:
        raise VideoError(
            f"video {video.video_id!r}: {video.uri} has no frame {min(places)}, for which there are masks; it has "
            "changed since it was tracked. Export without the frames, or put the video back"
        )
    return len(images)
