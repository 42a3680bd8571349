"""Long free runs of a tracker over synthetic clips with their truth: what a quality map is fitted on.

Clips have drift, look-alikes, occlusions and disappearances; every second one is started from a box.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rts_batch.masks import Box, TrackedFrame, jaccard, mask_box
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.quality import History
from rts_batch.tracking.tracker import Tracker
from rts_batch.training.clips.batches import clip_generator
from rts_batch.training.clips.stills.films import Films
from rts_batch.training.clips.stills.footage import Footage
from rts_batch.training.clips.stills.random_scenes import SceneOptions, random_scene
from rts_batch.training.clips.stills.stills import Stills, read_index
from rts_batch.training.clips.stills.synthetic import SOLID
from rts_batch.training.clips.stills.whole_frames import SMALLEST_START, TruthClip, camera, rendered
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import Weights

FRAMES = (30, 60)
"""Shortest and longest clip."""
PACE = (0.15, 2.0)
"""How much happens in a clip, from hardly anything to more than in the hardest scenes of training."""
SIZES = ((272, 480), (352, 624), (480, 854))
SCENES = SceneOptions(in_place=0.25, distractors=3, occluder=0.5, absence=0.4, copies=False)
"""Without the target's own picture a second time: it taught the map to distrust what is right on footage."""


@dataclass(frozen=True)
class Runs:
    """Tracked frames of many clips, prompts left out; arrays of N frames."""

    clip: NDArray[np.int64]
    signals: NDArray[np.float32]
    """`[N, Signal.LENGTH + C]`."""
    box: NDArray[np.float64]
    """`[N, 4]`, NaN where there is none."""
    area: NDArray[np.int64]
    prompt_area: NDArray[np.int64]
    from_box: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    """Whether the tracker called the target lost."""
    present: NDArray[np.bool_]
    """Whether the target is to be seen."""
    iou: NDArray[np.float64]
    """With the truth; 1 where both masks are empty."""

    def inputs(self) -> NDArray[np.float64]:
        """Return the inputs of a map, `[N, len(INPUTS)]`."""
        rows: list[NDArray[np.float64]] = []
        nothing = np.zeros((0, 0), np.bool_)
        for place in range(len(self.clip)):
            box = self.box[place]
            frame = TrackedFrame(
                mask=nothing,
                region=(0, 0, 0, 0),
                box=None if np.isnan(box[0]) else (box[0], box[1], box[2], box[3]),
                area=int(self.area[place]),
                score=None,
                confidence=None,
                state="tracked",
                signals=tuple(self.signals[place].astype(float).tolist()),
            )
            if place == 0 or self.clip[place] != self.clip[place - 1]:
                history = History(prompt_area=float(self.prompt_area[place]), from_box=bool(self.from_box[place]))
            inputs = history.inputs(frame)
            assert inputs is not None
            rows.append(inputs)
        return np.array(rows)

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **vars(self))

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Runs:
        """Return what `track` yielded, each row with its `clip`."""
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        columns["signals"] = columns["signals"].astype(np.float32)
        return cls(**columns)

    @classmethod
    def joined(cls, parts: Sequence[Runs]) -> Runs:
        """Return several as one, their clips numbered on."""
        numbered, first = [], 0
        for part in parts:
            numbered.append(replace(part, clip=part.clip + first))
            first += int(part.clip.max()) + 1
        return cls(**{name: np.concatenate([vars(part)[name] for part in numbered]) for name in vars(numbered[0])})

    @classmethod
    def load(cls, path: Path) -> Runs:
        with np.load(path) as values:
            return cls(**values)


def start_on(tracker: Tracker, clip: TruthClip, *, box: bool) -> TrackedFrame:
    """Start on a clip's first frame from its mask, or from that mask's box."""
    if not box:
        return tracker.start(clip.frames[0], mask=clip.masks[0])
    tight = mask_box(clip.masks[0])
    assert tight is not None
    drawn: Box = (float(tight[0]), float(tight[1]), float(tight[2]), float(tight[3]))
    return tracker.start(clip.frames[0], box=drawn)


def track(tracker: Tracker, clip: TruthClip, *, box: bool) -> Iterator[dict[str, Any]]:
    """Track a clip's target from its first mask, or from that mask's box, and yield what `Runs` keeps of each frame."""
    first = start_on(tracker, clip, box=box)
    for image, mask in zip(clip.frames[1:], clip.masks[1:], strict=True):
        found = tracker.step(image)
        yield {
            "signals": found.signals,
            "box": found.box or (np.nan,) * 4,
            "area": found.area,
            "prompt_area": first.area,
            "from_box": box,
            "lost": found.state == "lost",
            "present": bool(mask.any()),
            "iou": jaccard(found.mask, mask),
        }


def long_clip(stills: Stills, films: Films | None, rng: np.random.Generator) -> TruthClip:
    """Draw a clip of any pace, length and size, looking as footage does; the target shows 400 pixels at first."""
    frames, size = int(rng.integers(*FRAMES)), SIZES[rng.integers(len(SIZES))]
    while True:
        pace = float(np.exp(rng.uniform(*np.log(PACE))))
        scene = random_scene(stills, rng, replace(SCENES, pace=pace), films)
        if np.count_nonzero(scene.render(0.0, camera(size), size).target >= SOLID) >= SMALLEST_START:
            break
    clip, look = rendered(scene, frames, size), Footage(rng)
    looks = [look(image, mask.astype(np.uint8), rng) for image, mask in zip(clip.frames, clip.masks, strict=True)]
    return replace(clip, frames=np.stack(looks))


def collect(
    weights: Weights, indexes: Sequence[Path], *, split: Literal["train", "held-out"], seed: int, seconds: float
) -> Runs:
    """Track clips until the time is up.

    Args:
        weights: the tracker's.
        indexes: of stills and footage.
        split: which of them.
        seed: of the clips; equal seeds draw equal clips.
        seconds: after which no further clip is begun.
    """
    stills, films = read_index(indexes, split=split), Films.read(indexes, split=split)
    model, sta = fast_networks(weights, "cpu")
    rows: list[dict[str, Any]] = []
    number, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        clip = long_clip(stills, films, clip_generator(seed, number))
        tracker = fast_tracker(model, weights.tracker_config, sta=sta)
        box = sta is not None and number % 2 == 1
        rows.extend({"clip": number, **row} for row in track(tracker, clip, box=box))
        number += 1
    return Runs.of(rows)
