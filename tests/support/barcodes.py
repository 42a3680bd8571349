"""Videos whose frames say their own number: eight blocks along the top edge, black for 0 and white for 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.support.videos import encoder_threads

WIDTH, HEIGHT = 192, 128
BLOCK = WIDTH // 8


def draw_number(number: int) -> NDArray[np.uint8]:
    """A frame [HEIGHT, WIDTH, 3] with a number below 256, over a texture."""
    coarse = np.random.default_rng(number).integers(40, 100, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    image = coarse.repeat(8, 0).repeat(8, 1)
    for bit in range(8):
        image[:16, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 20
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """The number of a frame, whatever a codec has made of it."""
    return sum(int(image[4:12, bit * BLOCK + 4 : (bit + 1) * BLOCK - 4].mean() > 128) << bit for bit in range(8))


def make_numbered(
    path: Path,
    frames: int = 24,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 1000),
    options: Mapping[str, str] | None = None,
    container_format: str | None = None,
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Writes a video of the frames 0, 1, 2 …, at 25 a second or shown at `ticks` of `base` seconds."""
    with av.open(str(path), "w", format=container_format, options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=25, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.thread_count = encoder_threads(codec)
        if ticks is not None:
            stream.time_base = stream.codec_context.time_base = base
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
