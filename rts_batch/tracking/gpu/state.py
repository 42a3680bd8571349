"""A tracker's state in tensors of one device: `TrackerState` without a value that the host has to know.

Identical to `motion.update_search_state`, `localisation.localise` and the localisation branch's following of the target
under the released rules; branches are `torch.where`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.tracking.gpu.region import Grid, Place, Placement, host_region, mask_places, region_places
from rts_batch.tracking.motion import LOST_HISTORY, LOST_MEAN, extent_of, scale_of_target, scale_to_follow
from rts_batch.tracking.state import TrackerState


class Value(IntEnum):
    """Where each field begins in `DeviceState.values`, `[Value.LENGTH] float32`; the kernels read by the same names."""

    POSITION = 0
    TARGET_SIZE = 2
    BASE_TARGET_SIZE = 4
    CLF_POSITION = 6
    CLF_TARGET_SIZE = 8
    CLF_BASE_TARGET_SIZE = 10
    TARGET_SCALE = 12
    CLF_SCALE = 13
    CLF_SCALE_BOUNDS = 14
    LOST_FRAMES = 16
    PLACEMENT = 17
    HISTORY = PLACEMENT + Place.LENGTH
    LENGTH = HISTORY + LOST_HISTORY


class Flag(IntEnum):
    """Where each flag lies in `DeviceState.flags`."""

    LOST_MASK = 0
    MASK_TOO_SMALL = 1
    LOST_LOCALISATION = 2


VECTORS = ("position", "target_size", "base_target_size", "clf_position", "clf_target_size", "clf_base_target_size")
NUMBERS = ("target_scale", "clf_scale")
FLAGS = tuple(flag.name.lower() for flag in Flag)


class DeviceState:
    """The state between two frames. A CUDA graph can replay on it: a tensor keeps its place in memory.

    Those of the image's size keep it until `resize`.

    Vectors are `[2] float32` (y, x), numbers and flags `[]`; all of them are views into `values` and `flags`.
    """

    position: Tensor
    target_size: Tensor
    base_target_size: Tensor
    clf_position: Tensor
    clf_target_size: Tensor
    clf_base_target_size: Tensor
    target_scale: Tensor
    clf_scale: Tensor
    lost_mask: Tensor
    mask_too_small: Tensor
    lost_localisation: Tensor

    def __init__(self, grid: Grid, features: Tensor) -> None:
        device = grid.crop.device
        self.values = torch.zeros(Value.LENGTH, device=device)
        for name in VECTORS:
            first = Value[name.upper()]
            setattr(self, name, self.values[first : first + 2])
        for name in NUMBERS:
            setattr(self, name, self.values[Value[name.upper()]])
        self.clf_scale_bounds = self.values[Value.CLF_SCALE_BOUNDS : Value.CLF_SCALE_BOUNDS + 2]
        self.lost_frames = self.values[Value.LOST_FRAMES]
        self.placement = self.values[Value.PLACEMENT : Value.HISTORY].view(-1, 2)
        """The last frame's search region, `Placement.packed`."""
        self.scale_history = self.values[Value.HISTORY :]
        """The newest last; zero where there were fewer."""
        self.flags = torch.zeros(len(FLAGS), dtype=torch.bool, device=device)
        for flag in Flag:
            setattr(self, flag.name.lower(), self.flags[flag])
        self.features = torch.zeros_like(features)
        """x_s of the last frame, `[C, h, w]`."""
        self.prompt_features = torch.zeros_like(features)
        """x_s of the prompt's frame, `[C, h, w]`."""
        self.prompt_coverage = torch.zeros(features.shape[-2:], device=device)
        """The share of each of its cells that the prompt's mask covers, `[h, w]`; all 0 where no prompt is known."""
        self.places = torch.zeros(sum(grid.crop_size), dtype=torch.int64, device=device)
        self.inside = torch.zeros(sum(grid.crop_size), dtype=torch.bool, device=device)
        """The last search region's `mask_places`."""
        self.resize(grid)

    def resize(self, grid: Grid) -> None:
        """Make room for images of another size."""
        self.grid = grid
        self.probabilities = torch.zeros(grid.image_size, device=grid.crop.device)
        self.previous = torch.zeros_like(self.probabilities)
        """What the next step takes for the last frame's probabilities: merged with other targets' where there are."""

    def load(self, state: TrackerState) -> None:
        """Take a state of the host."""
        for name in (*VECTORS, *NUMBERS, "probabilities"):
            getattr(self, name).copy_(getattr(state, name))
        for name in (*FLAGS, "lost_frames"):
            getattr(self, name).fill_(getattr(state, name))
        self.previous.copy_(state.probabilities)
        self.clf_scale_bounds.copy_(torch.tensor(state.clf_scale_bounds))
        history = torch.tensor(state.scale_history, dtype=torch.float32)
        self.scale_history.zero_()
        self.scale_history[LOST_HISTORY - len(history) :] = history.to(self.scale_history.device)
        self.prompt_coverage.zero_()
        if state.prompt_features is not None and state.prompt_coverage is not None:
            self.prompt_features.copy_(state.prompt_features)
            self.prompt_coverage.copy_(state.prompt_coverage)
        if state.region is not None and state.features is not None:
            self.features.copy_(state.features)
            for own, value in zip((self.places, self.inside), region_places(state.region, self.grid), strict=True):
                own.copy_(value)

    def save(self, state: TrackerState) -> None:
        """Write this state into one of the host; wait for the device."""
        for name in (*VECTORS, *NUMBERS):
            setattr(state, name, getattr(self, name).to("cpu", copy=True))
        for name in FLAGS:
            setattr(state, name, bool(getattr(self, name)))
        state.lost_frames = int(self.lost_frames)
        history = self.scale_history.cpu()
        state.scale_history = history[history > 0].tolist()
        state.probabilities = self.probabilities.clone()
        state.features = self.features.clone()
        state.region = host_region(Placement.unpack(self.placement), self.grid.crop_size)

    def keep_region(self, placement: Placement) -> None:
        """Note this frame's search region for the next frame."""
        places, inside = mask_places(placement, self.grid)
        self.placement.copy_(placement.packed())
        self.places.copy_(places)
        self.inside.copy_(inside)

    def update_search(self, config: TrackerConfig) -> None:
        """Set position, size and scale of the next search region from the last frame's outcome (§6.2)."""
        no_mask = self.lost_mask | self.mask_too_small
        wider = self.lost_localisation | no_mask if not config.localisation_fallback else self.lost_localisation
        measured, centre, size = extent_of(self.previous, config.moment_threshold)
        centre = torch.where(measured, centre, self.position)
        size = torch.where(measured, size, self.target_size)
        centre = torch.where(no_mask, self.clf_position, centre)
        size = torch.where(no_mask, self.clf_target_size, size)
        low, high = config.max_scale_change
        scale = scale_to_follow(size, self.base_target_size)
        scale = torch.minimum(torch.maximum(scale, low * self.target_scale), high * self.target_scale)
        history = torch.cat([self.scale_history[1:], scale[None]])

        lost = self.lost_frames + 1
        self.target_scale.copy_(torch.where(wider, self._recent_scale(lost), scale))
        self.position.copy_(torch.where(wider, self.position, centre))
        self.target_size.copy_(torch.where(wider, self.target_size, self.base_target_size * scale))
        self.scale_history.copy_(torch.where(wider, self.scale_history, history))
        self.lost_frames.copy_(torch.where(wider, lost, 0))

    def _recent_scale(self, lost: Tensor) -> Tensor:
        """The mean of recent scales that were not below the last."""
        history = self.scale_history
        count = lost.clamp(*LOST_MEAN)
        recent = (history >= history[-1]) & (history > 0)
        newer = recent.flip(0).cumsum(0).flip(0)  # how many of them there are from each on
        chosen = recent & (newer <= count)
        return (history * chosen).sum() / chosen.sum()

    def follow(self, found: Found, outcome: Outcome, config: TrackerConfig) -> None:
        """Take the target's place from the mask, or from the score map where there is no usable mask (§9.2)."""
        by_mask = ~self.lost_mask & ~self.mask_too_small
        by_score = ~by_mask & found.found
        scale = torch.minimum(torch.maximum(found.scale, self.clf_scale_bounds[0]), self.clf_scale_bounds[1])
        size = self.clf_base_target_size * scale
        # The centre may leave the image by what keeps `target_inside_ratio` of the target in it.
        offset = (config.target_inside_ratio - 0.5) * size
        place = torch.maximum(torch.minimum(found.place, self.grid.image - offset), offset)
        x, y, w, h = outcome.box.unbind(0)
        box_centre, box_size = torch.stack([y + (h - 1) / 2, x + (w - 1) / 2]), torch.stack([h, w])
        box_scale = scale_of_target(box_size, config.search_area_scale, config.crop_size)
        for own, mask, score in (
            (self.clf_position, box_centre, place),
            (self.clf_target_size, box_size, size),
            (self.clf_scale, box_scale, scale),
        ):
            own.copy_(torch.where(by_mask, mask, torch.where(by_score, score, own)))


