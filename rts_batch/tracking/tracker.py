"""One target through one video (paper §3; spec rts-tracker). The plain tracker: the oracle of the tests.

`Tracker.start` takes the first frame with a mask or a box, `Tracker.step` every further frame in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.errors import CheckpointError, PromptError
from rts_batch.masks import Box, State, TrackedFrame, mask_box
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking import first_frame
from rts_batch.tracking.branches import LocalisationBranch, SegmentationBranch
from rts_batch.tracking.localisation import localise
from rts_batch.tracking.maps import positive
from rts_batch.tracking.merging import LateResult
from rts_batch.tracking.motion import update_search_state
from rts_batch.tracking.region import SearchRegion, enlarge, paste_scores, place_region, sample_image, sample_mask
from rts_batch.tracking.result import Pending, StepResult, centred_box, prompt_result, tight_box, tracked_frame
from rts_batch.tracking.signals import signals_of
from rts_batch.tracking.state import TrackerState

T = TypeVar("T")


class Tracker:
    """Tracks one target.

    Args:
        model: the network, in eval mode.
        config: the procedure.
        sta: the box-to-mask network; needed to start from a box.
        segmentation: the segmentation branch's class.
    """

    _enlarge = staticmethod(enlarge)

    def __init__(
        self,
        model: RTS,
        config: TrackerConfig,
        *,
        sta: STA | None = None,
        segmentation: type[SegmentationBranch] = SegmentationBranch,
    ) -> None:
        self.model = model
        self.config = config
        self.sta = sta
        self.device = next(model.parameters()).device
        self.segmentation = segmentation(model, config)
        self.localisation = LocalisationBranch(model, config)
        self._state: TrackerState | None = None

    @property
    def state(self) -> TrackerState:
        if self._state is None:
            raise RuntimeError("the tracker has not been started; call start(frame, mask=… or box=…) first")
        return self._state

    def start(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> TrackedFrame:
        """Start on `frame`, `[H, W, 3] uint8` RGB, from a mask, `[H, W] bool`, or a box (x, y, w, h in pixels).

        Raises PromptError where neither fits the frame. A box without a mask needs the STA network; where a mask is
        given the box, if given as well, only sets the initial position and size.
        """
        return self._single_result(self.start_scores(frame, mask=mask, box=box), "prompt")

    def correct(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> TrackedFrame:
        """Take the next frame, `[H, W, 3] uint8` RGB, with a further prompt of the target instead of tracking into it.

        Position, size and history begin anew as on the first frame; both target models keep what they have learned
        and add a sample of this frame that is never forgotten. The frame's mask is the prompt's. The paper has no such
        step.
        """
        return self._single_result(self.correct_scores(frame, mask=mask, box=box), "prompt")

    def step(self, frame: NDArray[np.uint8]) -> TrackedFrame:
        """Track the target into the next frame, `[H, W, 3] uint8` RGB of the first frame's size."""
        return self._single_result(self.step_scores(frame), None)

    def step_late(self, frame: NDArray[np.uint8]) -> Pending:
        """`step`, without waiting for the result where a device still works on it."""
        return Pending.of(self.step(frame))

    @torch.inference_mode()
    def start_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        """`start` without reading the mask back; what a scene of several targets needs."""
        image = self._upload(frame)
        mask_map, box = self._read_prompt(image, mask, box)
        self._begin(image, mask_map, box)
        return prompt_result(mask_map, box, too_small=self.state.mask_too_small)

    @torch.inference_mode()
    def correct_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        """`correct` without reading the mask back."""
        frame_number = self.state.frame_number + 1
        image = self._upload_next(frame)
        mask_map, box = self._read_prompt(image, mask, box)
        self._state = first_frame.first_state(self.config, mask_map, box)
        self._state.frame_number = frame_number
        if mask_map.any():  # a box whose mask is empty says where the target is, but nothing of how it looks
            self.segmentation.correct(self._state, image, mask_map)
            self.localisation.correct(self._state, image, mask_map)
        return prompt_result(mask_map, box, too_small=self._state.mask_too_small)

    @torch.inference_mode()
    def annotate_scores(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> StepResult:
        """What a prompt says of its own frame; nothing is learned and the tracker is not started."""
        mask_map, box = self._read_prompt(self._upload(frame), mask, box)
        return prompt_result(mask_map, box, too_small=bool(mask_map.sum() <= self.config.min_mask_area))

    @torch.inference_mode()
    def step_scores(self, frame: NDArray[np.uint8], previous: Tensor | None = None) -> StepResult:
        """`step` without reading the mask back.

        `previous` replaces this tracker's own probability map of the previous frame, `[H, W] float32`, by one merged
        with those of other targets (paper's multi-object mode).
        """
        return self._track(self._upload_next(frame), self.state.probabilities if previous is None else previous)

    def _begin(self, image: Tensor, mask_map: Tensor, box: Box) -> None:
        """Start both branches on a frame, `[3, H, W] uint8`, with the target's mask, `[H, W] float32`."""
        self._state = first_frame.first_state(self.config, mask_map, box)
        self.segmentation.start(self._state, image, mask_map)
        self.localisation.start(self._state, image, mask_map)

    def _track(self, image: Tensor, previous: Tensor) -> StepResult:
        """Track the target into the next frame, `[3, H, W] uint8`, from its probabilities in the last one."""
        state = self.state
        state.frame_number += 1
        self.segmentation.update(state, previous)
        update_search_state(state, previous, self.config)
        region = self._place_region(image)
        features = self.model.extract(self._crop(image, region))

        score_map = self.model.localise(features.localisation[:, None], self.localisation.kappa)
        conditioning = score_map if self.config.localisation_conditioning else None
        logits = self.model.segment(
            features.segmentation[:, None],
            features.maps,
            self.segmentation.tau,
            conditioning,
            previous_mask=self._previous_mask(previous, region),
        )
        scores, window = paste_scores(logits[0, 0], region, (image.shape[-2], image.shape[-1]), self._enlarge)
        found = localise(score_map[0, 0], region, state.clf_position, state.clf_target_size, self.config)

        probabilities = torch.sigmoid(scores)
        probability_sum = float(probabilities.sum())
        tight = tight_box(scores, window)
        state.lost_mask = tight is None or tight == (0, 0, 1, 1)
        state.mask_too_small = probability_sum <= self.config.min_mask_area
        state.lost_localisation = found.flag == "not_found"
        state.probabilities, state.region, state.features = probabilities, region, features.segmentation[0]
        self.localisation.update(state, features.localisation, found, tight)
        measured = signals_of(logits[0, 0], score_map[0, 0], features.segmentation[0], state.prompt_look)
        return StepResult(
            scores=scores,
            region=window,
            box=self._report_box(tight),
            score=found.score,
            localised=not state.lost_localisation,
            mask_too_small=state.mask_too_small,
            probability_sum=probability_sum,
            signals=tuple(measured.tolist()),
        )

    @staticmethod
    def step_together(steps: Sequence[tuple[Tracker, NDArray[np.uint8], Tensor]]) -> list[LateResult]:
        """`step_scores` of several trackers that share a network: each with its next frame and previous map."""
        return [LateResult.of(tracker.step_scores(frame, previous)) for tracker, frame, previous in steps]

    @staticmethod
    def step_apart(trackers: Sequence[Tracker], frame: NDArray[np.uint8]) -> list[Pending]:
        """`step` of several trackers that share a network, each as if it were alone, with the same next frame."""
        return [tracker.step_late(frame) for tracker in trackers]

    def on_device(self, function: Callable[[], T]) -> T:
        """Call something that uses tensors of the tracker's device, where that may be done."""
        return function()

    def close(self) -> None:
        """Give back what it has on a device, for other targets; results may still be read, no frame may follow."""

    def snapshot(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as plain containers of CPU tensors and values."""
        return {
            "state": self.state.snapshot(),
            "segmentation": self.segmentation.snapshot(),
            "localisation": self.localisation.snapshot(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put a `snapshot` of a tracker with the same network and settings back; the next steps repeat bit for bit."""
        try:
            self._state = TrackerState.restore(snapshot["state"], self.device)
            self.segmentation.restore(snapshot["segmentation"], self.device)
            self.localisation.restore(snapshot["localisation"], self.device)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
            raise CheckpointError(f"this is not the state of a tracker of this version: {error!r}") from error

    def _upload(self, frame: NDArray[np.uint8]) -> Tensor:
        check_frame(frame)
        return torch.from_numpy(np.ascontiguousarray(frame)).to(self.device).permute(2, 0, 1)

    def _upload_next(self, frame: NDArray[np.uint8]) -> Tensor:
        check_frame(frame, self.state.probabilities.shape)
        return self._upload(frame)

    def _read_prompt(self, image: Tensor, mask: NDArray[np.bool_] | None, box: Box | None) -> tuple[Tensor, Box]:
        """Return a prompt's mask, `[H, W] float32`, and box; a mask wins over the box beside it."""
        size = (image.shape[-2], image.shape[-1])
        if mask is None:
            if box is None:
                raise PromptError("a target needs a mask or a box to start from; the prompt has neither")
            mask_map = first_frame.mask_from_box(self.sta, image, box, self.config)
            for _ in range(self.config.box_refinements):
                mask_map = self._refine(image, mask_map, box)
        else:
            first_frame.check_mask(mask, size)
            tight = mask_box(mask)
            assert tight is not None
            box = box if box is not None else (float(tight[0]), float(tight[1]), float(tight[2]), float(tight[3]))
            mask_map = torch.from_numpy(np.ascontiguousarray(mask)).to(self.device).float()
        first_frame.check_box(box, size)
        return mask_map, box

    def _refine(self, image: Tensor, mask_map: Tensor, box: Box) -> Tensor:
        """Return a box's mask drawn anew by a tracker that starts from it and tracks into the same frame.

        Its network knows more of outlines than the box's. A mask that is too small, or is lost, stays as it was.
        """
        if mask_map.sum() <= self.config.min_mask_area:
            return mask_map
        apart = Tracker(self.model, self.config, segmentation=type(self.segmentation))
        apart._begin(image, mask_map, box)
        drawn = first_frame.mask_within(apart._track(image, apart.state.probabilities).scores, box)
        return drawn if drawn.sum() > self.config.min_mask_area else mask_map

    def _place_region(self, image: Tensor) -> SearchRegion:
        """Place the search region around the target, moved so that filter and feature grid are centred (§6.3)."""
        state, crop_size = self.state, torch.tensor(self.config.crop_size, dtype=torch.float32)
        grid = torch.tensor([size // 16 for size in self.config.crop_size])
        odd = (grid + self.model.config.target_filter_size) % 2
        centre = state.position + odd * state.target_scale * crop_size / (2 * grid)
        size = state.target_scale * crop_size
        return place_region(centre, size, (image.shape[-2], image.shape[-1]), self.config.crop_size)

    def _crop(self, image: Tensor, region: SearchRegion) -> Tensor:
        """What the network sees of a frame, `[3, H, W] uint8`."""
        return sample_image(image, region)

    def _previous_mask(self, previous: Tensor, region: SearchRegion) -> Tensor | None:
        """The previous frame's probabilities in this frame's crop, for networks that read them; zero once lost."""
        if not self.model.config.previous_mask or self.state.lost_mask:
            return None
        # Zero and one on the first frame, whose map is ±100.
        return sample_mask(previous.clamp(0, 1), region)[None, None]

    def _report_box(self, tight: tuple[int, int, int, int] | None) -> Box:
        """The mask's tight box, or the localisation branch's where there is no usable mask (§6.8)."""
        state = self.state
        if (state.lost_mask or state.mask_too_small) and self.config.localisation_fallback:
            return centred_box(state.clf_position.tolist(), state.clf_target_size.tolist())
        x0, y0, w, h = tight if tight is not None else (0, 0, 1, 1)
        return (float(x0), float(y0), float(w), float(h))

    def _single_result(self, result: StepResult, state: State | None) -> TrackedFrame:
        """The frame of a target that is alone in its video: its own mask and the paper's box rule."""
        confidence = None if state == "prompt" else self.state.probabilities
        return tracked_frame(positive(result.scores), confidence, result, result.box, state=state)


def check_frame(frame: NDArray[np.uint8], first: Sequence[int] | None = None) -> None:
    """Raise ValueError unless `frame` is `[H, W, 3] uint8`, and PromptError unless it has the size of the `first`."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame is [H, W, 3] uint8 RGB; got shape {frame.shape}, {frame.dtype}")
    if first is not None and frame.shape[:2] != tuple(first):
        height, width, _ = frame.shape
        raise PromptError(f"the frame is {width}×{height}, the first was {first[1]}×{first[0]}; sizes must not change")
