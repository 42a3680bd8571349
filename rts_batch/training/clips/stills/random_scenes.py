"""Random scenes of still pictures: a target that stays in its picture or is cut out and pasted, and what is around it.

Beside the target there are objects like it, things that pass in front and, sometimes, a way out of the frame and back.
What is cut out turns as a relief and moves its limbs; the background is a picture or, with `films`, real footage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from rts_batch.training.clips.stills.curves import Curve
from rts_batch.training.clips.stills.deformation import random_limbs, random_relief, smooth_fields
from rts_batch.training.clips.stills.films import Films, Take
from rts_batch.training.clips.stills.scenes import FRAME, Layer, Motion, Scene
from rts_batch.training.clips.stills.stills import Kind, Still, Stills

IN_PLACE = 0.35
SAME_OBJECT_DISTRACTOR = 0.3
OCCLUDER = 0.45
UNION = 0.15
RIDER_UNION = 0.5
"""Of people in a picture with vehicles, who often sit on them."""
RELIEF = 0.5
LIMBS = 0.35
"""Shares of the cut-outs that turn as a relief and move limbs."""
MOVING_BACKGROUND = 0.15
"""Share of the backgrounds that are real footage, where there is any."""
FILM_FRAMES = 8
"""Frames of real footage in a scene."""


@dataclass(frozen=True)
class SceneOptions:
    """What a scene may contain; the defaults are the training's."""

    in_place: float = IN_PLACE
    distractors: int = 3
    """At most so many."""
    occluder: float = OCCLUDER
    absence: float = 0.15
    """Share of scenes whose target leaves the frame for a while (never in an in-place scene)."""
    absence_length: tuple[float, float] = (0.12, 0.3)
    """Shortest and longest absence, as shares of the scene."""
    pace: float = 1.0
    """How much is moving between t = 0 and 1, relative to single crops' training."""
    film: float = 0.1
    """Share of the scenes whose target is a real object in real footage, where there is any."""
    copies: bool = True
    """Whether the target's own picture may be there a second time, which no tracker can tell from the target."""


TRAINING = SceneOptions()


def random_scene(
    stills: Stills, rng: np.random.Generator, options: SceneOptions = TRAINING, films: Films | None = None
) -> Scene:
    """Draw a scene from the stills and, with `films`, from real footage."""
    if films is not None and rng.random() < options.film:
        take = films.draw(rng, frames=FILM_FRAMES, step=int(rng.integers(1, 4)))
        if take is not None:
            return _film_scene(take, stills, rng, options)
    kind = stills.draw_kind(rng)
    picture = stills.draw(rng, kind)
    target_mask = choose_target(picture, rng, kind)
    if not picture.objects.partial and rng.random() < options.in_place:
        return _scene_in_place(picture, target_mask, stills, rng, options)
    return _pasted_scene(picture, target_mask, kind, stills, rng, options, films)


def _scene_in_place(
    picture: Still, target_mask: NDArray[np.uint8], stills: Stills, rng: np.random.Generator, options: SceneOptions
) -> Scene:
    layers = [_background(picture.image, target_mask, rng, options.pace)]
    layers += [_occluder(stills, rng, options.pace)] if rng.random() < options.occluder / 2 else []
    return Scene(tuple(layers), 0, (Curve(0, ()), Curve(0, ())), Curve.random(rng, 0.15))


def _film_scene(take: Take, stills: Stills, rng: np.random.Generator, options: SceneOptions) -> Scene:
    """Return real footage of an object, seen by a camera that moves."""
    film = tuple(np.dstack([image, mask]) for image, mask in zip(take.frames, take.masks, strict=True))
    if rng.random() < 0.5:
        film = film[::-1] if take.masks[-1].any() else film
    background = _background(take.frames[0], take.masks[0], rng, options.pace, film=film)
    layers = [background]
    layers += [_occluder(stills, rng, options.pace)] if rng.random() < options.occluder / 2 else []
    return Scene(tuple(layers), 0, (Curve(0, ()), Curve(0, ())), Curve.random(rng, 0.1))


