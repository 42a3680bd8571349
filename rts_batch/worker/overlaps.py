"""Prompts of one frame that share pixels, which a scene that merges divides: the smaller target lies on top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rts_batch.errors import PromptError
from rts_batch.masks import Marking, lost_pixels, smaller_on_top


def shared_pixels(prompts: Mapping[int, Marking]) -> dict[int, int]:
    """Return object id → pixels that smaller targets will have of its mask; boxes have none before they are tracked."""
    masks = {object_id: prompt.mask for object_id, prompt in prompts.items() if prompt.mask is not None}
    return lost_pixels(masks, smaller_on_top(masks)) if len(masks) > 1 else {}


def check_left(prompts: Mapping[int, Marking], video: str, frame: int) -> None:
    """Raise PromptError where nothing is left of a mask."""
    for object_id, lost in shared_pixels(prompts).items():
        mask = prompts[object_id].mask
        if mask is not None and lost == mask.sum():
            raise PromptError(
                f"video {video}, object {object_id}, frame {frame}: the mask lies wholly under those of smaller "
                "targets, or of equally large ones with a lower object_id; separate the masks, or track each target by "
                "itself with --overlap allow"
            )


def warnings_of(lost: Mapping[int, int], frame: int) -> Iterator[str]:
    """Yield a warning for each target, by object id, of whose mask on a frame smaller targets have pixels."""
    for object_id, pixels in lost.items():
        yield f"frame {frame}: {pixels} pixels of object {object_id}'s mask are left to smaller targets on top of it"
