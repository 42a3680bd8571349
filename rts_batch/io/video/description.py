"""What a video is and who would read it, in words: `rts-batch probe`."""

from __future__ import annotations

import os
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from rts_batch.errors import VideoError
from rts_batch.io.video.frames import VideoInfo
from rts_batch.io.video.members import is_archive
from rts_batch.io.video.opening import DECODE_MEMORY, open_video
from rts_batch.io.video.probe import Probe, probe_file, unsuitable_for_decord


def describe_video(path: str) -> dict[str, Any]:
    """Look at a local video file, or a folder or archive of images. Of a file read all packets, but decode one frame.

    Returns:
        Plain values: `kind`, `decoder` (who reads it under `auto`), `reason` (why not decord, None where it does),
        `height`, `width`, `frames`, `fps`, `duration`, `warnings` (how pictures were read; that a file's pixels are not
        square); of a file `container`, `codec`, `pixels`, `turned`, `mirrored`, `interlaced`, `video_streams`,
        `announced_frames`, `frames_in_file`, `first_time`, `damaged_packets`, `cut_off_packets`, `decoded_mib` and
        `pixel_aspect` (as `64:45`, width by height; None where the file does not say).

    Raises:
        VideoError: it is no video that can be read.
    """
    if not os.path.exists(path):
        raise VideoError(f"{path} does not exist")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise VideoError(f"{path} is empty")
    if not os.path.isfile(path) or is_archive(path):
        with open_video(path) as source:
            about = {"kind": "images", "decoder": "images", "reason": None, **_sizes(asdict(source.info))}
            return {**about, "warnings": source.warnings}
    probe = probe_file(path, packets=True)
    reason = unsuitable_for_decord(probe, DECODE_MEMORY)
    return {
        "kind": "file",
        "decoder": "pyav" if reason else "decord",
        "reason": reason,
        **_sizes(asdict(probe.info)),
        **_details(probe),
    }


def _sizes(info: dict[str, Any]) -> dict[str, Any]:
    return {name: info[name] for name in ("height", "width", "frames", "fps", "duration")}


def _details(probe: Probe) -> dict[str, Any]:
    times = [] if probe.times is None else probe.times.tolist()
    orientation, aspect = probe.orientation, probe.pixel_aspect
    return {
        "container": ", ".join(sorted(probe.containers)),
        "codec": probe.codec,
        "pixels": probe.pixels,
        "turned": orientation.turned,
        "mirrored": orientation.mirrored,
        "interlaced": probe.interlaced,
        "video_streams": probe.video_streams,
        "announced_frames": probe.announced,
        "frames_in_file": len(times) or probe.info.frames,  # a raw stream has no times
        "first_time": times[0] if times else None,
        "damaged_packets": probe.damaged_packets,
        "cut_off_packets": probe.discarded_packets,
        "decoded_mib": probe.decoded_size >> 20,
        "pixel_aspect": f"{aspect.numerator}:{aspect.denominator}" if aspect else None,
        "warnings": [_not_square(probe.info, aspect)] if aspect and aspect != 1 else [],
    }


def _not_square(info: VideoInfo, aspect: Fraction) -> str:
    size = f"{info.width}×{info.height}"
    return (
        f"its pixels are not square, {aspect.numerator}:{aspect.denominator}: players show {size} as "
        f"{round(info.width * aspect)}×{info.height}; boxes, polygons and masks are in the {size}"
    )