def _pasted_scene(
    picture: Still, target_mask: NDArray[np.uint8], kind: Kind | None, stills: Stills, rng: np.random.Generator,
    options: SceneOptions, films: Films | None,
) -> Scene:  # fmt: skip
    layers = [_other_background(picture, stills, rng, options, films)]
    size = float(np.exp(rng.uniform(np.log(45), np.log(170))))
    place = (FRAME[1] * rng.uniform(0.2, 0.8), FRAME[0] * rng.uniform(0.25, 0.75))
    subject = _cutout(picture, target_mask, place, size, rng, options.pace, tint=0.12)
    if rng.random() < options.absence:
        leave = rng.uniform(0.2, 0.6)
        way = (float(rng.choice([-1.3, 1.3])) * FRAME[1], 0.0)
        motion = replace(subject.motion, absence=(leave, leave + rng.uniform(*options.absence_length)), exit=way)
        subject = replace(subject, motion=motion)
    behind: list[Layer] = []
    front: list[Layer] = []
    for _ in range(int(rng.integers(0, options.distractors + 1))):
        layer, is_copy = _distractor(stills, picture, target_mask, kind, place, size, rng, options.pace)
        side = behind if rng.random() < 0.6 else front
        side += [layer] if options.copies or not is_copy else []
    layers += [*behind, subject, *front]
    layers += [_occluder(stills, rng, options.pace)] if rng.random() < options.occluder else []
    shake = (Curve.random(rng, 1.5), Curve.random(rng, 1.5))
    return Scene(tuple(layers), 1 + len(behind), shake, Curve.random(rng, 0.15))


def choose_target(picture: Still, rng: np.random.Generator, kind: Kind | None = None) -> NDArray[np.uint8]:
    """Return the mask of an instance of `kind`, 0 or 255, larger ones likelier, sometimes with those that it touches.

    People who touch a vehicle often are one target with it.
    """
    ids = picture.targets(kind)
    areas = np.array([np.count_nonzero(picture.instances == i) for i in ids], float)
    weights = np.sqrt(areas)
    chosen = ids[int(rng.choice(len(areas), p=weights / weights.sum()))]
    mask = (picture.instances == chosen).astype(np.uint8)
    rides = {"person", "vehicle"} <= set(picture.objects.kinds)
    if rng.random() < (RIDER_UNION if rides else UNION):
        grown = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0
        touching = [i for i in np.unique(picture.instances[grown]) if i]
        mask = np.isin(picture.instances, touching).astype(np.uint8)
    return mask * np.uint8(255)


