"""From annotated frames to a clip: transforms of a set of frames, crops, transforms of single frames (§2–§5).

All draws come from the clip's own generator, in a fixed order, so that a clip depends on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.masks import Box
from rts_batch.training.clips.batches import Clip
from rts_batch.training.clips.crops import cut_out, jitter_box, place_region
from rts_batch.training.clips.datasets.base import AnnotatedFrame
from rts_batch.training.settings import ClipSettings

Matrix = NDArray[np.float64]


def make_clip(
    train: Sequence[AnnotatedFrame], test: Sequence[AnnotatedFrame], rng: np.random.Generator, settings: ClipSettings
) -> Clip:
    """Return the clip of train and test frames, augmented as `settings` say.

    Train frames share their colour and mirroring, test frames theirs; jitter, affine map and brightness are drawn
    anew for every frame.
    """
    images: list[Tensor] = []
    masks: list[Tensor] = []
    boxes: list[Box] = []
    for frames, centre, scale in (
        (train, settings.centre_jitter, settings.scale_jitter),
        (test, settings.test_centre_jitter, settings.test_scale_jitter),
    ):
        grey, flip = rng.random() < settings.grey, rng.random() < settings.flip
        for frame in frames:
            frame = mirror(frame) if flip else frame
            frame = drop_colours(frame) if grey else frame
            around = jitter_box(frame.box, rng, centre=centre, scale=scale)
            picture = (frame.mask.shape[0], frame.mask.shape[1])
            region = place_region(around, picture, settings.crop_size, area_factor=settings.search_area_factor)
            image, mask = cut_out(frame, region)
            box = region.to_crop(frame.box)
            if settings.rotation or settings.zoom:
                matrix = random_affine(rng, settings)
                image, mask, box = warp(image, mask, matrix, box)
            factor = 1 + settings.brightness * (2 * rng.random() - 1)
            images.append((torch.from_numpy(image).permute(2, 0, 1).float() * factor).clamp(0, 255))
            masks.append(torch.from_numpy(mask).float())
            boxes.append(box)
    return Clip(torch.stack(images), torch.stack(masks), torch.tensor(boxes), len(train))


def drop_colours(frame: AnnotatedFrame) -> AnnotatedFrame:
    """Return the frame in grey.

    The weights of red and blue are interchanged, as in the released training, which turns a BGR picture into grey as
    if it were RGB.
    """
    grey = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
    return AnnotatedFrame(np.repeat(grey[..., None], 3, axis=2), frame.mask, frame.box)


def mirror(frame: AnnotatedFrame) -> AnnotatedFrame:
    """Return the frame mirrored left to right; both corners of the box go from x to (W − 1) − x (§2)."""
    x, y, w, h = frame.box
    image, mask = (np.ascontiguousarray(values[:, ::-1]) for values in (frame.image, frame.mask))
    return AnnotatedFrame(image, mask, (frame.mask.shape[1] - 1 - (x + w), y, w, h))


def random_affine(rng: np.random.Generator, settings: ClipSettings) -> Matrix:
    """Return a rotation and zoom about the crop's middle, `[2, 3]`, from the crop to the crop (§5)."""
    height, width = settings.crop_size
    angle = settings.rotation * (2 * rng.random() - 1)
    scale = math.exp(settings.zoom * (2 * rng.random() - 1))
    matrix: Matrix = cv2.getRotationMatrix2D((0.5 * width, 0.5 * height), angle, scale)
    return matrix


def warp(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], matrix: Matrix, box: Box
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Box]:
    """Apply an affine map to a crop, its mask and its box; the box is the hull of its clamped corners."""
    height, width = mask.shape
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    mask = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    x, y, w, h = box
    corners = np.array([[x, y, 1], [x + w, y, 1], [x, y + h, 1], [x + w, y + h, 1]]) @ matrix.T
    corners = corners.clip(0, (width, height))
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return image, mask, (float(x0), float(y0), float(x1 - x0), float(y1 - y0))
