"""Warped copies of the first search region: other sizes and sides of the target to learn from (`initial_warps`).

Not in the paper; a small network gains from them because it has seen less.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rts_batch.tracking.motion import moments


def warped_crops(crop: Tensor, mask: Tensor, warps: Sequence[tuple[float, bool]]) -> tuple[Tensor, Tensor]:
    """Return a crop and its mask scaled about the target's centre and, where asked, mirrored left to right.

    Args:
        crop: `[1, 3, h, w] float32`; its edges are repeated where a warp looks beyond them.
        mask: `[h, w] float32`.
        warps: (scale, mirrored) of each copy; a scale above 1 enlarges the target.

    Returns:
        Crops `[n, 3, h, w]` and masks `[n, h, w]` of 0 and 1; nothing (n = 0) where the mask has no extent.
    """
    measured = moments(mask)
    if measured is None or not warps:
        return crop[:0], mask[None][:0]
    size = torch.tensor(mask.shape, dtype=torch.float32)
    # In grid_sample's coordinates, −1 … 1 over the crop.
    y, x = ((2 * measured[0] + 1) / size - 1).tolist()
    maps = []
    for scale, mirrored in warps:
        across = (-1 if mirrored else 1) / scale
        maps.append([[across, 0.0, x - across * x], [0.0, 1 / scale, y - y / scale]])
    count = len(maps)
    matrices = torch.tensor(maps, dtype=crop.dtype, device=crop.device)
    grid = functional.affine_grid(matrices, [count, 3, *mask.shape], align_corners=False)
    crops = functional.grid_sample(crop.expand(count, -1, -1, -1), grid, padding_mode="border", align_corners=False)
    masks = functional.grid_sample(mask.expand(count, 1, -1, -1), grid, padding_mode="zeros", align_corners=False)
    return crops, (masks[:, 0] > 0.5).to(mask.dtype)