def _covering(size: tuple[int, int], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return the pose of a picture of `size` (height, width) that fills the frame."""
    fill = max(FRAME[0] / size[0], FRAME[1] / size[1])
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
    image: NDArray[np.uint8], mask: NDArray[np.uint8], rng: np.random.Generator, pace: float,
    film: tuple[NDArray[np.uint8], ...] = (),
) -> Layer:  # fmt: skip
    """Return a picture that fills the frame, with the target's mask in it, if the target is part of it."""
    in_place = bool(mask.any())
    pose = _covering((image.shape[0], image.shape[1]), rng)
    motion = _motion(pose, rng, travel=40, change=0.8 if in_place else 0.4, pace=pace)
    fields = smooth_fields(rng, 7.0 if in_place and not film else 2.0)
    layer = _layer(np.dstack([image, mask]), motion, fields, rng, tint=0.06, film=film)
    return replace(layer, holds_target=in_place)


def _other_background(
    picture: Still, stills: Stills, rng: np.random.Generator, options: SceneOptions, films: Films | None
) -> Layer:
    """Return a background without the target: another picture, the target's own or real footage."""
    if films is not None and films.sequences and rng.random() < MOVING_BACKGROUND:
        images = films.background(rng, frames=FILM_FRAMES)
        blank = np.zeros(images[0].shape[:2], np.uint8)
        film = tuple(np.dstack([image, blank]) for image in images)
        return _background(images[0], blank, rng, options.pace, film=film)
    # An object whose own picture still shows it would be there twice, as a distractor without a mask of its own.
    other = stills.draw(rng) if rng.random() < 0.85 or not options.copies else picture
    return _background(other.image, np.zeros(other.instances.shape, np.uint8), rng, options.pace)


def _cutout(
    picture: Still, mask: NDArray[np.uint8], place: tuple[float, float], size: float, rng: np.random.Generator,
    pace: float, *, tint: float,
) -> Layer:  # fmt: skip
    """Return the pixels of `mask` as a layer whose box has `size`² world pixels, at `place` (x, y)."""
    x, y, w, h = cv2.boundingRect(mask)
    edge = 4
    rows, columns = slice(max(0, y - edge), y + h + edge), slice(max(0, x - edge), x + w + edge)
    alpha = cv2.GaussianBlur(cv2.copyMakeBorder(mask[rows, columns], 1, 1, 1, 1, cv2.BORDER_CONSTANT), (0, 0), 0.8)
    image = cv2.copyMakeBorder(picture.image[rows, columns], 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    log_scale = float(np.log(size / np.sqrt(w * h)))
    motion = _motion((*place, log_scale, float(rng.normal(0, 0.2))), rng, travel=110, change=1.0, pace=pace)
    fields = smooth_fields(rng, 0.04 * float(np.sqrt(w * h)))
    layer = _layer(np.dstack([image, alpha]), motion, fields, rng, tint=tint)
    alpha = layer.rgba[:, :, 3]
    relief = random_relief(alpha, rng, pace) if rng.random() < RELIEF else None
    limbs = random_limbs(alpha, rng, pace) if rng.random() < LIMBS else ()
    return replace(layer, relief=relief, limbs=limbs)


def _layer(
    rgba: NDArray[np.uint8], motion: Motion, fields: NDArray[np.float32], rng: np.random.Generator, *, tint: float,
    film: tuple[NDArray[np.uint8], ...] = (),
) -> Layer:  # fmt: skip
    if rng.random() < 0.5:
        rgba, film = rgba[:, ::-1], tuple(np.ascontiguousarray(frame[:, ::-1]) for frame in film)
    common = Curve.random(rng, tint)
    tints = tuple(replace(Curve.random(rng, tint / 2), drift=common.drift + rng.normal() * tint / 2) for _ in range(3))
    return Layer(np.ascontiguousarray(rgba), motion, fields, (tints[0], tints[1], tints[2]), film=film)


def _distractor(
    stills: Stills, picture: Still, target: NDArray[np.uint8], kind: Kind | None, place: tuple[float, float],
    size: float, rng: np.random.Generator, pace: float,
) -> tuple[Layer, bool]:  # fmt: skip
    """Return an object that could be taken for the target: itself again, a neighbour, its kind, or another.

    And whether it is the target itself, most of it or most of what is shown.
    """
    likeness = rng.random()
    if likeness < SAME_OBJECT_DISTRACTOR:
        mask, is_copy = target, True
    else:
        wanted = kind if likeness < 0.85 else stills.draw_kind(rng)
        own = picture
        picture = picture if likeness < 0.5 else stills.draw(rng, wanted)
        mask = choose_target(picture, rng, wanted)
        is_copy = picture is own and _mostly_shared(mask, target)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 2.2) * size
    beside = (place[0] + distance * np.cos(angle), place[1] + 0.6 * distance * np.sin(angle))
    layer = _cutout(picture, mask, beside, size * float(np.exp(rng.normal(0, 0.3))), rng, pace, tint=0.1)
    return layer, is_copy


def _mostly_shared(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two masks of a picture, 0 or 255, have more than half of the smaller one in common."""
    shared = np.count_nonzero(mask & other)
    return bool(shared > 0.5 * min(np.count_nonzero(mask), np.count_nonzero(other)))


def _occluder(stills: Stills, rng: np.random.Generator, pace: float) -> Layer:
    """Return something that passes in front: an object, or a bar or blob cut from a picture, in fast travel."""
    picture = stills.draw(rng)
    if rng.random() < 0.5:
        mask = choose_target(picture, rng)
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
