"""Where to look next: the target's position and size from its mask, and the growing search for a lost one.

Vectors are (y, x) float32 on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.tracking.state import TrackerState

SIZE_PER_DEVIATION = 4.0
LOST_HISTORY = 60
LOST_MEAN = (2, 30)


def moments(probabilities: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor] | None:
    """Returns the target's centre and size (four standard deviations) from a map `[H, W] float32` (§6.4).

    None where the map has no extent in one of the axes. Values below `threshold` count as nothing.
    """
    measured, centre, size = extent_of(probabilities, threshold)
    return (centre.cpu(), size.cpu()) if measured else None


def extent_of(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns whether a map has an extent, `[] bool`, and what `moments` does, all on the map's device."""
    positive = probabilities.clamp(min=0)
    if threshold > 0:
        positive = positive * (positive >= threshold)
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
    """Returns the image pixels per crop pixel at which the crop covers `area_scale`² times the target's area.

    As the reciprocal of the resize factor: of the ways to write it, this one gives the published tracks' last bit. It
    decides over a pixel of the crop, and on which side of the feature map's edge the target's box ends when κ⁰ is
    pooled.
    """
    area = size.new_full((), crop_size[0] * crop_size[1])  # a number over a tensor would be rounded twice
    return 1 / (area / (area_scale * size).prod()).sqrt()


def update_search_state(state: TrackerState, previous: Tensor, config: TrackerConfig) -> None:
    """Sets position, size and scale of the next search region from the previous frame's outcome (§6.2).

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
    # The base size always has the area of the search region over `search_area_scale`², so this is √(Π size / Π base).
    scale = scale_of_target(state.target_size, config.search_area_scale, config.crop_size)
    low, high = config.max_scale_change
    scale = torch.minimum(torch.maximum(scale, low * state.target_scale), high * state.target_scale)
    state.target_scale = scale
    state.target_size = state.base_target_size * scale
    state.scale_history = [*state.scale_history, float(scale)][-LOST_HISTORY:]
    state.lost_frames = 0


def _search_wider(state: TrackerState) -> None:
    """Keeps the position and takes the mean of recent scales that were not below the last."""
    state.lost_frames += 1
    count = max(LOST_MEAN[0], min(LOST_MEAN[1], state.lost_frames))
    recent = torch.tensor(state.scale_history, dtype=torch.float32)
    state.target_scale = recent[recent >= recent[-1]][-count:].mean()
