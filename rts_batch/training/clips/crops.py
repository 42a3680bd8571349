"""The search region of a training frame: where it lies, how it is cut out, and boxes within it (spec rts-training §4).

Boxes are x, y, w, h in pixels; sizes are (H, W).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.errors import TrainingError
from rts_batch.masks import Box
from rts_batch.training.clips.datasets.base import AnnotatedFrame


@dataclass(frozen=True)
class Region:
    """A rectangle of the picture, possibly reaching over its edges, that becomes a crop of `size`."""

    x: int
    y: int
    width: int
    height: int
    size: tuple[int, int]
    """(H, W) of the crop."""

    def to_crop(self, box: Box) -> Box:
        """Return a box of the picture in crop pixels."""
        across, down = self.size[1] / self.width, self.size[0] / self.height
        return (box[0] - self.x) * across, (box[1] - self.y) * down, box[2] * across, box[3] * down


def jitter_box(
    box: Box, rng: np.random.Generator, *, centre: tuple[float, float], scale: float
) -> tuple[float, float, float, float]:
    """Return the box with its sides and its centre disturbed at random (§3)."""
    width, height = np.array(box[2:]) * np.exp(scale * rng.standard_normal(2))
    shift = math.sqrt(width * height) * np.array(centre) * (rng.random(2) - 0.5)
    x, y = np.array(box[:2]) + 0.5 * np.array(box[2:]) + shift
    return float(x - 0.5 * width), float(y - 0.5 * height), float(width), float(height)


def place_region(box: Box, picture: tuple[int, int], size: tuple[int, int], *, area_factor: float) -> Region:
    """Return the region around `box`, moved inside the picture as far as it fits (mode `inside_major`).

    Args:
        box: usually jittered.
        picture: (H, W) of the picture.
        size: (H, W) of the crop.
        area_factor: side of the region over the side of the box, both as square roots of their areas.

    Raises:
        TrainingError: the region would be less than one pixel.
    """
    x, y, w, h = box
    scale = math.sqrt(w * h / (size[0] * size[1])) * area_factor
    width, height = math.ceil(size[1] * scale), math.ceil(size[0] * scale)
    shrink = max(1.0, min(width / picture[1], height / picture[0]))
    width, height = math.floor(width / shrink), math.floor(height / shrink)
    if width < 1 or height < 1:
        raise TrainingError(f"the search region of a target of {w:g}×{h:g} pixels is smaller than a pixel")
    left = _inside(round(x + 0.5 * w - 0.5 * width), width, picture[1])
    top = _inside(round(y + 0.5 * h - 0.5 * height), height, picture[0])
    return Region(left, top, width, height, size)


def _inside(start: int, length: int, limit: int) -> int:
    """Move an interval into 0…limit; where it is longer, let half of what hangs over stand out at the start."""
    start += max(0, -start) + min(0, limit - (start + length))
    overhang = (max(0, -start) + max(0, start + length - limit)) // 2
    return -overhang if overhang > 0 else start


def cut_out(frame: AnnotatedFrame, region: Region) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a region's picture `[H, W, 3]` and mask `[H, W]`, resized to the crop.

    Outside the picture its edge is repeated and the mask is zero. Where the region reaches the right or lower edge the
    last column or row of the picture counts as outside, as in the released training.
    """
    height, width = frame.mask.shape
    left, top = max(0, -region.x), max(0, -region.y)
    right = max(0, region.x + region.width - width + 1)
    bottom = max(0, region.y + region.height - height + 1)
    rows = slice(region.y + top, region.y + region.height - bottom)
    columns = slice(region.x + left, region.x + region.width - right)
    image, mask = frame.image[rows, columns], frame.mask[rows, columns]
    if not mask.size:
        raise TrainingError(
            f"the search region of {region.width}×{region.height} pixels lies on the picture's last edge"
        )
    border = (top, bottom, left, right)
    image = cv2.copyMakeBorder(np.ascontiguousarray(image), *border, cv2.BORDER_REPLICATE)
    mask = cv2.copyMakeBorder(np.ascontiguousarray(mask), *border, cv2.BORDER_CONSTANT, value=0)
    image = cv2.resize(image, (region.size[1], region.size[0]))
    # PyTorch's nearest neighbour takes the cell's upper left pixel.
    small = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None].float(), region.size, mode="nearest")
    return image, small[0, 0].byte().numpy()
