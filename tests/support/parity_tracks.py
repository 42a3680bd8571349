"""Tracks of the published implementation: their frames and prompts, and trackers that run beside them.

The parity folder's README says what a track's file holds; `cases/frames.py` there derives frames and prompts.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco

from rts_batch.config import TRACKER_RTS50, StaConfig, TrackerConfig
from rts_batch.model.fast.networks import fast
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.branches import SegmentationBranch
from rts_batch.tracking.fast import FastSegmentationBranch
from rts_batch.tracking.region import SearchRegion
from rts_batch.tracking.tracker import Tracker
from tests.support.parity_data import golden_fill, parity_model

LAST_PLACES = 2e-6
"""Up to this relative difference, position, size and scale are the published ones but for the order of sums."""

NEAR = 0.01
"""A score as close as this to the threshold may fall to either side of it."""

PARTED = 0.02
"""A κ whose norm is this far from the published one, relative, is another filter: rounding has grown that far."""


class Synchronised(Tracker):
    """Takes each frame's search region from the published track, because rounding grows in a free run.

    With `free` only what differs in the last places is taken: where the crop is cut to the image's height, one of them
    is a pixel of the crop (spec rts-tracker §2, "Rounding hazard"), and the order of sums decides which way it falls.
    """

    row: dict[str, Any] | None = None
    free = False
    apart: dict[str, float]
    """How far position, size and scale were from the row's, relative."""

    kappa_before: float | None = None
    """The published norm of κ before a grey frame; None before any other."""

    def _place_region(self, image: torch.Tensor) -> SearchRegion:
        if self.row is not None:
            self.apart = {}
            for name, key in (("position", "pos"), ("target_size", "target_sz"), ("target_scale", "target_scale")):
                published = torch.tensor(self.row[key], dtype=torch.float32)
                self.apart[key] = float((getattr(self.state, name) / published - 1).abs().max())
                if not self.free or self.apart[key] <= LAST_PLACES:
                    setattr(self.state, name, published)
            self._follow_flag(self.row)
        return super()._place_region(image)

    def _follow_flag(self, row: dict[str, Any]) -> None:
        """Lets the row decide where rounding may take a score to the other side of the threshold.

        That is a score close to it, and the score of a grey frame, which is a number of κ's alone, after κ has parted.
        """
        threshold = self.published_threshold
        norm = float(self.localisation.kappa.norm())
        if self.kappa_before is not None and abs(norm / self.kappa_before - 1) > PARTED:
            threshold = 10.0 if row["flag"] == "not_found" else 0.0
        elif abs(row.get("max_score", 1) - threshold) < NEAR:
            threshold = max(threshold + (2 * NEAR if row["flag"] == "not_found" else -2 * NEAR), 0.0)
        self.config = replace(self.config, not_found_threshold=threshold)

    @cached_property
    def published_threshold(self) -> float:
        return self.config.not_found_threshold


@dataclass(frozen=True)
class Track:
    """A published track, and where its frames come from."""

    folder: Path
    davis: Path
    spec: dict[str, Any]
    start: dict[str, Any]
    rows: dict[int, dict[str, Any]]
    """By step; of `evict` some have the search region, the score and the flag alone."""

    def is_grey(self, step: int) -> bool:
        return self.spec["order"][step] == -1

    def frame(self, step: int) -> np.ndarray:
        return frames_of(self.folder).frame(self.davis, self.spec, step)

    def decode(self, rle: str) -> np.ndarray:
        return coco.decode({"size": self.spec.get("size", [480, 854]), "counts": rle.encode()}).astype(bool)

    def config(self) -> TrackerConfig:
        """The published settings with those that the track changes."""
        changed = ("distractor_threshold", "hard_negative_threshold", "min_mask_area")
        return replace(
            TRACKER_RTS50,
            crop_size=tuple(self.spec["crop"]),
            not_found_threshold=self.spec.get("not_found", 0.30),
            **{name: self.spec[name] for name in changed if name in self.spec},
        )

    def tracker(self, *, plain: bool) -> Synchronised:
        sta = _sta() if self.spec.get("weights") == "golden_sta" else None
        branch = SegmentationBranch if plain else FastSegmentationBranch
        return Synchronised(network(self.folder, plain=plain), self.config(), sta=sta, segmentation=branch)


def read_track(name: str, folder: Path, davis: Path) -> Track:
    """Returns a track of one target, of the folder itself or of its `cases`."""
    file = folder / f"{name}.json"
    content = json.loads((file if file.exists() else folder / "cases" / f"{name}.json").read_text())
    rows = {}
    for step, (y, x, height, width, scale, score, flag) in enumerate(content["spec"].get("all", ()), start=1):
        region = {"pos": [y, x], "target_sz": [height, width], "target_scale": scale}
        rows[step] = {**region, "max_score": score, "flag": flag}
    rows |= {row["frame"]: row for row in content["rows"]}
    return Track(folder, davis, content["spec"], content.get("start", {}), rows)


@lru_cache(maxsize=1)
def frames_of(folder: Path) -> ModuleType:
    """Returns the module that derives the tracks' frames."""
    spec = importlib.util.spec_from_file_location("parity_frames", folder / "cases" / "frames.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=2)
def network(folder: Path, *, plain: bool) -> RTS:
    """Returns the tracks' network, the plain one or the workers'."""
    return parity_model(folder) if plain else fast(network(folder, plain=True))


@lru_cache(maxsize=1)
def _sta() -> STA:
    sta = STA(StaConfig())
    sta.load_state_dict(golden_fill("sta"))
    return sta.requires_grad_(False)


def flag_of(tracker: Tracker) -> str:
    return "not_found" if tracker.state.lost_localisation else "normal"
