"""Clips of whole frames, for trainings that choose their own search regions as a tracker does, and for evaluation.

`WholeFrameClips` makes training clips; `rendered` draws a scene as a video with its truth, of any length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.training.clips.batches import Clip, clip_generator
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.footage import Footage
from rts_batch.training.clips.stills.random_scenes import SceneOptions, random_scene
from rts_batch.training.clips.stills.scenes import FRAME, Matrix, Scene, view_of
from rts_batch.training.clips.stills.stills import Stills
from rts_batch.training.clips.stills.synthetic import SOLID, mask_box

RUNS = SceneOptions(in_place=0.25, distractors=3, occluder=0.5, absence=0.3)
"""Scenes for training on runs: more absences than single crops have."""
AWAY = SceneOptions(in_place=0.2, distractors=4, occluder=0.5, absence=0.5, absence_length=(0.2, 0.45))
"""Scenes for training on long runs: half of the targets leave, and something like them is nearly always about."""
HARD = SceneOptions(in_place=0.2, distractors=3, absence=0.5, pace=0.8)
"""Scenes for some 30 frames of a tracker: look-alikes in most, and half of the targets leave the frame and return."""
LONG = SceneOptions(in_place=0.2, distractors=3, occluder=0.6, absence=0.5, pace=2.0)
"""Scenes for 60 frames and more: more drift, more that passes in front, absences of an eighth of the clip and more."""
SLOWEST, FASTEST = 0.15, 0.9
"""How much happens in a clip, relative to the scenes of single crops; each clip draws its own."""
SMALLEST_START = 600
"""Pixels that the target shows at least on a training clip's first frame."""
SMALLEST_TRUTH = 400
"""… and on the first frame of a clip whose truth is kept for comparison."""
BLURRED = 0.2
"""Share of the clips with motion blur, which averages `EXPOSURES` instants."""
EXPOSURES = 3


@dataclass
class WholeFrameClips:
    """A `ClipMaker` of whole frames: uint8 pictures and masks, boxes in frame pixels.

    Args:
        stills: the pictures.
        films: real footage to mix in.
        size: height and width of the frames.
        frames: of a clip, the first of which is the train frame.
        options: what the scenes contain; their pace is drawn for every clip.
        pace: how much happens at least and at most, relative to the scenes of single crops.
    """

    stills: Stills
    films: Films | None = None
    size: tuple[int, int] = (352, 624)
    frames: int = 6
    options: SceneOptions = RUNS
    pace: tuple[float, float] = (SLOWEST, FASTEST)

    def __call__(self, rng: np.random.Generator) -> Clip:
        """Make one clip; scenes whose first frame shows too little of the target are drawn again."""
        while True:
            clip = self._attempt(rng)
            if clip is not None:
                return clip

    def _attempt(self, rng: np.random.Generator) -> Clip | None:
        pace = float(np.exp(rng.uniform(*np.log(self.pace))))
        scene = random_scene(self.stills, rng, replace(self.options, pace=pace), self.films)
        look = Footage(rng)
        view = camera(self.size)
        shutter = float(rng.uniform(0.02, 0.1)) if rng.random() < BLURRED else 0.0
        images: list[NDArray[np.uint8]] = []
        masks: list[NDArray[np.uint8]] = []
        for t in np.linspace(0, 1, self.frames):
            image, mask = exposed(scene, float(t), shutter, view, self.size)
            if not masks and not SMALLEST_START < mask.sum() < 0.5 * mask.size:
                return None
            images.append(look(image, mask, rng))
            masks.append(mask)
        return Clip(
            torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(np.stack(masks)),
            torch.tensor([mask_box(mask) for mask in masks], dtype=torch.float32),
            1,
        )


def camera(size: tuple[int, int]) -> Matrix:
    """Return the view that shows the world's frame in a picture of `size` (height, width)."""
    return view_of((FRAME[1] / 2, FRAME[0] / 2), max(size[0] / FRAME[0], size[1] / FRAME[1]), size)


def exposed(
    scene: Scene, t: float, shutter: float, view: Matrix, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a picture that was exposed from t − shutter/2 to t + shutter/2, and the target's mask at t, 0 or 1."""
    drawn = scene.render(t, view, size)
    mask = (drawn.target >= SOLID).astype(np.uint8)
    if not shutter:
        return drawn.image, mask
    sum_of = drawn.image.astype(np.uint16)
    for place in range(1, EXPOSURES):
        moment = max(0.0, t + shutter * (place / (EXPOSURES - 1) - 0.5) * (1 if place % 2 else -1))
        sum_of += scene.render(moment, view, size).image
    return (sum_of // EXPOSURES).astype(np.uint8), mask


@dataclass(frozen=True)
class TruthClip:
    """A clip as a video: frames `[N, H, W, 3] uint8`, masks of the target and of other objects `[N, H, W] bool`."""

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    others: NDArray[np.bool_]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the target is to be seen on each frame, `[N]`."""
        return np.asarray(self.masks.any((1, 2)), np.bool_)


def rendered(scene: Scene, frames: int, size: tuple[int, int] = FRAME) -> TruthClip:
    """Draw the whole frame of a scene at `frames` instants from t = 0 to 1."""
    view = camera(size)
    drawn = [scene.render(float(t), view, size) for t in np.linspace(0, 1, frames)]
    return TruthClip(
        np.stack([item.image for item in drawn]),
        np.stack([item.target >= SOLID for item in drawn]),
        np.stack([item.others >= SOLID for item in drawn]),
    )


def truth_clips(
    stills: Stills,
    *,
    count: int,
    seed: int,
    frames: int,
    options: SceneOptions = LONG,
    films: Films | None = None,
) -> Iterator[TruthClip]:
    """Yield `count` clips; those whose target shows fewer than `SMALLEST_TRUTH` pixels at first are drawn again."""
    index = 0
    while count:
        scene = random_scene(stills, clip_generator(seed, index), options, films)
        index += 1
        first = scene.render(0.0, camera(FRAME), FRAME).target >= SOLID
        if np.count_nonzero(first) >= SMALLEST_TRUTH:
            count -= 1
            yield rendered(scene, frames)