@dataclass(frozen=True)
class Found:
    """What a score map says; as `localisation.Localisation` where a second peak never counts."""

    score: Tensor
    """`[]`."""
    found: Tensor
    """`[] bool`."""
    place: Tensor
    """The peak, `[2] float32` (y, x) in image pixels."""
    scale: Tensor
    """Of the search region, `[]`."""


def localise(score_map: Tensor, placement: Placement, grid: Grid, config: TrackerConfig) -> Found:
    """Find the highest peak of a score map, `[h, w] float32`; of equal values the smallest column, then row, wins."""
    rows, columns = score_map.shape
    scores = score_map.t().flatten()
    place = scores.argmax(0, keepdim=True)
    peak = scores.gather(0, place)[0]
    cells = torch.cat([torch.remainder(place, rows), torch.div(place, rows, rounding_mode="floor")]).float()
    middle = torch.cat([grid.crop.new_full((1,), (rows - 1) / 2), grid.crop.new_full((1,), (columns - 1) / 2)])
    scale = placement.scale(grid)
    displacement = (cells - middle) * (grid.crop / (2 * middle)) * scale
    return Found(peak, peak >= config.not_found_threshold, placement.position + displacement, scale)


@dataclass(frozen=True)
class Outcome:
    """A frame's mask in numbers, all `float32`."""

    probability_sum: Tensor
    """Over the whole image, `[]`."""
    confidence_sum: Tensor
    """Inside the mask, `[]`."""
    area: Tensor
    """Pixels, `[]`."""
    box: Tensor
    """x, y, w, h, `[4]`; 0, 0, 1, 1 where the mask is empty."""
    lost: Tensor
    """No mask, or one pixel at the origin, which counts as none, `[] bool`."""


def outcome_of(scores: Tensor, probabilities: Tensor, grid: Grid) -> Outcome:
    """Measure the mask `scores > 0`, both maps `[H, W] float32`."""
    mask = scores > 0
    occupied = torch.cat([mask.any(1), mask.any(0)])
    beyond = float(sum(grid.image_size))
    lowest = torch.where(occupied, grid.image_cells, beyond)
    highest = torch.where(occupied, grid.image_cells, -1.0)
    (y0, x0), (y1, x1) = (
        (rows.amin(), columns.amin()) if first else (rows.amax(), columns.amax())
        for first, (rows, columns) in ((True, grid.split_image(lowest)), (False, grid.split_image(highest)))
    )
    empty = y1 < 0
    corner = torch.where(empty, 0.0, torch.stack([x0, y0]))
    extent = torch.where(empty, 1.0, torch.stack([x1 - x0 + 1, y1 - y0 + 1]))
    return Outcome(
        probability_sum=probabilities.sum(),
        confidence_sum=(probabilities * mask).sum(),
        area=mask.sum().float(),
        box=torch.cat([corner, extent]),
        lost=((corner == 0) & (extent == 1)).all(),
    )
