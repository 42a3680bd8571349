"""Small real videos for tests: a textured disc moves over a textured background, and its mask is known exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Disc:
    """One moving disc: its centre goes from `start` to `end` (fractions of the frame) over the video."""

    start: tuple[float, float] = (0.3, 0.4)
    end: tuple[float, float] = (0.7, 0.6)
    radius: float = 0.18
    """Fraction of the frame's shorter side."""
    colour: tuple[int, int, int] = (230, 70, 40)


def draw(frames: int, size: Size = (160, 120), discs: Sequence[Disc] = (Disc(),)) -> Iterator[tuple[NDArray, NDArray]]:
    """Yields for each frame its image, uint8 [H, W, 3] RGB, and its masks, bool [discs, H, W].

    Discs are drawn one over another, so masks of a later disc cut into those of an earlier one.
    """
    width, height = size
    background = _texture(width, height, seed=0) // 2 + 40
    surfaces = [_texture(width, height, seed=1 + place) for place in range(len(discs))]
    rows, columns = np.ogrid[:height, :width]
    for index in range(frames):
        part = index / max(frames - 1, 1)
        image = background.copy()
        masks = np.zeros((len(discs), height, width), bool)
        for place, (disc, surface) in enumerate(zip(discs, surfaces, strict=True)):
            x, y = (
                (begin + (finish - begin) * part) * side
                for begin, finish, side in zip(disc.start, disc.end, size, strict=True)
            )
            inside = (columns - x) ** 2 + (rows - y) ** 2 <= (disc.radius * min(size)) ** 2
            masks[:, inside] = False
            masks[place] = inside
            # The texture moves with its disc, as an object's does.
            moved = np.roll(surface, (round(y), round(x)), (0, 1))[inside].astype(np.int32)
            image[inside] = np.clip(moved // 3 + np.array(disc.colour) - 40, 0, 255).astype(np.uint8)
        yield image, masks


def make_pair(folder: Path, frames: int) -> tuple[NDArray, NDArray]:
    """Writes `one.mp4` of two targets (the second away in frame 3) and `two.mp4` of one; returns their masks."""
    discs = [Disc((0.2, 0.5), (0.4, 0.5), 0.2), Disc((0.8, 0.45), (0.7, 0.55), 0.1)]
    first = make_video(folder / "one.mp4", frames, discs=discs)
    first[3, 1] = False
    return first, make_video(folder / "two.mp4", frames, discs=[Disc()])


def encoder_threads(codec: str) -> int:
    """How many threads encode: else as many as the machine has cores, and a stream depends on them."""
    return 3 if codec == "libx264" else 1


def make_video(
    path: Path | str,
    frames: int = 25,
    *,
    codec: str = "libx264",
    size: Size = (160, 120),
    fps: int | Fraction = 25,
    pixels: str = "yuv420p",
    discs: Sequence[Disc] = (Disc(),),
    times: Sequence[float] | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    aspect: Fraction | None = None,
) -> NDArray:
    """Writes a video and returns its masks, bool [frames, discs, H, W].

    Args:
        path: its ending chooses the container.
        codec: as FFmpeg names the encoder (libx264, libx265, libvpx, libvpx-vp9, mpeg4, libsvtav1 …).
        times: presentation times in seconds, for a variable frame rate.
        options: of the encoder; x264 and x265 get a fast preset by default.
        container_options: of the muxer, `movflags` for example.
        aspect: width of a pixel by its height.
    """
    masks = []
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = encoder_threads(codec)
        fast = {"preset": "veryfast"} if codec in ("libx264", "libx265") else {}
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream.options = {**fast, **quiet, **(options or {})}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()  # also where no frame follows
        for index, (image, frame_masks) in enumerate(draw(frames, size, discs)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is None:
                frame.pts = index
            else:
                frame.pts = round(times[index] * 1000)
                frame.time_base = Fraction(1, 1000)
            masks.append(frame_masks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.stack(masks) if masks else np.zeros((0, len(discs), size[1], size[0]), bool)


def make_large_video(path: Path | str, size: int, *, frame: Size = (1920, 1080), header: str = "front") -> int:
    """Writes an mp4 of about `size` bytes quickly, one noisy picture again and again, and returns its frames.

    Args:
        header: where it says what it holds, at the file's `front` or `end`.
    """
    noise = np.random.default_rng(0).integers(0, 256, (frame[1], frame[0], 3), np.uint8)
    options = {"movflags": "+faststart"} if header == "front" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height = frame
        stream.pix_fmt = "yuvj420p"
        stream.options = {"qmin": "2", "qmax": "2"}
        (packet,) = [*stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")), *stream.encode(None)]
        data, base = bytes(packet), packet.time_base
        frames = -(-size // len(data))
        for index in range(frames):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, True
            packet.pts = packet.dts = index
            packet.duration = 1
            container.mux(packet)
    return frames


def make_long_video(
    path: Path | str, frames: int, *, size: Size = (64, 48), group: int = 250, fps: int = 25
) -> NDArray:
    """Writes an mp4 of a moving disc seen by a moving, grainy camera, quickly: two groups of pictures, repeated.

    Returns the masks of those, bool [2 · group, 1, H, W]. Still, clean pictures would be decoded several times as fast.
    """
    distinct = min(2 * group, frames)
    packets, masks = [], []
    grain = np.random.default_rng(0).integers(0, 7, (size[1], size[0], 1), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "veryfast", "g": str(group), "sc_threshold": "0", "flags": "+cgop"}
        stream.codec_context.thread_count = encoder_threads("libx264")
        for index, (image, mask) in enumerate(draw(distinct, size)):
            seen = np.roll(image, (index, 2 * index), (0, 1)) + np.roll(grain, 997 * index, 1)
            picture = av.VideoFrame.from_ndarray(seen, format="rgb24")
            picture.pts = index
            masks.append(np.roll(mask, (index, 2 * index), (1, 2)))
            packets += stream.encode(picture)
        packets += stream.encode(None)
        step = round(1 / (fps * packets[0].time_base))
        for start in range(0, frames, distinct):
            for one in packets:
                packet = av.Packet(bytes(one))
                packet.stream, packet.time_base, packet.is_keyframe = stream, one.time_base, one.is_keyframe
                packet.pts, packet.dts, packet.duration = one.pts + start * step, one.dts + start * step, step
                container.mux(packet)
    return np.stack(masks)


def join(path: Path | str, *pieces: tuple[Path | str, int, int | None]) -> None:
    """Copies packets of videos one behind another, as tools do that cut and join without encoding.

    Args:
        path: its ending chooses the container.
        pieces: each a video, its first packet that is copied and the one after the last, in the file's order.
    """
    with av.open(str(path), "w") as new:
        copy = None
        begin = 0
        for source, first, end in pieces:
            with av.open(str(source)) as old:
                stream = old.streams.video[0]
                copy = copy or new.add_stream_from_template(stream)
                packets = [packet for packet in old.demux(stream) if packet.size]
                step = packets[1].dts - packets[0].dts
                shift = begin - packets[first].dts
                for packet in packets[first:end]:
                    packet.pts += shift
                    packet.dts += shift
                    begin = packet.dts + step
                    packet.stream = copy
                    new.mux(packet)


def remux(
    source: Path | str,
    path: Path | str,
    *,
    matrix: Sequence[int] | None = None,
    shift: float = 0.0,
    options: Mapping[str, str] | None = None,
) -> None:
    """Copies a video without encoding it again.

    Args:
        matrix: the display matrix a, b, c, d: x, y is shown at ax + cy, bx + dy (y downwards).
        shift: seconds added to all times; below zero in mp4, an edit list cuts off what comes before zero.
        options: of the muxer.
    """
    with av.open(str(source)) as old, av.open(str(path), "w", options=dict(options or {})) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        if matrix is not None:
            a, b, c, d = (value << 16 for value in matrix)
            copy.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for packet in old.demux(stream):
            if packet.dts is not None:
                ticks = round(shift / stream.time_base)
                packet.pts += ticks
                packet.dts += ticks
                packet.stream = copy
                new.mux(packet)


def make_audio(path: Path | str, seconds: float = 0.5) -> None:
    """Writes a sound file without a picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.zeros((1, round(16000 * seconds)), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_images(
    folder: Path, frames: int = 8, *, size: Size = (160, 120), ending: str = ".png", discs: Sequence[Disc] = (Disc(),)
) -> NDArray:
    """Writes a folder of images, `0.png` and so on without leading zeros, and returns the masks as make_video does."""
    folder.mkdir(parents=True, exist_ok=True)
    masks = []
    for index, (image, frame_masks) in enumerate(draw(frames, size, discs)):
        cv2.imwrite(str(folder / f"{index}{ending}"), image[:, :, ::-1])
        masks.append(frame_masks)
    return np.stack(masks)


def _texture(width: int, height: int, seed: int) -> NDArray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)
