"""Clips synthesised from still pictures, so that training needs no video.

`random_scene` draws a moving scene: either a picture with everything in it moves and bends as a whole, or a cut-out
target travels over another picture, with objects like it, things that pass in front and, sometimes, a way out of the
frame and back. `StillClips` turns scenes into training clips: search regions as the tracker would take them, the
previous frame's mask as a tracker would remember it, and the faults of real footage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.training.clips.batches import ABSENT_BOX, Clip
from rts_batch.training.clips.stills.footage import Footage, frame_edge, nothing_outside
from rts_batch.training.clips.stills.random_scenes import random_scene
from rts_batch.training.clips.stills.scenes import FRAME, Matrix, Scene, view_of
from rts_batch.training.clips.stills.stills import Stills

SOLID = 128
"""Opacity from which a pixel belongs to a layer."""


@dataclass
class StillClips:
    """A `ClipMaker`: the first frame and `frames` − 1 later ones of a scene, each in a search region.

    Args:
        stills: the pictures.
        crop_size: height and width of the search regions.
        search_area_scale: side of the search region by that of the target; every clip varies it.
        frames: of a clip, the first of which is the train frame.
    """

    stills: Stills
    crop_size: tuple[int, int] = (240, 416)
    search_area_scale: float = 3.0
    frames: int = 4

    def __call__(self, rng: np.random.Generator) -> Clip:
        """Make one clip; scenes whose first frame shows too little of the target are drawn again.

        Its `skipped` names the bad pictures that this process has met for the first time.
        """
        known = len(self.stills.skipped)
        while True:
            clip = self._attempt(rng)
            if clip is not None:
                return replace(clip, skipped=tuple(self.stills.skipped.values())[known:])

    def _attempt(self, rng: np.random.Generator) -> Clip | None:
        scene = random_scene(self.stills, rng)
        search = self.search_area_scale * float(np.exp(rng.normal(0, 0.2)))
        box = _world_box(scene, 0.0)
        if box is None:
            return None
        look = Footage(rng)
        pad = tuple(
            int(p) for p in rng.uniform(0, 0.25, 4) * (*self.crop_size, *self.crop_size) * (rng.random(4) < 0.15)
        )
        images, masks, boxes, previous = [], [], [], []
        times = [0.0, *np.sort(rng.uniform(0.02, 1.0, self.frames - 1))]
        for index, t in enumerate(times):
            before = max(0.0, float(t) - float(rng.uniform(0.005, 0.06)))
            seen = _world_box(scene, before) if index else box
            box = box if seen is None else seen
            view = self._search_region(box, search, rng, first=index == 0)
            drawn = scene.render(float(t), view, self.crop_size)
            mask = (drawn.target >= SOLID).astype(np.uint8)
            image = look(drawn.image, drawn.target, rng)
            if any(pad):
                image, mask = frame_edge(image, pad), nothing_outside(mask, pad)
            if index == 0 and not 60 < mask.sum() < 0.6 * mask.size:
                return None
            quarter = (self.crop_size[0] // 4, self.crop_size[1] // 4)
            past = scene.render(before, np.diag([0.25, 0.25, 1.0]) @ view, quarter)
            images.append(image)
            masks.append(mask)
            boxes.append(mask_box(mask))
            previous.append(_remembered(past.target, past.others, rng))
        size = self.crop_size
        enlarged = [cv2.resize(p, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for p in previous]
        return Clip(
            torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()).float(),
            torch.from_numpy(np.stack(masks)).float(),
            torch.tensor(boxes, dtype=torch.float32),
            1,
            torch.from_numpy(np.stack(enlarged)),
        )

    def _search_region(
        self, box: tuple[float, float, float, float], search: float, rng: np.random.Generator, *, first: bool
    ) -> Matrix:
        """Return the view of the search region around a box, as badly centred and scaled as a tracker's."""
        x, y, w, h = box
        side = float(np.sqrt(max(w * h, 16.0)))
        spread, wide = (0.05, 0.15) if first else (0.15, 0.3)
        if not first:
            side *= float(np.exp(rng.normal(0, 0.2)))
        shift = rng.normal(0, spread, 2) * side
        if rng.random() < wide:
            shift = rng.uniform(-1, 1, 2) * np.array([1.5, 0.85]) * side * search / 3
        scale = np.sqrt(self.crop_size[0] * self.crop_size[1]) / (side * search)
        return view_of((x + w / 2 + shift[0], y + h / 2 + shift[1]), scale, self.crop_size)


def _world_box(scene: Scene, t: float) -> tuple[float, float, float, float] | None:
    """Return the box of the target's visible part at time t in the world, from a coarse drawing."""
    step, margin = 4, 0.25
    size = (int(FRAME[0] * (1 + 2 * margin)) // step, int(FRAME[1] * (1 + 2 * margin)) // step)
    view = view_of((FRAME[1] / 2, FRAME[0] / 2), 1 / step, size)
    box = mask_box((scene.render(t, view, size).target >= SOLID).astype(np.uint8))
    if box[2] <= 0:
        return None
    corner = np.linalg.inv(view) @ np.array([box[0], box[1], 1.0])
    return float(corner[0]), float(corner[1]), box[2] * step, box[3] * step


def mask_box(mask: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return the tight box x, y, w, h of a mask, `ABSENT_BOX` where it is empty."""
    x, y, w, h = cv2.boundingRect(mask)
    return (float(x), float(y), float(w), float(h)) if w else ABSENT_BOX


def _remembered(target: NDArray[np.uint8], others: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a mask as a tracker may have left it a frame ago: right, ragged, gone or elsewhere."""
    kind = rng.random()
    if kind < 0.35:
        return np.zeros(target.shape, np.float32)
    mask = target.astype(np.float32) / np.float32(255)
    if kind < 0.65:
        return mask
    if kind < 0.75 and others.any():
        wrong = others.astype(np.float32) / np.float32(255)
        return np.asarray(np.maximum(mask, wrong) if rng.random() < 0.6 else wrong, np.float32)
    reach = int(rng.integers(1, 5))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    mask = cv2.dilate(mask, kernel) if rng.random() < 0.4 else cv2.erode(mask, kernel) if rng.random() < 0.5 else mask
    height, width = mask.shape
    for _ in range(int(rng.integers(0, 4))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        inside = np.argwhere(mask > 0.5)
        if len(inside):
            y, x = inside[int(rng.integers(len(inside)))]
            centre = (int(x), int(y))
        axes = (int(rng.integers(2, 12)), int(rng.integers(2, 12)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.random() < 0.3), -1)
    move = np.array([[1, 0, rng.normal(0, 1.5)], [0, 1, rng.normal(0, 1.5)]], np.float32)
    return np.asarray(cv2.GaussianBlur(cv2.warpAffine(mask, move, (width, height)), (0, 0), 0.8), np.float32)
