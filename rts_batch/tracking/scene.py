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
from rts_batch.masks import Marking, TrackedFrame, smaller_on_top
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.estimates import Estimates
from rts_batch.tracking.maps import positive
from rts_batch.tracking.result import Pending, StepResult, target_state, tracked_frame
from rts_batch.tracking.tracker import Tracker

__all__ = ["Scene", "soft_aggregation"]

BACKGROUND_LIMIT = 1e-7


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
        results: dict[int, StepResult] = {}
        if followed:
            together = next(iter(followed.values())).step_together
            steps = [(tracker, image, self._merged[object_id]) for object_id, tracker in followed.items()]
            results = dict(zip(followed, together(steps), strict=True))
        for object_id, prompt in prompts.items():
            known = self.trackers.get(object_id)
            tracker = known or self._new_tracker()
            take = tracker.correct_scores if known else tracker.start_scores
            results[object_id] = take(image, mask=prompt.mask, box=prompt.box)
            self.trackers[object_id] = tracker
        results = dict(sorted(results.items()))
        self.trackers = dict(sorted(self.trackers.items()))
        if not results:
            return {}
        merged = next(iter(self.trackers.values())).on_device(lambda: self._merge(results, prompts))
        return {key: Pending.of(frame) for key, frame in merged.items()}

    def annotate(self, image: NDArray[np.uint8], prompts: Mapping[int, Marking]) -> dict[int, TrackedFrame]:
        """Return what each prompt says of its own frame, as if it were alone; the scene stays as it is.

        Args:
            image: `[H, W, 3] uint8` RGB.
            prompts: object id → prompt; their masks may overlap.
        """
        tracker = self._new_tracker()

        def read(prompt: Marking) -> TrackedFrame:
            result = tracker.annotate_scores(image, mask=prompt.mask, box=prompt.box)
            return tracked_frame(positive(result.scores), None, result, result.box, state="prompt")

        return tracker.on_device(lambda: {object_id: read(prompt) for object_id, prompt in sorted(prompts.items())})

    def _smaller_on_top(self, image: NDArray[np.uint8], prompts: dict[int, Marking]) -> dict[int, Marking]:
        """Return the prompts of one frame with masks that do not overlap; a box whose mask is empty stays a box.

        Raises:
            PromptError: a target of which nothing is left.
        """
        if len(prompts) < 2:
            return prompts
        reader = self._new_tracker()

        def read(prompt: Marking) -> NDArray[np.bool_]:
            if prompt.mask is not None:
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
    def _merge(self, results: dict[int, StepResult], prompts: dict[int, Marking]) -> dict[int, TrackedFrame]:
        labels, merged = soft_aggregation(torch.stack([result.scores for result in results.values()]))
        self._merged = dict(zip(results, merged, strict=True))
        masks, measures = measure_labels(labels, merged)
        frames = {}
        for (object_id, result), mask, measured in zip(results.items(), masks, measures, strict=True):
            prompted = object_id in prompts
            area, probability_sum, *box = measured
            confidence = 1.0 if prompted else probability_sum / area if area else None
            frames[object_id] = TrackedFrame(
                mask=mask,
                region=result.region,
                box=(box[0], box[1], box[2], box[3]) if area else None,
                area=int(area),
                score=None if prompted else result.score,
                confidence=confidence if area else None,
                state="prompt" if prompted else target_state(int(area), result),
                signals=None if prompted else result.signals,
            )
        return frames

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


def soft_aggregation(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Merge targets that were tracked independently.

    Args:
        scores: mask logits, `[K, H, W] float32`.

    Returns:
        Labels `[H, W] int64` (0 is background, k the k-th target; of equal probabilities the first wins) and
        probabilities `[K, H, W] float32`.
    """
    foreground = torch.sigmoid(scores)
    background = (1 - foreground).prod(0, keepdim=True).clamp(BACKGROUND_LIMIT, 1 - BACKGROUND_LIMIT)
    odds = torch.cat([torch.log(background / (1 - background)), scores])
    probabilities = torch.softmax(odds, dim=0)
    return probabilities.argmax(0), probabilities[1:]


def measure_labels(labels: Tensor, probabilities: Tensor) -> tuple[NDArray[np.bool_], list[list[float]]]:
    """Read merged targets back, in two transfers for all of them.

    Args:
        labels: `[H, W] int64`.
        probabilities: `[K, H, W] float32`.

    Returns:
        Masks, `[K, H, W] bool`, and for each target its pixels, the sum of its probabilities inside its mask, and the
        mask's tight box x, y, w, h, which means nothing where the mask is empty.
    """
    height, width = labels.shape
    places = torch.arange(1, len(probabilities) + 1, device=labels.device)
    masks = labels == places[:, None, None]
    rows, columns = masks.any(2).byte(), masks.any(1).byte()
    top, left = rows.argmax(1), columns.argmax(1)
    heights = height - rows.flip(1).argmax(1) - top
    widths = width - columns.flip(1).argmax(1) - left
    sums = (masks.sum((1, 2)), (probabilities * masks).sum((1, 2)))
    measures = torch.stack([values.double() for values in (*sums, left, top, widths, heights)], dim=1)
    return masks.cpu().numpy(), measures.tolist()
