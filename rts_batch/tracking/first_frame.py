"""The first frame: its checks, a mask from a box, the first search state, and the crops both branches learn from.

Spec rts-tracker §3–§5. Vectors are (y, x) float32 on the CPU; images `[3, H, W] uint8` RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rts_batch.config import TrackerConfig
from rts_batch.errors import PromptError
from rts_batch.masks import Box
from rts_batch.model.sta import STA
from rts_batch.tracking.motion import scale_of_target
from rts_batch.tracking.region import paste_scores, place_region, sample_image, sample_mask
from rts_batch.tracking.state import TrackerState

EXPANSION = 2
"""The first frame is sampled this much wider than the crop, so that shifted windows of it are real pixels."""

SMALLEST_TARGET = 10
"""Pixels; bounds the localisation branch's scale from below."""

BLURS = ((3.0, 1.0), (1.0, 3.0), (2.0, 2.0))
"""(σ_y, σ_x) of the released first-frame augmentation."""

PAPER_TRANSLATIONS = 2
PAPER_BLUR = (2.0, 2.0)
PAPER_SHIFT = 1 / 6
"""Largest random translation as a share of the crop: about the target's own size."""


def check_mask(mask: NDArray[np.bool_], size: tuple[int, ...]) -> None:
    """Raise PromptError unless `mask` is `[H, W] bool`, of the frame's size and not empty."""
    if mask.dtype != np.bool_:
        raise PromptError(f"the mask is {mask.dtype}, whose values do not say which are the target; give it as bool")
    if mask.shape != tuple(size):
        ours = "×".join(str(length) for length in reversed(mask.shape))
        raise PromptError(f"the mask is {ours}, the frame {size[1]}×{size[0]}; give a mask of the frame's size")
    if not mask.any():
        raise PromptError("the mask is empty; a target needs at least one pixel")


def check_box(box: Box, size: tuple[int, ...]) -> None:
    """Raise PromptError unless the box (x, y, w, h) has an area and overlaps the frame."""
    x, y, w, h = box
    shown = ",".join(f"{value:g}" for value in box)
    if not all(np.isfinite(box)) or w <= 0 or h <= 0:
        raise PromptError(f"the box {shown} has no area; it is x,y,w,h in pixels")
    if x >= size[1] or y >= size[0] or x + w <= 0 or y + h <= 0:
        raise PromptError(f"the box {shown} (x,y,w,h) lies outside the frame of {size[1]}×{size[0]} pixels")


def target_of_box(box: Box) -> tuple[Tensor, Tensor]:
    """Return centre and size of a box (x, y, w, h)."""
    x, y, w, h = box
    position = torch.tensor([y + (h - 1) / 2, x + (w - 1) / 2], dtype=torch.float32)
    return position, torch.tensor([h, w], dtype=torch.float32)


@torch.inference_mode()
def mask_from_box(sta: STA | None, image: Tensor, box: Box, config: TrackerConfig) -> Tensor:
    """Return STA's mask of the box, `[H, W] float32` of 0 and 1; it may be empty (§4).

    Unlike the released code, a box that begins outside the frame is clamped, not wrapped around.
    """
    if sta is None:
        raise PromptError(
            "the prompt is a box, but the weights hold no box-to-mask network (STA); "
            "give a mask, or weights imported with `--sta`"
        )
    size = (image.shape[-2], image.shape[-1])
    check_box(box, size)
    crop_size = torch.tensor(config.crop_size, dtype=torch.float32)
    position, target_size = target_of_box(box)
    scale = scale_of_target(target_size, config.sta_search_area_scale, config.crop_size)
    region = place_region(position, scale * crop_size, size, config.crop_size, "replicate")
    crop = sample_image(image, region)
    if config.sta_normalise:
        crop = sta.feature_extractor.normalise(crop)
    crop_box = _box_in_crop(position - region.position, target_size, region.scale, crop_size)
    _, logits = sta(crop[None], crop_box.to(image.device)[None, None])
    scores, _ = paste_scores(logits[0, 0], region, size)
    return mask_within(scores, box)


