"""The stages of a slot: what happens to one target before and after the network, without the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rts_batch.model.fast import instance
from rts_batch.model.fast.learner import Samples, border, fit, scores_of
from rts_batch.tracking.appearance import PromptLook
from rts_batch.tracking.branches import LocalisationBranch, SegmentationBranch, localisation_labels, trains_on
from rts_batch.tracking.gpu.graphs import Stage
from rts_batch.tracking.gpu.memory import DeviceMemory
from rts_batch.tracking.gpu.network import Rounds, Slot
from rts_batch.tracking.gpu.region import Grid, Placement, paste_scores, place_region, sample_image, sample_mask
from rts_batch.tracking.gpu.result import Number, Reading
from rts_batch.tracking.gpu.state import DeviceState, localise, outcome_of
from rts_batch.tracking.signals import Signal, signals_of
from rts_batch.tracking.state import TrackerState


class Branches(NamedTuple):
    """A tracker's two branches, which the host keeps for when the state is not in a slot."""

    segmentation: SegmentationBranch
    localisation: LocalisationBranch


class SlotSteps:
    """The stages of one slot, in images of one size until `resize`; `load` puts a tracker's state into them."""

    memory: type[DeviceMemory] = DeviceMemory
    rounds = Rounds
    """What runs the network for slots with such steps."""

    def __init__(self, slot: Slot, branches: Branches, image_size: tuple[int, int]) -> None:
        self.network = slot.network
        self.model, self.config, device = slot.network.model, slot.network.config, slot.network.device
        self.crop, self.previous_mask = slot.crops[0], slot.previous_masks[0]
        self.tau, self.kappa = slot.tau, slot.kappa
        self.x_s, self.x_c = slot.segmentation_features[0], slot.localisation_features[0]
        self.score_map, self.logits = slot.score_maps[0], slot.logits[0]
        self.stages: dict[str, Stage] = {}
        self.resize(image_size)
        self.state = DeviceState(self.grid, self.x_s)
        self.segmentation = self.memory(branches.segmentation.memory, device)
        self.localisation = self.memory(branches.localisation.memory, device)
        self.numbers = torch.zeros(Number.LENGTH, device=device)
        self.signals = torch.zeros(Signal.LENGTH + len(self.x_s), device=device)
        self.look = PromptLook.of(self.state.prompt_features, self.state.prompt_coverage)
        """What the prompt's frame looks like; it changes with the prompt only."""
        self.gate = torch.zeros((), dtype=torch.bool, device=device)
        """Whether the last frame is one to learn from."""
        self.found = torch.zeros((), dtype=torch.bool, device=device)
        """Whether this frame is one to learn to localise from."""
        self.remembered = torch.zeros(self.config.crop_size, device=device)
        """The last frame's probabilities in its own crop, `[h, w]`."""
        self.label = torch.zeros_like(self.score_map)
        """The Gaussian label of the last frame's target, `[h', w']`."""
        self.frame_number = 1
        self.has_previous = False
        self.stores = self.forced = self.due = False
        """Of the frame that is brought: whether the last one may be stored, must be, and is learned from."""

    def resize(self, image_size: tuple[int, int]) -> None:
        """Make room for images of another size."""
        self.image_size = (0, 0)  # should there be none: half of it is no target's
        self._make_room(image_size)
        self._forget_size()
        self.image_size = image_size

    def _make_room(self, image_size: tuple[int, int]) -> None:
        device = self.network.device
        self.grid = Grid(self.config.crop_size, image_size, device)
        self.frame = torch.zeros(*image_size, 3, dtype=torch.uint8, device=device)
        self.scores = torch.zeros(image_size, device=device)
        self.mask = torch.zeros(image_size, dtype=torch.bool, device=device)
        if hasattr(self, "state"):
            self.state.resize(self.grid)

    def _forget_size(self) -> None:
        """Drop what was captured for the size before."""
        self.stages.clear()

    def load(self, branches: Branches, state: TrackerState) -> None:
        """Take a tracker's state from the host."""
        self.frame_number, self.has_previous = state.frame_number, state.region is not None
        self.state.load(state)
        self.see_prompt()
        self.segmentation.load(branches.segmentation.memory)
        self.localisation.load(branches.localisation.memory)
        self.tau.copy_(branches.segmentation.tau)
        self.kappa.copy_(branches.localisation.kappa)

    def see_prompt(self) -> None:
        """Look at the prompt's frame that the state has."""
        self.look.take(PromptLook.of(self.state.prompt_features, self.state.prompt_coverage))

    def save(self, branches: Branches, state: TrackerState) -> None:
        """Write it back."""
        state.frame_number = self.frame_number
        if self.has_previous:
            self.state.save(state)
        self.segmentation.save(branches.segmentation.memory)
        self.localisation.save(branches.localisation.memory)
        branches.segmentation.filters = self.tau.clone()
        branches.localisation.filters = self.kappa.clone()

    def prepare(self, frame: Tensor, previous: Tensor | None) -> None:
        """Learn from the last frame and cut the crop out of the next, `[H, W, 3] uint8` of the host."""
        self._bring(frame, previous)
        self._stage(self._prepare, stores=self.stores, forced=self.stores and self.forced, due=self.due)()

    def _bring(self, frame: Tensor, previous: Tensor | None) -> None:
        self.frame_number += 1
        self.forced = self.frame_number < self.config.dense_frames
        self.stores = self.has_previous and self.config.update_target_model
        self.due = self.stores and trains_on(self.frame_number, self.config)
        self.frame.copy_(frame, non_blocking=True)
        if previous is not None:
            self.state.previous.copy_(previous)
        self.has_previous = True

    def finish(self) -> Reading:
        """Read what the network found, and learn to localise from it."""
        if self.stores and not self.due:  # which the network need not wait for
            self._stage(self._store)()
        self._stage(self._finish, due=trains_on(self.frame_number, self.config))()
        return self._read()

    def _read(self) -> Reading:
        return Reading(self.numbers, self.mask, self.signals, self.scores, fallback=self.config.localisation_fallback)

    def _stage(self, function: Callable[..., None], **arguments: bool) -> Stage:
        key = " ".join([function.__name__.strip("_"), *(name for name, given in arguments.items() if given)])
        if key not in self.stages:
            self.stages[key] = Stage(lambda: function(**arguments), self.network.engine.pool)
        return self.stages[key]

    def _prepare(self, stores: bool, forced: bool, due: bool) -> None:
        if stores:
            state = self.state
            self.gate.copy_(state.lost_mask.new_ones(()) if forced else ~(state.lost_mask | state.lost_localisation))
            self._remember()
        if due:
            self._store()
            self._learn_mask()
        self._look()

    def _remember(self) -> None:
        state = self.state
        self.remembered.copy_(sample_mask(state.previous, state.places, state.inside, self.grid))

    def _store(self) -> None:
        """`SegmentationBranch.update`: stores the last frame, as `_prepare` left it."""
        kernel = self.model.config.target_filter_size
        label, weight = self.model.label_encoder(self.remembered[None, None])
        sample = {
            "features": border(self.state.features, kernel).transpose(0, 1),
            "labels": border(label[0, 0], kernel),
            "weights": border(weight[0, 0], kernel),
        }
        self.segmentation.insert(sample, self.gate)

    def _learn_mask(self) -> None:
        """Train τ."""
        memory, width = self.segmentation, self.config.crop_size[1] // 16
        features = memory.slots["features"]
        samples = Samples(
            features,
            memory.slots["labels"],
            memory.slots["weights"] * memory.weights[:, None, None],
            scores_of(features, self.tau, width, memory.count),
            memory.count,
        )
        tau, _ = fit(
            self.tau,
            samples,
            width=width,
            reg=self.model.target_model.filter_optimizer.residual_module.filter_reg,
            iterations=self.config.update_iterations,
        )
        self.tau.copy_(torch.where(self.gate, tau, self.tau))

    def _look(self) -> None:
        """Set the next search region and cut the crop, and the last mask where the network reads it."""
        state = self.state
        state.update_search(self.config)
        placement = self._place()
        self.crop.copy_(sample_image(self.frame, placement, self.grid))
        state.keep_region(placement)
        if self.model.config.previous_mask:
            # Zero and one on the first frame, whose map is ±100; nothing once the mask is lost.
            seen = sample_mask(state.previous.clamp(0, 1), state.places, state.inside, self.grid)
            self.previous_mask.copy_(torch.where(state.lost_mask, 0.0, seen))

    def _place(self) -> Placement:
        """`Tracker._place_region`."""
        state, grid = self.state, self.grid
        size = state.target_scale * grid.crop
        cells = torch.div(grid.crop, 16, rounding_mode="floor")
        odd = torch.remainder(cells + self.model.config.target_filter_size, 2)
        return place_region(state.position + odd * state.target_scale * grid.crop / (2 * cells), size, grid)

    def _finish(self, due: bool) -> None:
        self._judge()
        self._measure()
        self.state.features.copy_(self.x_s)
        if self.config.update_localisation:
            self._keep_place()
            if due:
                self._learn_place()

    def _measure(self) -> None:
        self.signals.copy_(signals_of(self.logits, self.score_map, self.x_s, self.look))

    def _judge(self) -> None:
        """Paste the logits, follow the target, and write down what the host will read and learn from."""
        state, grid, config = self.state, self.grid, self.config
        placement = Placement.unpack(state.placement)
        scores, window = paste_scores(self.logits, placement, grid)
        probabilities = torch.sigmoid(scores)
        found = localise(self.score_map, placement, grid, config)
        outcome = outcome_of(scores, probabilities, grid)
        state.lost_mask.copy_(outcome.lost)
        state.mask_too_small.copy_(outcome.probability_sum <= config.min_mask_area)
        state.lost_localisation.copy_(~found.found)
        state.probabilities.copy_(probabilities)
        state.previous.copy_(probabilities)
        state.follow(found, outcome, config)
        centre = (state.clf_position - placement.position) / found.scale
        self.label.copy_(localisation_labels(centre[None], self.model, config, self.x_c)[0])
        self.scores.copy_(scores)
        self.mask.copy_(scores > 0)
        measured = torch.stack([found.score, outcome.probability_sum, outcome.confidence_sum, outcome.area])
        self.numbers.copy_(
            torch.cat([measured, state.flags.float(), outcome.box, state.clf_position, state.clf_target_size, window])
        )

    def _keep_place(self) -> None:
        """`LocalisationBranch.update`: stores this frame."""
        self.found.copy_(~self.state.lost_localisation)
        self.localisation.insert({"features": self.x_c, "labels": self.label}, self.found)

    def _learn_place(self) -> None:
        """Train κ."""
        memory = self.localisation
        kappa = instance.fit(
            self.model.classifier,
            self.kappa,
            memory.slots["features"],
            memory.slots["labels"],
            memory.weights,
            filled=memory.count,
            iterations=self.config.localisation_update_iterations,
        )
        self.kappa.copy_(torch.where(self.found, kappa, self.kappa))
