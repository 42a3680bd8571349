"""The masks of a video's prompts, and what its other rows say of each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import PromptError, ResultsError
from rts_batch.io.storage import files, uris
from rts_batch.manifest import Prompt, VideoTask
from rts_batch.manifest.boxes import LEAST_VISIBLE, OUTSIDE, Size, part_outside
from rts_batch.manifest.mask_images import MaskImage, open_mask_image
from rts_batch.manifest.mask_rules import ImageUse, MaskReading, read_mask_image
from rts_batch.manifest.polygons import Ring, box_around, fill_rings
from rts_batch.masks import Box, Marking, decode_rle, encode_rle


def image_of(prompt: Prompt) -> str | None:
    """Return what tells a prompt's image from others: rows of one image may each have a signature of their own."""
    return prompt.mask_uri and uris.unsigned(prompt.mask_uri)


class ImageUses:
    """What the rows of one video say of each mask image that they name.

    Args:
        task: the video with all rows that say anything of its images.
    """

    def __init__(self, task: VideoTask) -> None:
        self._targets = frozenset(target.object_id for target in task.targets)
        self._users: dict[str, set[int]] = defaultdict(set)
        self._on_frame: dict[tuple[int | None, float | None], dict[int, str]] = defaultdict(dict)
        for target in task.targets:
            for prompt in target.prompts:
                if (image := image_of(prompt)) is not None:
                    self._users[image].add(target.object_id)
                    self._on_frame[prompt.frame, prompt.time][target.object_id] = image

    def of(self, prompt: Prompt, object_id: int) -> ImageUse | None:
        """Return how a target's prompt uses its image; None where it names none."""
        image = image_of(prompt)
        if image is None:
            return None
        images = self._on_frame[prompt.frame, prompt.time]
        return ImageUse(
            object_id=object_id,
            users=frozenset(self._users[image] - {object_id}),
            others=self._targets - {object_id},
            apart=len(images) > 1 and all(len(self._users[other]) == 1 for other in images.values()),
        )

    def deciding(self, prompt: Prompt, object_id: int) -> list[Any]:
        """Return what of that decides which pixels are the target's, as plain values."""
        use = self.of(prompt, object_id)
        # Which other targets there are decides whether an image is refused, and never how it is read.
        return [] if use is None else [sorted(use.users), use.apart]


class PromptMasks:
    """Reads the masks of one video's prompts.

    Args:
        task: the video with all rows that say anything of its images.
        frame: its width and height, in which polygons are filled.
    """

    def __init__(self, task: VideoTask, frame: Size) -> None:
        self._frame = frame
        self._last: tuple[str, MaskImage] | None = None
        """The image read last: the next target's is most often the same."""
        self._uses = ImageUses(task)

    def size(self, prompt: Prompt) -> tuple[int, int]:
        """Return height and width of a prompt's mask, of polygons the frame's; raises as `read` does."""
        if prompt.polygons is not None:
            return self._frame[1], self._frame[0]
        if prompt.mask_rle is not None:
            height, width = prompt.mask_rle["size"]
            return height, width
        assert prompt.mask_uri is not None
        return self._open(prompt.mask_uri).size

    def read(self, prompt: Prompt, object_id: int) -> MaskReading:
        """Return the mask of a prompt that has one.

        Raises:
            PromptError: what is there is not a mask, or not clearly this target's.
            StorageError: the image cannot be fetched.
        """
        if prompt.polygons is not None:
            return filled(prompt.polygons, self._frame)
        if prompt.mask_rle is not None:
            height, width = prompt.mask_rle["size"]
            return MaskReading(_of_rle(prompt.mask_rle["counts"], height, width), "its RLE", usual=True)
        use = self._uses.of(prompt, object_id)
        assert prompt.mask_uri is not None
        assert use is not None
        image = self._open(prompt.mask_uri)
        try:
            return read_mask_image(image, use)
        except PromptError as error:
            raise PromptError(f"{uris.safe_uri(prompt.mask_uri)}: {error}") from error

    def _open(self, uri: str) -> MaskImage:
        if self._last is None or self._last[0] != uri:
            try:
                self._last = uri, open_mask_image(files.read_bytes(uri))
            except PromptError as error:
                raise PromptError(f"{uris.safe_uri(uri)}: {error}") from error
        return self._last[1]


@dataclass(frozen=True)
class PackedMarking:
    """A marking that waits for its frame: a mask of a large frame takes megabytes, and a video may have thousands."""

    box: Box | None
    size: tuple[int, int] | None
    """Height and width of the mask; None without one."""
    rle: bytes

    @classmethod
    def of(cls, marking: Marking) -> PackedMarking:
        mask = marking.mask
        return cls(marking.box, None, b"") if mask is None else cls(marking.box, mask.shape, encode_rle(mask))

    @property
    def absent(self) -> bool:
        return self.size is None and self.box is None

    def unpacked(self) -> Marking:
        return Marking(mask=None if self.size is None else decode_rle(self.rle, *self.size), box=self.box)


def filled(rings: Sequence[Ring], frame: Size) -> MaskReading:
    """Return what polygons cover of a frame of a width and height.

    Raises:
        PromptError: they lie outside, or cover no pixel.
    """
    width, height = frame
    x, y, w, h = around = box_around(rings)
    where = f"from {x:g} to {x + w:g} across and from {y:g} to {y + h:g} down in a frame of {width}×{height} pixels"
    past = part_outside(around, frame)
    if past > 1 - LEAST_VISIBLE:
        but = "" if past >= 1 else f" but for {1 - past:.0%} of it"
        raise PromptError(f"it lies outside the frame{but}: {where}; is it of a picture of another size?")
    mask = decode_rle(fill_rings(rings, height, width), height, width)
    if not mask.any():
        raise PromptError(f"it covers no pixel: {where}; look at its points")
    if past > OUTSIDE:
        rule = f"a polygon with {past:.0%} outside the frame: {where}; is it of a picture of another size?"
        return MaskReading(mask, rule)
    return MaskReading(mask, "its polygon", usual=True)


def _of_rle(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    try:
        return decode_rle(counts.encode(), height, width)
    except ResultsError as error:
        raise PromptError(str(error)) from error
