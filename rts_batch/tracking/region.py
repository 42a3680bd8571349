"""The search region: cut out of the frame and resized to the network's crop, and scores pasted back.

Coordinates are (y, x) in image pixels with pixel centres at integers. The arithmetic is float32 in the order of the
published tracker, half pixels and truncations included: one unit in the last place can move a crop by a pixel (spec
rts-tracker §2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Border = Literal["inside_major", "replicate"]
"""`inside_major`: shrunk until one axis fits and shifted inside; `replicate`: as it is, edges repeated."""

Window = tuple[int, int, int, int]
"""y0, x0, y1, x1 (end exclusive): the part of the image that a search region's scores cover."""

OUTSIDE_SCORE = -100.0
"""Logit of every pixel outside the search region."""


@dataclass(frozen=True)
class SearchRegion:
    """Where a crop came from. All float32, image pixels."""

    top_left: Tensor
    """(y, x), not truncated."""
    bottom_right: Tensor
    rows: Tensor
    """The sampled image rows; where the region leaves the image, its outermost sampled row again."""
    columns: Tensor
    rows_inside: Tensor
    """Whether each of `rows` lies inside the image, bool."""
    columns_inside: Tensor
    crop_size: tuple[int, int]

    @property
    def position(self) -> Tensor:
        """Image position (y, x) of the crop's centre."""
        return 0.5 * (self.top_left + self.bottom_right - 1)

    @property
    def scale(self) -> Tensor:
        """Image pixels per crop pixel, geometric mean of both axes."""
        extent = self.bottom_right - self.top_left
        return (extent / torch.tensor(self.crop_size, dtype=torch.float32)).prod().sqrt()

    @cached_property
    def nearest(self) -> list[tuple[Tensor, Tensor]]:
        """The image rows, then columns, that crop pixels take by nearest neighbour, int64, and 1 inside the image."""
        axes = zip((self.rows, self.columns), (self.rows_inside, self.columns_inside), self.crop_size, strict=True)
        return [(_nearest(places, size).long(), _nearest(inside, size)) for places, inside, size in axes]


