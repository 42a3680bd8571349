"""Everything a tracker remembers between frames, as one object that can be taken out and put back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rts_batch.errors import CheckpointError
from rts_batch.tracking.appearance import PromptLook
from rts_batch.tracking.region import SearchRegion

VERSION = 2
"""Of a `snapshot`.

1, which said no number, was begun when scales and pooled boxes were rounded in another order than the published one.
It holds the same quantities and every rule reads them alike, so it is gone on with: the rules of now from the next
frame on, the filters as they were learned. States of either without the prompt's features are gone on with as well:
only how good a mask is, is then estimated without knowing what the prompt looked like.
"""


@dataclass
class TrackerState:
    """The state of spec rts-tracker §1, less both branches (target models and memories).

    Vectors are (y, x) float32 on the CPU.
    """

    frame_number: int
    """The first frame is 1."""

    # Search state
    position: Tensor
    target_size: Tensor
    target_scale: Tensor
    """Image pixels per crop pixel of the next search region."""
    base_target_size: Tensor
    """Target size in crop pixels of the first frame."""
    scale_history: list[float]
    lost_frames: int

    # Localisation branch
    clf_position: Tensor
    clf_target_size: Tensor
    clf_scale: Tensor
    clf_base_target_size: Tensor
    clf_scale_bounds: tuple[float, float]

    # The previous frame's outcome
    lost_mask: bool
    mask_too_small: bool
    lost_localisation: bool
    probabilities: Tensor
    """`[H, W] float32`; after the first frame ±100 as published."""
    region: SearchRegion | None = None
    features: Tensor | None = None
    """x_s of the previous frame, `[C, h, w]`."""
    prompt_features: Tensor | None = None
    """x_s of the last prompt's frame, `[C, h, w]`; None where the prompt's mask is empty or nobody kept them."""
    prompt_coverage: Tensor | None = None
    """The share of each of its cells that the prompt's mask covers, `[h, w] float32`."""

    @cached_property
    def prompt_look(self) -> PromptLook | None:
        """What later frames are compared with; a prompt begins a new state, so that it stays."""
        if self.prompt_features is None or self.prompt_coverage is None:
            return None
        return PromptLook.of(self.prompt_features, self.prompt_coverage)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain containers of CPU tensors and values, sharing nothing with this object."""
        values = {item.name: _copy(getattr(self, item.name)) for item in dataclasses.fields(self)}
        values["version"] = VERSION
        if self.region is not None:
            region = self.region
            values["region"] = {item.name: _copy(getattr(region, item.name)) for item in dataclasses.fields(region)}
        return values

    @classmethod
    def restore(cls, values: dict[str, Any], device: torch.device) -> TrackerState:
        """Build the state of a `snapshot`; maps and features move to `device`.

        Raises:
            CheckpointError: it is of a version that this code does not know.
        """
        values = {name: _copy(value) for name, value in values.items()}
        version = values.pop("version", 1)
        if version not in (1, VERSION):
            raise CheckpointError(
                f"the tracker's state is of version {version}, and this code goes on with 1 and {VERSION}; "
                "begin the video again"
            )
        if values["region"] is not None:
            values["region"] = SearchRegion(**values["region"])
        for name in ("probabilities", "features", "prompt_features", "prompt_coverage"):
            if values.get(name) is not None:
                values[name] = values[name].to(device)
        return cls(**values)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(value)
    return value
