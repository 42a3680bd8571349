"""Where to look next: the target's position and size from its mask, and the growing search for a lost one.

Vectors are (y, x) float32 on the CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.tracking.maps import at_least
from rts_batch.tracking.state import TrackerState

SIZE_PER_DEVIATION = 4.0
LOST_HISTORY = 60
LOST_MEAN = (2, 30)


def moments(probabilities: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor] | None:
    """Return the target's centre and size (four standard deviations) from a map `[H, W] float32` (§6.4).

    None where the map has no extent in one of the axes. Values below `threshold` count as nothing.
    """
    measured, centre, size = extent_of(probabilities, threshold)
    return (centre.cpu(), size.cpu()) if measured else None


def extent_of(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return whether a map has an extent, `[] bool`, and what `moments` does, all on the map's device."""
    positive = probabilities.clamp(min=0)
    if threshold > 0:
        positive *= at_least(positive, threshold)
    total = positive.sum()
    centre, variance = [], []
    for axis in (0, 1):
        profile = positive.sum(1 - axis)
        place = torch.arange(len(profile), dtype=torch.float32, device=profile.device)
        # Sums of profiles, divided last: this order gives the published tracks' positions to the last bit where the
        # map is the prompt's own.
        mean = (place * profile).sum() / total
        centre.append(mean)
        variance.append(((place - mean).square() * profile).sum() / total)
    spread = torch.stack(variance)
    return (total > 0) & (spread > 0).all(), torch.stack(centre), SIZE_PER_DEVIATION * spread.sqrt()


def scale_of_target(size: Tensor, area_scale: float, crop_size: tuple[int, int]) -> Tensor:
    """Return the image pixels per crop pixel at which the crop covers `area_scale`² times the target's area.

    The scale of a start, and the localisation branch's from a mask's box: `√(Π k·size) / √(Π crop)`. The published code
    divides a number by a float32 tensor there, and the tensor's reciprocal is rounded before it is multiplied (§14).
    One unit in the last place decides over a pixel of the crop, and on which side of a feature cell's border a bin of
    κ⁰'s pooling begins.
    """
    per_pixel = np.float32(1) / np.sqrt(np.float32(crop_size[0] * crop_size[1]))
    return rounded_root((area_scale * size).prod()) * float(per_pixel)


def scale_to_follow(size: Tensor, base_size: Tensor) -> Tensor:
    """Return the image pixels per crop pixel at which `base_size`, in crop pixels, has the area of `size` (§6.2).

    Not `scale_of_target` of the new size, which is the same on paper: the published code rounds both areas, their
    quotient and its root to float32 here (§14).
    """
    return rounded_root(size.prod() / base_size.prod())


def rounded_root(value: Tensor) -> Tensor:
    """Return the square root, correctly rounded to float32; a vectorised float32 root need not be."""
    return value.double().sqrt().float()


def update_search_state(state: TrackerState, previous: Tensor, config: TrackerConfig) -> None:
    """Set position, size and scale of the next search region from the previous frame's outcome (§6.2).

    `previous` is the target's probability map on that frame, `[H, W] float32`, merged with other targets' if any.
    """
    no_mask = state.lost_mask or (state.mask_too_small and config.rules == "code")
    if (no_mask and not config.localisation_fallback) or state.lost_localisation:
        _search_wider(state)
    else:
        if no_mask:
            state.position, state.target_size = state.clf_position, state.clf_target_size
        else:
            measured = moments(previous, config.moment_threshold)
            if measured is not None:
                state.position, state.target_size = measured
        _follow_scale(state, config)


def _follow_scale(state: TrackerState, config: TrackerConfig) -> None:
    scale = scale_to_follow(state.target_size, state.base_target_size)
    low, high = config.max_scale_change
    scale = torch.minimum(torch.maximum(scale, low * state.target_scale), high * state.target_scale)
    state.target_scale = scale
    state.target_size = state.base_target_size * scale
    state.scale_history = [*state.scale_history, float(scale)][-LOST_HISTORY:]
    state.lost_frames = 0


def _search_wider(state: TrackerState) -> None:
    """Keep the position and take the mean of recent scales that were not below the last."""
    state.lost_frames += 1
    count = max(LOST_MEAN[0], min(LOST_MEAN[1], state.lost_frames))
    recent = torch.tensor(state.scale_history, dtype=torch.float32)
    state.target_scale = recent[recent >= recent[-1]][-count:].mean()