def place_region(
    position: Tensor,
    size: Tensor,
    image_size: tuple[int, int],
    crop_size: tuple[int, int],
    border: Border = "inside_major",
) -> SearchRegion:
    """Decide which pixels a crop of `size` around `position` samples (spec rts-tracker §2, steps 1–9).

    Args:
        position: centre (y, x), `[2] float32`.
        size: height and width in image pixels, `[2] float32`.
        image_size: (H, W).
        crop_size: (h, w) that the crop is resized to; a large region is strided down first.
        border: what happens where the region leaves the image.
    """
    limits = torch.tensor(image_size, dtype=torch.float32)
    centre = position.trunc().long()
    if border == "inside_major":
        shrink = (size / limits).min().clamp(min=1)
        size = (size / shrink).long()
    stride = int(stride_of((size / torch.tensor(crop_size, dtype=torch.float32)).min()))
    offset = centre % stride
    centre = torch.div(centre - offset, stride, rounding_mode="floor")
    strided = torch.tensor(
        [(limit - int(start) + stride - 1) // stride for limit, start in zip(image_size, offset, strict=True)]
    )
    extent = (size / stride).round().long().clamp(min=2)
    top_left = centre - (extent - 1) / 2
    bottom_right = centre + extent / 2 + 1
    if border == "inside_major":
        shift = (-top_left).clamp(min=0) - (bottom_right - strided).clamp(min=0)
        top_left, bottom_right = top_left + shift, bottom_right + shift
        overhang = (((-top_left).clamp(min=0) + (bottom_right - strided).clamp(min=0)) / 2).floor()
        shift = torch.where(overhang > 0, -overhang - top_left, 0.0)
        top_left, bottom_right = top_left + shift, bottom_right + shift
    sampled, inside = [], []
    for axis in range(2):
        index = torch.arange(int(top_left[axis].trunc()), int(bottom_right[axis].trunc()))
        inside.append((index >= 0) & (index < strided[axis]))
        sampled.append(index.clamp(0, int(strided[axis]) - 1) * stride + offset[axis])
    return SearchRegion(
        stride * top_left, stride * bottom_right, sampled[0], sampled[1], inside[0], inside[1], crop_size
    )


def stride_of(ratio: Tensor) -> Tensor:
    """Return every how many image pixels one is sampled, `[] float32`, from the region's least size over the crop's.

    The published code takes the float32 ratio out as a number first, so 0.1 is subtracted in double (spec rts-tracker
    §14): in float32 the difference may round up to the next whole number.
    """
    return (ratio.double() - 0.1).trunc().clamp(min=1).float()


def sample_image(image: Tensor, region: SearchRegion) -> Tensor:
    """Return the crop `[1, 3, h, w] float32`, 0…255, of an image `[3, H, W] uint8`; edges are repeated."""
    patch = sample_pixels(image, region).permute(2, 0, 1).float()[None]
    if patch.shape[-2:] == torch.Size(region.crop_size):
        return patch
    return functional.interpolate(patch, region.crop_size, mode="bilinear", align_corners=False)


def sample_pixels(image: Tensor, region: SearchRegion) -> Tensor:
    """Return what `sample_image` resizes, `[h', w', 3] uint8`, of an image `[3, H, W] uint8`."""
    # Indexing the bytes first and converting only the crop gives the same values as converting the frame, and as frames
    # lie in memory, pixel by pixel, a row is one piece to copy.
    return _take(_take(image.permute(1, 2, 0), 0, region.rows), 1, region.columns)


def _take(values: Tensor, dim: int, places: Tensor) -> Tensor:
    """Return `values` at ascending `places` along `dim`; a view where they are evenly spaced, as inside the image."""
    first, last, middle = int(places[0]), int(places[-1]), len(places) // 2
    step = int(places[middle] - places[middle - 1])
    if step > 0 and last - first == step * (len(places) - 1):
        return values[(slice(None),) * dim + (slice(first, last + 1, step),)]
    return values.index_select(dim, places.to(values.device))


def sample_mask(values: Tensor, region: SearchRegion) -> Tensor:
    """Return the crop `[h, w]` of a map `[H, W] float32` by nearest neighbour; zero outside the image."""
    (rows, rows_inside), (columns, columns_inside) = (
        (places.to(values.device), inside.to(values.device)) for places, inside in region.nearest
    )
    patch = values.index_select(0, rows).index_select(1, columns)
    return patch * rows_inside[:, None] * columns_inside


def _nearest(values: Tensor, size: int) -> Tensor:
    """Return a row of numbers, `[n]`, resized to `[size] float32` by nearest neighbour."""
    return functional.interpolate(values.float()[None, None], size, mode="nearest")[0, 0]


def enlarge(values: Tensor, factor: float) -> Tensor:
    """Return a map `[h, w] float32` bilinearly resized to `[⌊factor·h⌋, ⌊factor·w⌋]`.

    The given factor, not the ratio of the sizes, maps the coordinates.
    """
    return functional.interpolate(
        values[None, None], scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )[0, 0]


def paste_scores(
    logits: Tensor,
    region: SearchRegion,
    image_size: tuple[int, int],
    resize: Callable[[Tensor, float], Tensor] = enlarge,
) -> tuple[Tensor, Window]:
    """Put crop logits back into the image (spec rts-tracker §7.1).

    Args:
        logits: `[h, w] float32`.
        region: where the crop came from.
        image_size: (H, W).
        resize: does what `enlarge` does.

    Returns:
        Scores `[H, W] float32`, −100 outside the region, and the window of the image that they cover.
    """
    resized = resize(logits, float(region.scale))
    top, left = (
        int(centre - length / 2) for centre, length in zip(region.position.tolist(), resized.shape, strict=True)
    )
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + resized.shape[0], image_size[0]), min(left + resized.shape[1], image_size[1])
    scores = logits.new_full(image_size, OUTSIDE_SCORE)
    if y1 <= y0 or x1 <= x0:
        return scores, (0, 0, 0, 0)
    scores[y0:y1, x0:x1] = resized[y0 - top : y1 - top, x0 - left : x1 - left]
    return scores, (y0, x0, y1, x1)
