"""Several targets in one video: one tracker each, merged by soft aggregation (spec rts-tracker §10)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.config import Overlap, QualityMap, TrackerConfig
from rts_batch.errors import CheckpointError, PromptError
from rts_batch.masks import Marking, TrackedFrame, lost_pixels, smaller_on_top
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.estimates import Estimates
from rts_batch.tracking.first_frame import check_mask
from rts_batch.tracking.maps import positive
from rts_batch.tracking.merging import LateResult, measure_labels, merged_frame, soft_aggregation
from rts_batch.tracking.result import Pending, tracked_frame
from rts_batch.tracking.tracker import Tracker

__all__ = ["Scene", "soft_aggregation"]


class Scene:
    """The targets of one video. Close it, or use it as a context manager, so that others get its room on the device.

    Args:
        model: the network, shared by all targets.
        config: the procedure.
        sta: the box-to-mask network, needed where prompts are boxes.
        single: the video has exactly one target: no merging, and the paper's box rule (a lost mask's box is the
            localisation branch's). With several targets the box is the merged mask's.
        overlap: `merge`: each pixel belongs to one target at most. `allow`: each target is tracked as if it were alone.
        quality: estimates how good each mask is; None estimates nothing.
        tracker: makes the tracker of each target: a class, plain or fast, or one with arguments of its own bound.
    """

    def __init__(
        self,
        model: RTS,
        config: TrackerConfig,
        *,
        sta: STA | None = None,
        single: bool,
        overlap: Overlap = "merge",
        tracker: Callable[..., Tracker] = Tracker,
        quality: QualityMap | None = None,
    ) -> None:
        self._estimates = Estimates(quality)
        self.model = model
        self.single = single
        self.overlap = overlap
        self._new_tracker = partial(tracker, model, config, sta=sta)
        self.trackers: dict[int, Tracker] = {}
        self._absent: set[int] = set()
        """Targets that are said not to be in the picture, until they are marked again."""
        self._merged: dict[int, Tensor] = {}
        self.divided: dict[int, int] = {}
        """Object id → pixels of its prompt's mask, on the frame stepped into last, that smaller targets on top have."""

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the targets have on the device; results may still be read, no frame may follow."""
        for tracker in self.trackers.values():
            tracker.close()
        self.trackers = {}

    def step(
        self, image: NDArray[np.uint8], prompts: Mapping[int, Marking] | None = None
    ) -> Mapping[int, TrackedFrame]:
        """Track every started target into the next frame and start or correct the ones that `prompts` mark on it.

        Args:
            image: `[H, W, 3] uint8` RGB; all of a video's frames have one size.
            prompts: object id → prompt of targets that are marked on this frame, for the first time or again, or that
                are said to be absent: those are `lost`, and not looked for, until they are marked again.

        Returns:
            object id → result, for every target started so far, ids ascending; on a GPU a result is waited for when
            it is looked up.
        """
        prompts = dict(sorted((prompts or {}).items()))
        marked = {object_id: prompt for object_id, prompt in prompts.items() if not prompt.absent}
        gone = prompts.keys() - marked.keys()
        if unknown := gone - self.trackers.keys():
            raise PromptError(f"object {min(unknown)} is said to be absent before it was marked")
        self.divided = {}
        self._absent = (self._absent | gone) - marked.keys()
        still = self.trackers.keys() - marked.keys() - self._absent
        followed = {object_id: tracker for object_id, tracker in self.trackers.items() if object_id in still}
        frames = self._step_marked(image, marked, followed)
        frames |= {object_id: Pending.of(_lost_frame(image)) for object_id in self._absent}
        return self._estimates.of(dict(sorted(frames.items())), marked)

    def _step_marked(
        self, image: NDArray[np.uint8], prompts: dict[int, Marking], followed: dict[int, Tracker]
    ) -> dict[int, Pending]:
        """`step` of the targets that are in the picture."""
        if self.single and len(self.trackers.keys() | prompts.keys()) > 1:
            raise PromptError("this scene was opened for one target only; open it with single=False")
        if self.single or self.overlap == "allow":
            return self._step_apart(image, prompts, followed)
        prompts = self._smaller_on_top(image, prompts)
        results: dict[int, LateResult] = {}
        if followed:
            together = next(iter(followed.values())).step_together
            steps = [(tracker, image, self._merged[object_id]) for object_id, tracker in followed.items()]
            results = dict(zip(followed, together(steps), strict=True))
        for object_id, prompt in prompts.items():
            known = self.trackers.get(object_id)
            tracker = known or self._new_tracker()
            take = tracker.correct_scores if known else tracker.start_scores
            results[object_id] = LateResult.of(take(image, mask=prompt.mask, box=prompt.box))
            self.trackers[object_id] = tracker
        results = dict(sorted(results.items()))
        self.trackers = dict(sorted(self.trackers.items()))
        if not results:
            return {}
        return next(iter(self.trackers.values())).on_device(lambda: self._merge(results, prompts))

    def annotate(self, image: NDArray[np.uint8], prompts: Mapping[int, Marking]) -> dict[int, TrackedFrame]:
        """Return what each prompt says of its own frame, as if it were alone; the scene stays as it is.

        Args:
            image: `[H, W, 3] uint8` RGB.
            prompts: object id → prompt; their masks may overlap. What is said to be absent is `lost`.
        """
        tracker = self._new_tracker()

        def read(prompt: Marking) -> TrackedFrame:
            if prompt.absent:
                return _lost_frame(image)
            result = tracker.annotate_scores(image, mask=prompt.mask, box=prompt.box)
            return tracked_frame(positive(result.scores), None, result, result.box, state="prompt")

        return tracker.on_device(lambda: {object_id: read(prompt) for object_id, prompt in sorted(prompts.items())})

    def _smaller_on_top(self, image: NDArray[np.uint8], prompts: dict[int, Marking]) -> dict[int, Marking]:
        """Return the prompts of one frame with masks that do not overlap, and note in `divided` which ones did.

        A box whose mask is empty stays a box.

        Raises:
            PromptError: a mask that is none, or a target of which nothing is left.
        """
        if len(prompts) < 2:
            return prompts
        reader = self._new_tracker()

        def read(prompt: Marking) -> NDArray[np.bool_]:
            if prompt.mask is not None:
                check_mask(prompt.mask, image.shape[:2])
                return prompt.mask
            result = reader.annotate_scores(image, box=prompt.box)
            return reader.on_device(lambda: positive(result.scores).cpu().numpy())

        masks = {object_id: read(prompt) for object_id, prompt in prompts.items()}
        kept = smaller_on_top({object_id: mask for object_id, mask in masks.items() if mask.any()})
        for object_id, mask in kept.items():
            if not mask.any():
                raise PromptError(
                    f"object {object_id}: its mask lies wholly under those of smaller targets on the same frame, or of "
                    "equally large ones with a lower object_id; separate them, or track each by itself with "
                    "--overlap allow"
                )
        self.divided = lost_pixels(masks, kept)
        return {object_id: Marking(mask=kept.get(object_id), box=prompt.box) for object_id, prompt in prompts.items()}

    def _step_apart(
        self, image: NDArray[np.uint8], prompts: dict[int, Marking], followed: dict[int, Tracker]
    ) -> dict[int, Pending]:
        """`_step_marked` of targets of which none knows of another."""
        frames: dict[int, Pending] = {}
        if followed:
            trackers = list(followed.values())
            frames = dict(zip(followed, trackers[0].step_apart(trackers, image), strict=True))
        for object_id, prompt in prompts.items():
            known = self.trackers.get(object_id)
            tracker = known or self._new_tracker()
            take = tracker.correct if known else tracker.start
            frames[object_id] = Pending.of(take(image, mask=prompt.mask, box=prompt.box))
            self.trackers[object_id] = tracker
        self.trackers = dict(sorted(self.trackers.items()))
        return frames

    @torch.inference_mode()
    def _merge(self, results: dict[int, LateResult], prompts: dict[int, Marking]) -> dict[int, Pending]:
        labels, merged = soft_aggregation(torch.stack([result.scores for result in results.values()]))
        self._merged = dict(zip(results, merged, strict=True))
        measured = measure_labels(labels, merged)
        return {
            object_id: Pending(partial(merged_frame, measured, place, result.read, prompted=object_id in prompts))
            for place, (object_id, result) in enumerate(results.items())
        }

    def snapshot(self) -> bytes:
        """Return the state of all targets, for `restore` in another process or on another device."""
        content = io.BytesIO()
        torch.save(
            {
                "single": self.single,
                "targets": {object_id: tracker.snapshot() for object_id, tracker in self.trackers.items()},
                "absent": sorted(self._absent),
                "estimates": self._estimates.snapshot(),
                "merged": self._moved_maps(self._merged, torch.device("cpu")),
            },
            content,
        )
        return content.getvalue()

    def _moved_maps(self, maps: Mapping[int, Tensor], device: torch.device) -> dict[int, Tensor]:
        tracker = self._new_tracker()
        return tracker.on_device(lambda: {int(key): values.to(device, copy=True) for key, values in maps.items()})

    def restore(self, snapshot: bytes) -> None:
        """Put back the state of a scene with the same network and settings.

        Raises:
            CheckpointError: the bytes are damaged, or another kind of scene's or another version's.
        """
        try:
            state = torch.load(io.BytesIO(snapshot), weights_only=True)
        except Exception as error:  # whatever damaged bytes make of the loader
            raise CheckpointError(f"the tracker's state cannot be read: {error}") from error
        try:
            if state["single"] != self.single:
                raise CheckpointError("the state belongs to a scene of another kind (one target against several)")
            device = next(self.model.parameters()).device
            self._merged = self._moved_maps(state["merged"], device)
            self._estimates.restore(state.get("estimates", {}))  # an earlier version's has none
            self._absent = set(state.get("absent", ()))
            self.close()
            for object_id, target in state["targets"].items():
                tracker = self._new_tracker()
                tracker.restore(target)
                self.trackers[int(object_id)] = tracker
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"this is not the state of a scene of this version: {error!r}") from error


def _lost_frame(image: NDArray[np.uint8]) -> TrackedFrame:
    """The row of a target that is not in the picture, as a person has said."""
    mask = np.zeros(image.shape[:2], np.bool_)
    return TrackedFrame(mask, (0, 0, 0, 0), None, 0, score=None, confidence=None, state="lost")
