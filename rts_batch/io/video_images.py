"""A folder of images as a video."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import VideoError
from rts_batch.io.frames import Frame, FrameSource, VideoInfo

__all__ = ["ImagesSource", "natural_key"]

ENDINGS = (".jpg", ".jpeg", ".png")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `frame2` before `frame10`, and by the plain name where that is equal."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


class ImagesSource(FrameSource):
    """JPEG and PNG files of one folder, in natural order of their names; all have the size of the first.

    Raises:
        VideoError: no image in the folder, or one that cannot be read or has another size.
    """

    def __init__(self, path: str, *, start: int, end: int | None, backward: bool = False) -> None:
        try:
            names = [entry.name for entry in Path(path).iterdir() if entry.is_file()]
        except OSError as error:
            raise VideoError(f"{path} cannot be listed: {error}") from error
        names = [name for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")]
        if not names:
            raise VideoError(f"{path} holds no images; a folder is a video if it holds {', '.join(ENDINGS)} files")
        self._files = [Path(path) / name for name in sorted(names, key=natural_key)]
        self._first = _read(self._files[0])
        height, width, _ = self._first.shape
        info = VideoInfo(height, width, len(self._files), None, None, "images")
        super().__init__(path, info, start, end)
        self._backward = backward

    def frames(self) -> Iterator[Frame]:
        numbered = list(enumerate(self._files))[self.start : self.end]
        for index, file in reversed(numbered) if self._backward else numbered:
            image = _read(file) if index else self._first
            if image.shape != self._first.shape:
                height, width, _ = image.shape
                raise VideoError(
                    f"{file} is {width}×{height} pixels, {self._files[0].name} is {self.info.width}×"
                    f"{self.info.height}; all images of a video must have one size"
                )
            yield Frame(index, None, image)


def _read(file: Path) -> NDArray[np.uint8]:
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise VideoError(f"{file} cannot be read: {error}") from error
    image = None
    if len(data):
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise VideoError(f"{file} cannot be decoded: {error}") from error
    if image is None:
        raise VideoError(f"{file} is not an image that can be decoded")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb
