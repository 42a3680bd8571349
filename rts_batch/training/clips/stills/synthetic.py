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
from rts_batch.training.clips.stills.scenes import FRAME, Curve, Layer, Matrix, Motion, Scene, smooth_fields, view_of
from rts_batch.training.clips.stills.stills import Picture, Stills

IN_PLACE = 0.35
SAME_OBJECT_DISTRACTOR = 0.3
OCCLUDER = 0.45
UNION = 0.15
SOLID = 128
"""Opacity from which a pixel belongs to a layer."""


@dataclass(frozen=True)
class SceneOptions:
    """What a scene may contain; the defaults are the training's."""

    in_place: float = IN_PLACE
    distractors: int = 3
    """At most so many."""
    occluder: float = OCCLUDER
    absence: float = 0.15
    """Share of scenes whose target leaves the frame for a while (never in an in-place scene)."""
    pace: float = 1.0
    """How much is moving between t = 0 and 1, relative to training."""


TRAINING = SceneOptions()


def random_scene(stills: Stills, rng: np.random.Generator, options: SceneOptions = TRAINING) -> Scene:
    """Draws a scene from the stills."""
    picture = stills.draw(rng)
    target_mask = _choose_target(picture, rng)
    flat = (Curve(0, ()), Curve(0, ()), Curve(0, ()))
    if rng.random() < options.in_place:
        pose = _covering(picture, rng)
        layers = [_background(picture, target_mask, pose, rng, options.pace)]
        target = 0
        layers += [_occluder(stills, rng, options.pace)] if rng.random() < options.occluder / 2 else []
    else:
        other = stills.draw(rng) if rng.random() < 0.85 else picture
        blank = np.zeros(other.instances.shape, np.uint8)
        layers = [_background(other, blank, _covering(other, rng), rng, options.pace)]
        size = float(np.exp(rng.uniform(np.log(45), np.log(170))))
        place = (FRAME[1] * rng.uniform(0.2, 0.8), FRAME[0] * rng.uniform(0.25, 0.75))
        subject = _cutout(picture, target_mask, place, size, rng, options.pace, tint=0.12)
        if rng.random() < options.absence:
            leave = rng.uniform(0.2, 0.6)
            way = (float(rng.choice([-1.3, 1.3])) * FRAME[1], 0.0)
            motion = replace(subject.motion, absence=(leave, leave + rng.uniform(0.12, 0.3)), exit=way)
            subject = replace(subject, motion=motion)
        behind: list[Layer] = []
        front: list[Layer] = []
        for _ in range(int(rng.integers(0, options.distractors + 1))):
            layer = _distractor(stills, picture, target_mask, place, size, rng, options.pace)
            (behind if rng.random() < 0.6 else front).append(layer)
        target = 1 + len(behind)
        layers += [*behind, subject, *front]
        layers += [_occluder(stills, rng, options.pace)] if rng.random() < options.occluder else []
        flat = (Curve.random(rng, 1.5), Curve.random(rng, 1.5), Curve.random(rng, 0.15))
    return Scene(tuple(layers), target, (flat[0], flat[1]), Curve.random(rng, 0.15))


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
        """Makes one clip; scenes whose first frame shows too little of the target are drawn again."""
        while True:
            clip = self._attempt(rng)
            if clip is not None:
                return clip

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
            boxes.append(_mask_box(mask))
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
        """Returns the view of the search region around a box, as badly centred and scaled as a tracker's."""
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