def mask_within(scores: Tensor, box: Box) -> Tensor:
    """Return where scores, `[H, W]`, are above 0 within a box, truncated to whole pixels, as `[H, W] float32` (§4)."""
    x, y, w, h = (int(value) for value in box)
    inside = torch.zeros_like(scores, dtype=torch.bool)
    inside[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    return ((scores > 0) & inside).float()


def _box_in_crop(offset: Tensor, size: Tensor, scale: Tensor, crop_size: Tensor) -> Tensor:
    """Return x, y, w, h in crop pixels of a target `offset` image pixels off the crop's centre, `[4]`."""
    centre = offset / scale + (crop_size - 1) / 2
    extent = size / scale
    corner = centre - (extent - 1) / 2
    return torch.stack([corner[1], corner[0], extent[1], extent[0]])


def first_state(config: TrackerConfig, mask: Tensor, box: Box) -> TrackerState:
    """Return the state after the first frame (§3), from its mask `[H, W] float32` and the prompt's box."""
    position, size = target_of_box(box)
    scale = scale_of_target(size, config.search_area_scale, config.crop_size)
    base_size = size / scale
    limits = torch.tensor(mask.shape, dtype=torch.float32)
    too_small = bool(mask.sum() <= config.min_mask_area)
    return TrackerState(
        frame_number=1,
        position=position,
        target_size=size,
        target_scale=scale,
        base_target_size=base_size,
        scale_history=[float(scale)],
        lost_frames=0,
        clf_position=position,
        clf_target_size=size,
        clf_scale=scale,
        clf_base_target_size=base_size,
        clf_scale_bounds=(float((SMALLEST_TARGET / base_size).max()), float((limits / base_size).min())),
        lost_mask=too_small,
        mask_too_small=too_small,
        lost_localisation=False,
        probabilities=(mask - 0.5) * 200,
    )


@dataclass(frozen=True)
class FirstCrops:
    """The crops of the first frame that a branch learns from."""

    images: Tensor
    """`[n, 3, h, w] float32` RGB 0…255."""
    masks: Tensor
    """`[n, h, w] float32`."""
    offsets: Tensor
    """How far each crop moved the target's centre, (y, x) crop pixels, `[n, 2] float32`."""
    mirrored: list[bool]
    """Whether each crop is upside down."""


def segmentation_crops(state: TrackerState, image: Tensor, mask: Tensor, config: TrackerConfig) -> FirstCrops:
    """Return the segmentation branch's first samples (§3.4): one plain crop, shifted inside the frame.

    The window is cut out of a wider crop around the rounded position, so it differs by fractions of a pixel from what
    later frames sample.
    """
    size = (image.shape[-2], image.shape[-1])
    crop_size, limits = (torch.tensor(values, dtype=torch.float32) for values in (config.crop_size, size))
    extent = state.target_scale * crop_size
    extent = extent / (extent / limits).min().clamp(min=1)
    scale = (extent / crop_size).prod().sqrt()
    top_left = state.position - (extent - 1) / 2
    bottom_right = state.position + extent / 2 + 1
    shift = -((-top_left).clamp(min=0) - (bottom_right - limits).clamp(min=0)) / scale
    return _sample_first(state, image, mask, scale, (int(shift[0]), int(shift[1])), config)


def localisation_crops(state: TrackerState, image: Tensor, mask: Tensor, config: TrackerConfig) -> FirstCrops:
    """Return the localisation branch's first samples: five around the target, edges replicated (§5.2).

    Released rules: the crop, its mirror image (label and box are not mirrored) and three blurs; the paper's are those
    of `_sample_first`.
    """
    if config.rules == "paper":
        return _sample_first(state, image, mask, state.clf_scale, (0, 0), config)
    crop_size = torch.tensor(config.crop_size, dtype=torch.float32)
    size = (image.shape[-2], image.shape[-1])
    region = place_region(state.clf_position.round(), state.clf_scale * crop_size, size, config.crop_size, "replicate")
    crop = sample_image(image, region)
    images = [crop, crop.flip(-1), *(gaussian_blur(crop, sigma) for sigma in BLURS)]
    count = len(images)
    masks = sample_mask(mask, region).expand(count, -1, -1)
    return FirstCrops(torch.cat(images), masks, torch.zeros(count, 2), [False] * count)


def _sample_first(
    state: TrackerState, image: Tensor, mask: Tensor, scale: Tensor, shift: tuple[int, int], config: TrackerConfig
) -> FirstCrops:
    """Cut windows out of a crop of twice the size: the plain one, and with the paper's rules its augmentations.

    The paper's are a vertical flip, random translations (of a fixed seed) and a blur (§13).
    """
    height, width = config.crop_size
    wide = (EXPANSION * height, EXPANSION * width)
    size = (image.shape[-2], image.shape[-1])
    region = place_region(
        state.position.round(), scale * torch.tensor(wide, dtype=torch.float32), size, wide, "replicate"
    )
    wide_image, wide_mask = sample_image(image, region), sample_mask(mask, region)

    def window(move: tuple[int, int]) -> tuple[Tensor, Tensor]:
        rows = (torch.arange(height) + height // 2 - move[0]).clamp(0, wide[0] - 1).to(image.device)
        columns = (torch.arange(width) + width // 2 - move[1]).clamp(0, wide[1] - 1).to(image.device)
        return wide_image[..., rows, :][..., columns], wide_mask[rows][:, columns]

    crop, crop_mask = window(shift)
    samples = [(crop, crop_mask, (0.0, 0.0), False)]
    if config.rules == "paper":
        samples.append((crop.flip(-2), crop_mask.flip(-2), (0.0, 0.0), True))
        generator = torch.Generator().manual_seed(0)
        for _ in range(PAPER_TRANSLATIONS):
            drawn = 2 * torch.rand(2, generator=generator) - 1
            move = (int(drawn[0] * PAPER_SHIFT * height), int(drawn[1] * PAPER_SHIFT * width))
            samples.append((*window((shift[0] + move[0], shift[1] + move[1])), (float(move[0]), float(move[1])), False))
        samples.append((gaussian_blur(crop, PAPER_BLUR), crop_mask, (0.0, 0.0), False))
    images, masks, offsets, mirrored = zip(*samples, strict=True)
    return FirstCrops(torch.cat(images), torch.stack(masks), torch.tensor(offsets), list(mirrored))


def first_label_centres(state: TrackerState, crops: FirstCrops, config: TrackerConfig) -> Tensor:
    """Return where the target's centre lies in each first crop, `[n, 2]` crop pixels (y, x) off the crop's centre."""
    offset = (state.clf_position - state.clf_position.round()) / state.clf_scale
    sign = torch.tensor([[-1.0, 1.0] if mirrored else [1.0, 1.0] for mirrored in crops.mirrored])
    return (offset + crops.offsets) * sign


def first_boxes(state: TrackerState, centres: Tensor, config: TrackerConfig) -> Tensor:
    """Return the target's box in each first crop, `[n, 4]` as x, y, w, h in crop pixels (§5.4)."""
    crop_size = torch.tensor(config.crop_size, dtype=torch.float32)
    extent = state.clf_target_size / state.clf_scale
    corner = centres + (crop_size - 1) / 2 - (extent - 1) / 2
    return torch.stack([corner[:, 1], corner[:, 0], *extent.flip(0).expand(len(centres), 2).unbind(1)], dim=1)


def gaussian_blur(image: Tensor, sigma: tuple[float, float]) -> Tensor:
    """Blur `[B, C, H, W]` with (σ_y, σ_x), taps to ⌈2σ⌉; zeros outside, so borders darken as published (§5.2)."""
    for dim, deviation in zip((-2, -1), sigma, strict=True):
        half = int(np.ceil(2 * deviation))
        taps = torch.exp(-torch.arange(-half, half + 1, dtype=image.dtype).square() / (2 * deviation**2))
        length = image.shape[dim]
        padded = functional.pad(image, (0, 0, half, half) if dim == -2 else (half, half))
        # With so few taps and channels, sums of shifted images take a tenth of a convolution's time.
        image = torch.zeros_like(image)
        for place, tap in enumerate((taps / taps.sum()).tolist()):
            image.add_(padded.narrow(dim, place, length), alpha=tap)
    return image
