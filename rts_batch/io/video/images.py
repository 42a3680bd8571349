"""Pictures as a video: a folder of them, or a zip or tar archive."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch.errors import VideoError
from rts_batch.io.video.frames import Frame, FrameRange, FrameSource, Moment, Report, VideoInfo
from rts_batch.io.video.members import Members, open_members
from rts_batch.io.video.picture_names import READ
from rts_batch.io.video.series import Chosen, choose_frames

SEVERAL: Final = (".tif", ".tiff", ".gif", ".webp", ".png")
"""Kinds of files that may hold several pictures."""

SAMPLE: Final = 64
"""Pictures of 16 bits, evenly spread, whose values say how all of them become 8 bits."""

FLAT: Final = (16, 0.9)
"""A picture is flat, as masks are, where so many colours cover so much of it."""


def frames_in(path: str) -> Chosen:
    """Return the names of a local folder's or archive's frames, in order, as `ImagesSource` reads them.

    Raises:
        VideoError: there are none, or it is not clear which are meant.
    """
    with closing(open_members(path)) as members:
        pictures = _Pictures(members, lambda _: None)
        return Chosen(list(pictures.names), list(pictures.warnings))


class ImagesSource(FrameSource):
    """The frames that `choose_frames` finds in one folder or archive; all have the size of the first.

    Raises:
        VideoError: no pictures, some of which it is not clear whether they are frames, or one that cannot be read or
            has another size.
    """

    def __init__(self, path: str, wanted: FrameRange, *, report: Report) -> None:
        self._members = open_members(path)
        try:
            self._pictures = _Pictures(self._members, report)
            first = self._pictures.read(self._pictures.names[0])
        except VideoError:
            self._members.close()
            raise
        height, width, _ = first.shape
        info = VideoInfo(height, width, len(self._pictures.names), None, None, "images")
        super().__init__(path, info, wanted)
        self.warnings = self._pictures.warnings

    def frames(self) -> Iterator[Frame]:
        names = self._pictures.names
        for index in self.wanted.outward(len(names)) if self.wanted.around else self.wanted.of(len(names)):
            image = self._pictures.read(names[index])
            if image.shape != (self.info.height, self.info.width, 3):
                height, width, _ = image.shape
                raise VideoError(
                    f"{self.path}/{names[index]} is {width}×{height} pixels, {names[0]} is {self.info.width}×"
                    f"{self.info.height}; all images of a video must have one size"
                )
            yield Frame(Moment(index, None), image)
        self._pictures.close()

    def close(self) -> None:
        self._members.close()


class _Pictures:
    """The pictures of a video, decoded one by one and alike.

    Args:
        members: the files among which they are.
        report: is told of progress.
    """

    def __init__(self, members: Members, report: Report) -> None:
        self._members = members
        self._report = report
        if not any(name.lower().endswith(READ) for name in members.names) and members.folders:
            raise VideoError(
                f"{members.path} holds no images but the folders {', '.join(members.folders[:4])}"
                f"{' …' if len(members.folders) > 4 else ''}; give one of them"
            )
        chosen = choose_frames(members.path, members.names, self._are_masks)
        self.names = chosen.names
        self.warnings = chosen.warnings
        self._eight_bits: NDArray[np.uint8] | None = None
        """To each 16-bit value its 8-bit one."""
        self._highest = 0
        self._too_bright = 0

    def read(self, name: str) -> NDArray[np.uint8]:
        """A picture [H, W, 3] RGB. Raises VideoError."""
        rgb = self._decode(name)
        return self._reduce(rgb) if rgb.dtype == np.uint16 else rgb.astype(np.uint8, copy=False)

    def close(self) -> None:
        """Warn of what was met on the way."""
        if self._too_bright:
            self.warnings.append(
                f"{self._too_bright} pictures have values above {self._highest}, which become 255: none of the "
                f"{SAMPLE} pictures that were looked at first has them"
            )
            self._too_bright = 0

    def _decode(self, name: str) -> NDArray[np.uint8 | np.uint16]:
        place = f"{self._members.path}/{name}"
        self._report(None)
        data = self._members.read(name)
        if name.lower().endswith(SEVERAL) and (pages := _count_pages(data)) > 1:
            raise VideoError(f"{place} holds {pages} pictures; a frame is one, so save each as a file of its own")
        image = None
        if data:
            try:
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
            except cv2.error as error:
                raise VideoError(f"{place} cannot be decoded: {error}") from error
        if image is None or image.dtype not in (np.uint8, np.uint16):
            raise VideoError(f"{place} is not an image that can be decoded{_why_not(data)}")
        rgb: NDArray[np.uint8 | np.uint16] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return rgb

    def _reduce(self, image: NDArray[np.uint8 | np.uint16]) -> NDArray[np.uint8]:
        """A picture of 16 bits in 8, as all of this video are reduced."""
        if self._eight_bits is None:
            self._eight_bits = self._choose_reduction()
        self._too_bright += int(image.max()) > self._highest
        return self._eight_bits[image]

    def _choose_reduction(self) -> NDArray[np.uint8]:
        """How 16 bits become 8, by pictures all over the video: cameras often use 10, 12 or 14 of them."""
        sample = np.unique(np.linspace(0, len(self.names) - 1, SAMPLE).round().astype(int))
        pictures = [picture for place in sample if (picture := self._decode(self.names[place])).dtype == np.uint16]
        lowest = min(int(picture.min()) for picture in pictures)
        brightest = max(int(picture.max()) for picture in pictures)
        bits = max(8, brightest.bit_length())
        first, self._highest = 0, (1 << bits) - 1
        if (
            lowest < brightest and (brightest - lowest) * 4 < 1 << bits
        ):  # all of them in one corner, as in thermal video
            first, self._highest = lowest, brightest
        self.warnings.append(
            f"pictures of 16 bits are read as 8: the values {first} to {self._highest} become 0 to 255 in all of them"
        )
        values = np.arange(1 << 16) - first
        scaled = values * 255 / (self._highest - first) if first else values >> (bits - 8)
        reduced: NDArray[np.uint8] = scaled.clip(0, 255).round().astype(np.uint8)
        return reduced

    def _are_masks(self, names: Sequence[str]) -> bool:
        """Whether these look like masks: each shows a few flat colours."""
        try:
            return all(_is_flat(self._decode(name)) for name in names)
        except VideoError:
            return False


def _is_flat(image: NDArray[np.uint8 | np.uint16]) -> bool:
    step = max(1, int((image.size / 600_000) ** 0.5))
    pixels = image[::step, ::step].astype(np.int64) @ np.array([1 << 32, 1 << 16, 1])
    colours, share = FLAT
    counts = np.sort(np.unique(pixels, return_counts=True)[1])
    return bool(counts[-colours:].sum() >= share * pixels.size)


def _count_pages(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return getattr(image, "n_frames", 1)
    except Exception:  # Pillow raises half a dozen kinds; what is damaged shows when it is decoded
        return 1


def _why_not(data: bytes) -> str:
    """What Pillow knows of a picture that is not decoded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f": it holds values of the kind {image.mode!r}" if image.mode in ("F", "I") else ""
    except Exception:
        return ""