def _choose_target(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns the mask of an instance, 0 or 255, larger ones likelier, sometimes with the instances it touches."""
    areas = np.array([np.count_nonzero(picture.instances == i) for i in picture.ids], float)
    weights = np.sqrt(areas)
    chosen = picture.ids[int(rng.choice(len(areas), p=weights / weights.sum()))]
    mask = (picture.instances == chosen).astype(np.uint8)
    if rng.random() < UNION:
        grown = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0
        touching = [i for i in np.unique(picture.instances[grown]) if i]
        mask = np.isin(picture.instances, touching).astype(np.uint8)
    return mask * np.uint8(255)


def _covering(picture: Picture, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Returns the pose of a picture that fills the frame."""
    height, width = picture.instances.shape
    fill = max(FRAME[0] / height, FRAME[1] / width)
    log_scale = float(np.log(fill) + rng.uniform(0, 0.4))
    return FRAME[1] / 2, FRAME[0] / 2, log_scale, float(rng.normal(0, 0.06))


def _motion(
    pose: tuple[float, float, float, float], rng: np.random.Generator, *, travel: float, change: float, pace: float
) -> Motion:
    def curve(scale: float) -> Curve:
        return Curve.random(rng, scale * pace)

    return Motion(
        pose, curve(travel), curve(0.6 * travel), curve(0.45 * change), curve(0.3 * change), curve(0.15 * change),
        (curve(0.08 * change), curve(0.08 * change)), (curve(1.0), curve(1.0)),
    )  # fmt: skip


def _background(
    picture: Picture,
    mask: NDArray[np.uint8],
    pose: tuple[float, float, float, float],
    rng: np.random.Generator,
    pace: float,
) -> Layer:
    in_place = bool(mask.any())
    motion = _motion(pose, rng, travel=40, change=0.8 if in_place else 0.4, pace=pace)
    fields = smooth_fields(rng, 7.0 if in_place else 2.0)
    layer = _layer(np.dstack([picture.image, mask]), motion, fields, rng, tint=0.06)
    return replace(layer, holds_target=in_place)


def _cutout(
    picture: Picture, mask: NDArray[np.uint8], place: tuple[float, float], size: float, rng: np.random.Generator,
    pace: float, *, tint: float,
) -> Layer:  # fmt: skip
    """Returns the pixels of `mask` as a layer whose box has `size`² world pixels, at `place` (x, y)."""
    x, y, w, h = cv2.boundingRect(mask)
    edge = 4
    rows, columns = slice(max(0, y - edge), y + h + edge), slice(max(0, x - edge), x + w + edge)
    alpha = cv2.GaussianBlur(cv2.copyMakeBorder(mask[rows, columns], 1, 1, 1, 1, cv2.BORDER_CONSTANT), (0, 0), 0.8)
    image = cv2.copyMakeBorder(picture.image[rows, columns], 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    log_scale = float(np.log(size / np.sqrt(w * h)))
    motion = _motion((*place, log_scale, float(rng.normal(0, 0.2))), rng, travel=110, change=1.0, pace=pace)
    fields = smooth_fields(rng, 0.04 * float(np.sqrt(w * h)))
    return _layer(np.dstack([image, alpha]), motion, fields, rng, tint=tint)


def _layer(
    rgba: NDArray[np.uint8], motion: Motion, fields: NDArray[np.float32], rng: np.random.Generator, *, tint: float
) -> Layer:
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    common = Curve.random(rng, tint)
    tints = tuple(replace(Curve.random(rng, tint / 2), drift=common.drift + rng.normal() * tint / 2) for _ in range(3))
    return Layer(np.ascontiguousarray(rgba), motion, fields, (tints[0], tints[1], tints[2]))


def _distractor(
    stills: Stills, picture: Picture, target: NDArray[np.uint8], place: tuple[float, float], size: float,
    rng: np.random.Generator, pace: float,
) -> Layer:  # fmt: skip
    """Returns an object that could be taken for the target: itself again, a neighbour of its picture, or another."""
    kind = rng.random()
    if kind < SAME_OBJECT_DISTRACTOR:
        mask = target
    else:
        picture = picture if kind < 0.6 else stills.draw(rng)
        mask = _choose_target(picture, rng)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 2.2) * size
    beside = (place[0] + distance * np.cos(angle), place[1] + 0.6 * distance * np.sin(angle))
    return _cutout(picture, mask, beside, size * float(np.exp(rng.normal(0, 0.3))), rng, pace, tint=0.1)


def _occluder(stills: Stills, rng: np.random.Generator, pace: float) -> Layer:
    """Returns something that passes in front: an object, or a bar or blob cut from a picture, in fast travel."""
    picture = stills.draw(rng)
    if rng.random() < 0.5:
        mask = _choose_target(picture, rng)
    else:
        height, width = picture.instances.shape
        mask = np.zeros((height, width), np.uint8)
        thin = float(rng.uniform(0.05, 0.35))
        axes = (int(width * thin / 2) + 2, int(height * rng.uniform(0.1, 0.5)))
        if rng.random() < 0.5:
            axes = (axes[1], axes[0])
        centre = (int(rng.uniform(0.3, 0.7) * width), int(rng.uniform(0.3, 0.7) * height))
        if rng.random() < 0.5:
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        else:
            corner = (centre[0] - axes[0], centre[1] - axes[1])
            cv2.rectangle(mask, corner, (centre[0] + axes[0], centre[1] + axes[1]), 255, -1)
    place = (FRAME[1] * rng.uniform(0, 1), FRAME[0] * rng.uniform(0.2, 0.8))
    size = float(np.exp(rng.uniform(np.log(40), np.log(150))))
    layer = _cutout(picture, mask, place, size, rng, pace, tint=0.05)
    return replace(layer, motion=replace(layer.motion, x=Curve.random(rng, 300 * pace)))


def _world_box(scene: Scene, t: float) -> tuple[float, float, float, float] | None:
    """Returns the box of the target's visible part at time t in the world, from a coarse drawing."""
    step, margin = 4, 0.25
    size = (int(FRAME[0] * (1 + 2 * margin)) // step, int(FRAME[1] * (1 + 2 * margin)) // step)
    view = view_of((FRAME[1] / 2, FRAME[0] / 2), 1 / step, size)
    box = _mask_box((scene.render(t, view, size).target >= SOLID).astype(np.uint8))
    if box[2] <= 0:
        return None
    corner = np.linalg.inv(view) @ np.array([box[0], box[1], 1.0])
    return float(corner[0]), float(corner[1]), box[2] * step, box[3] * step


def _mask_box(mask: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    x, y, w, h = cv2.boundingRect(mask)
    return (float(x), float(y), float(w), float(h)) if w else ABSENT_BOX


def _remembered(target: NDArray[np.uint8], others: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns a mask as a tracker may have left it a frame ago: right, ragged, gone or elsewhere."""
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
