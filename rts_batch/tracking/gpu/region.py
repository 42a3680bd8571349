"""The search region without a value that the host has to know: `tracking/region.py` in tensors of fixed shapes.

Identical to `place_region`, `sample_image`, `sample_mask` and `paste_scores` there with the border `inside_major`, in
the same order of float32 operations. Where those cut a patch of whatever size out of the image and resize it, here
every pixel of the result looks its sources up, so that shapes never depend on where the target is. Whole numbers are
float32 as well; up to 2²⁴ that is exact.

Both axes are one vector, rows before columns, which halves the number of operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from rts_batch.tracking.region import OUTSIDE_SCORE, SearchRegion, stride_of


class Grid:
    """The pixels of a crop of h×w and of an image of H×W, as constants on a device."""

    def __init__(self, crop_size: tuple[int, int], image_size: tuple[int, int], device: torch.device) -> None:
        self.crop_size = crop_size
        self.image_size = image_size
        self.crop = torch.tensor(crop_size, dtype=torch.float32, device=device)
        self.image = torch.tensor(image_size, dtype=torch.float32, device=device)
        self.crop_axis, self.crop_cells = _cells(crop_size, device)
        self.image_axis, self.image_cells = _cells(image_size, device)

    def split_crop(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`[h + w]` → `[h]`, `[w]`."""
        return values[: self.crop_size[0]], values[self.crop_size[0] :]

    def split_image(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`[H + W]` → `[H]`, `[W]`."""
        return values[: self.image_size[0]], values[self.image_size[0] :]


def _cells(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Which axis each element belongs to, `int64`, and its place along it, `float32`."""
    axis = torch.cat([torch.full((length,), number) for number, length in enumerate(size)])
    cells = torch.cat([torch.arange(length, dtype=torch.float32) for length in size])
    return axis.to(device), cells.to(device)


class Place(IntEnum):
    """Where each vector (y, x) of a `Placement` begins when it is packed; the kernels read by the same names."""

    TOP_LEFT = 0
    BOTTOM_RIGHT = 2
    FIRST = 4
    COUNT = 6
    STRIDE = 8
    OFFSET = 10
    INNER = 12
    LENGTH = 14


@dataclass(frozen=True)
class Placement:
    """Where a search region lies; vectors `[2] float32` (y, x). `first`, `count` and `inner` count strided pixels."""

    top_left: Tensor
    """Image pixels, not truncated."""
    bottom_right: Tensor
    first: Tensor
    """The first sampled pixel; it may lie outside the image."""
    count: Tensor
    """How many are sampled."""
    stride: Tensor
    """Image pixels from one sampled pixel to the next, twice the same."""
    offset: Tensor
    """The image pixel at which the strided ones begin."""
    inner: Tensor
    """How many of the strided pixels the image has."""

    def packed(self) -> Tensor:
        """As one tensor, `[7, 2] float32`."""
        return torch.stack([getattr(self, place.name.lower()) for place in _PLACES])

    @classmethod
    def unpack(cls, values: Tensor) -> Placement:
        return cls(**{place.name.lower(): values[place // 2] for place in _PLACES})

    @property
    def position(self) -> Tensor:
        return 0.5 * (self.top_left + self.bottom_right - 1)

    def scale(self, grid: Grid) -> Tensor:
        """Image pixels per crop pixel, `[]`."""
        return ((self.bottom_right - self.top_left) / grid.crop).prod().sqrt()


_PLACES = tuple(place for place in Place if place is not Place.LENGTH)


def place_region(position: Tensor, size: Tensor, grid: Grid) -> Placement:
    """Decide which pixels a crop of `size` around `position` samples, both `[2] float32` in image pixels."""
    shrink = (size / grid.image).amin().clamp(min=1)
    size = (size / shrink).trunc()
    ratio = (size / grid.crop).amin()
    stride = stride_of(ratio).expand(2)
    centre = position.trunc()
    offset = torch.remainder(centre, stride)
    centre = ((centre - offset) / stride).floor()
    inner = ((grid.image - offset + stride - 1) / stride).floor()
    extent = (size / stride).round().clamp(min=2)
    top_left = centre - (extent - 1) / 2
    bottom_right = centre + extent / 2 + 1
    shift = (-top_left).clamp(min=0) - (bottom_right - inner).clamp(min=0)
    top_left, bottom_right = top_left + shift, bottom_right + shift
    overhang = (((-top_left).clamp(min=0) + (bottom_right - inner).clamp(min=0)) / 2).floor()
    shift = torch.where(overhang > 0, -overhang - top_left, 0.0)
    top_left, bottom_right = top_left + shift, bottom_right + shift
    first = top_left.trunc()
    return Placement(
        stride * top_left, stride * bottom_right, first, bottom_right.trunc() - first, stride, offset, inner
    )


def sample_image(frame: Tensor, placement: Placement, grid: Grid) -> Tensor:
    """Return the crop `[3, h, w] float32`, 0…255, of a frame `[H, W, 3] uint8`; edges are repeated."""
    axis = grid.crop_axis
    count = placement.count[axis]
    low, high, upper = _bilinear(grid.crop_cells, (placement.count / grid.crop)[axis], count)
    first, inner, stride = placement.first[axis], placement.inner[axis] - 1, placement.stride[axis]
    offset = placement.offset[axis]

    def places(cells: Tensor) -> tuple[Tensor, Tensor]:
        return grid.split_crop((torch.minimum((first + cells).clamp(min=0), inner) * stride + offset).long())

    (top, left), (bottom, right) = places(low), places(high)
    down, across = grid.split_crop(upper)
    across, down = across[:, None], down[:, None, None]

    def line(rows: Tensor) -> Tensor:
        return frame[rows[:, None], left].float() * (1 - across) + frame[rows[:, None], right].float() * across

    return (line(top) * (1 - down) + line(bottom) * down).permute(2, 0, 1)


def mask_places(placement: Placement, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return for each row and column of the crop its nearest image pixel, `[h + w] int64`, and whether it exists."""
    axis = grid.crop_axis
    count = placement.count
    nearest = torch.minimum((grid.crop_cells * (count / grid.crop)[axis]).floor(), count[axis] - 1)
    strided, inner = placement.first[axis] + nearest, placement.inner[axis]
    inside = (strided >= 0) & (strided < inner)
    places = torch.minimum(strided.clamp(min=0), inner - 1) * placement.stride[axis] + placement.offset[axis]
    return places.long(), inside


def sample_mask(values: Tensor, places: Tensor, inside: Tensor, grid: Grid) -> Tensor:
    """Return the crop `[h, w]` of a map `[H, W] float32` at what `mask_places` found; zero outside the image."""
    rows, columns = grid.split_crop(places)
    rows_inside, columns_inside = grid.split_crop(inside)
    return values[rows[:, None], columns] * (rows_inside[:, None] & columns_inside)


def paste_scores(logits: Tensor, placement: Placement, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the scores `[H, W] float32` of crop logits `[h, w]`, and the window y0, x0, y1, x1 that they cover.

    −100 outside it. The window is `[4] float32`.
    """
    axis = grid.image_axis
    scale = placement.scale(grid).double()
    resized = (grid.crop * scale).floor()
    corner = (placement.position - resized / 2).trunc()
    end = torch.minimum(corner + resized, grid.image)
    window = torch.cat([corner.clamp(min=0), end])
    window = torch.where((end > window[:2]).all(), window, 0.0).float()

    cells = grid.image_cells - corner.float()[axis]
    # An axis that keeps its length is copied, whatever the scale.
    step = torch.where(resized == grid.crop, 1.0, 1 / scale).float()
    low, high, upper = _bilinear(cells, step[axis], grid.crop[axis])
    (top, left), (bottom, right) = grid.split_image(low.long()), grid.split_image(high.long())
    down, across = grid.split_image(upper)
    wide = logits[:, left] * (1 - across) + logits[:, right] * across
    down = down[:, None]
    scores = wide[top] * (1 - down) + wide[bottom] * down
    rows, columns = grid.split_image((cells >= 0) & (cells < resized.float()[axis]))
    return torch.where(rows[:, None] & columns, scores, OUTSIDE_SCORE), window


def _bilinear(cells: Tensor, scale: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two source cells of each cell and the weight of the second, for a resize by 1 / `scale`."""
    source = ((cells + 0.5) * scale - 0.5).clamp(min=0)
    low = torch.minimum(source.floor(), lengths - 1)
    return low, torch.minimum(low + 1, lengths - 1), (source - low).clamp(0, 1)


def host_region(placement: Placement, crop_size: tuple[int, int]) -> SearchRegion:
    """Return what `tracking.region.place_region` would have; read the placement back."""
    placement = Placement.unpack(placement.packed().cpu())
    sampled, inside = [], []
    for axis in range(2):
        index = torch.arange(int(placement.count[axis])) + int(placement.first[axis])
        inner, stride = int(placement.inner[axis]), int(placement.stride[axis])
        inside.append((index >= 0) & (index < inner))
        sampled.append(index.clamp(0, inner - 1) * stride + int(placement.offset[axis]))
    return SearchRegion(
        placement.top_left, placement.bottom_right, sampled[0], sampled[1], inside[0], inside[1], crop_size
    )


def region_places(region: SearchRegion, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return what `mask_places` does, of a region of the host, on the grid's device."""
    places, inside = [], []
    for rows, held, length in (
        (region.rows, region.rows_inside, grid.crop_size[0]),
        (region.columns, region.columns_inside, grid.crop_size[1]),
    ):
        step = torch.tensor(len(rows), dtype=torch.float32) / length
        nearest = (torch.arange(length, dtype=torch.float32) * step).floor().long().clamp(max=len(rows) - 1)
        places.append(rows[nearest])
        inside.append(held[nearest])
    return torch.cat(places).to(grid.crop.device), torch.cat(inside).to(grid.crop.device)
