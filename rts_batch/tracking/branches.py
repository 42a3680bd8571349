"""Both branches' run-time part: target model, sample memory and the rules that decide when they learn.

Spec rts-tracker §6.1 (segmentation) and §9.2–§9.3 (localisation); §13 lists where the paper's rules differ from
the released code's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rts_batch.config import TrackerConfig
from rts_batch.model.instance_model import labels_in_crop
from rts_batch.model.rts import RTS
from rts_batch.tracking import first_frame
from rts_batch.tracking.localisation import Localisation
from rts_batch.tracking.maps import above
from rts_batch.tracking.memory import SampleMemory
from rts_batch.tracking.motion import moments, scale_of_target
from rts_batch.tracking.region import SearchRegion, sample_mask
from rts_batch.tracking.state import TrackerState
from rts_batch.tracking.warps import warped_crops


def trains_on(frame_number: int, config: TrackerConfig) -> bool:
    """Whether the released code trains the target models on this frame."""
    return frame_number < config.dense_frames or (frame_number - 1) % config.train_interval == 0


class Branch:
    """What both branches share: a memory and the schedule of learning."""

    def __init__(self, model: RTS, config: TrackerConfig, memory: SampleMemory) -> None:
        self.model = model
        self.config = config
        self.memory = memory
        self.filters = torch.empty(0)
        self.last_update = 1
        """Frame number at which the paper's schedule last stored a sample."""

    def _due(self, frame_number: int) -> bool:
        """Whether the target model is trained on this frame."""
        if self.config.rules == "paper" and frame_number >= self.config.dense_frames:
            return frame_number - self.last_update >= self.config.train_interval
        return trains_on(frame_number, self.config)

    def _stores(self, frame_number: int) -> bool:
        """Whether a sample is stored on this frame: always in the released code, only to train in the paper."""
        return self.config.rules == "code" or self._due(frame_number)

    def snapshot(self) -> dict[str, Any]:
        filters = self.filters.to("cpu", copy=True)
        return {"filters": filters, "last_update": self.last_update, "memory": self.memory.snapshot()}

    def restore(self, snapshot: Mapping[str, Any], device: torch.device) -> None:
        self.filters = snapshot["filters"].to(device, copy=True)
        self.last_update = snapshot["last_update"]
        self.memory.restore(snapshot["memory"], device)


class SegmentationBranch(Branch):
    """τ and its memory of features x_s with the encodings E_θ(y), W_θ(y) of their masks.

    A stored mask never changes, so it is encoded once, when it is stored.
    """

    def __init__(self, model: RTS, config: TrackerConfig) -> None:
        paper = config.rules == "paper"
        memory = SampleMemory(
            config.memory_size,
            config.learning_rate,
            minimum_initial_weight=config.init_samples_minimum_weight,
            replacement="oldest" if paper else "lowest_weight",
        )
        super().__init__(model, config, memory)

    @property
    def tau(self) -> Tensor:
        """τ, `[1, F, C, k, k]`."""
        return self.filters

    def start(self, state: TrackerState, image: Tensor, mask: Tensor) -> None:
        """Learn τ from zero on the first frame, image `[3, H, W] uint8` and mask `[H, W] float32`."""
        crops = first_frame.segmentation_crops(state, image, mask, self.config)
        warped = warped_crops(crops.images[:1], crops.masks[0], self.config.initial_warps)
        features = self.model.segmentation_features(torch.cat([crops.images, warped[0]]))
        labels, weights = self.model.label_encoder(torch.cat([crops.masks, warped[1]])[:, None])
        self.filters = features.new_zeros(1, *self.model.target_model.filter_shape)  # whatever was followed before
        self.memory.start(self._samples(features, labels[:, 0], weights[:, 0]))
        self.last_update = 1
        self._keep_prompt(state, features, crops.masks)
        self._learn(self.config.init_iterations, first=True)

    def correct(self, state: TrackerState, image: Tensor, mask: Tensor) -> None:
        """Learn a further prompt from the present τ on, image `[3, H, W] uint8` and mask `[H, W] float32`."""
        crops = first_frame.segmentation_crops(state, image, mask, self.config)
        features = self.model.segmentation_features(crops.images[:1])
        label, weight = self.model.label_encoder(crops.masks[:1, None])
        self.memory.anchor(self._sample(features, label[0], weight[0]))
        self.last_update = state.frame_number
        self._keep_prompt(state, features, crops.masks)
        self._learn(self.config.init_iterations)

    @staticmethod
    def _keep_prompt(state: TrackerState, features: Tensor, masks: Tensor) -> None:
        """Keep the plain crop's x_s and where the target is in it, which later masks are compared with."""
        grid = (features.shape[-2], features.shape[-1])
        state.prompt_features = features[0].clone()
        state.prompt_coverage = functional.adaptive_avg_pool2d(masks[:1], grid)[0]

    def update(self, state: TrackerState, previous: Tensor) -> None:
        """Store the previous frame with its probability map `[H, W] float32` and train τ when it is due (§6.1)."""
        config, now = self.config, state.frame_number
        if state.region is None or state.features is None or not config.update_target_model:
            return
        trusted = not state.lost_mask and not state.lost_localisation
        forced = config.rules == "code" and now < config.dense_frames
        if not (forced or trusted) or not self._stores(now):
            return
        mask = sample_mask(previous, state.region)
        label, weight = self.model.label_encoder(mask[None, None])
        self.memory.insert(self._sample(state.features[None], label[0], weight[0]))
        if self._due(now):
            self._learn(config.update_iterations)
        self.last_update = now

    def _samples(self, features: Tensor, labels: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """What the memory keeps of samples: x_s `[n, C, h, w]`, E_θ(y) and W_θ(y) `[n, F, h, w]`."""
        return {"features": features, "labels": labels, "weights": weights}

    def _sample(self, features: Tensor, label: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """What it keeps of one sample, given as in `_samples` with n = 1."""
        return {name: values[0] for name, values in self._samples(features, label, weight).items()}

    def _weights(self, *, first: bool) -> Tensor:
        """ω of each sample, `[n, …]`: its W_θ(y), after the first frame times its weight in the memory."""
        encoded = self.memory.stored("weights")
        if first:
            return encoded
        return encoded * self.memory.stored_weights.to(encoded.device).view(-1, *[1] * (encoded.ndim - 1))

    def _learn(self, iterations: int, *, first: bool = False) -> None:
        """Train τ on the memory, from zero on the first frame."""
        self.filters = self.model.target_model.learn(
            self.memory.stored("features")[:, None],
            self.memory.stored("labels")[:, None],
            self._weights(first=first)[:, None],
            iterations=iterations,
            start=None if first else self.tau,
        )[-1]


class LocalisationBranch(Branch):
    """κ and its memory of features x_c with Gaussian labels."""

    def __init__(self, model: RTS, config: TrackerConfig) -> None:
        paper = config.rules == "paper"
        memory = SampleMemory(
            config.localisation_memory_size,
            config.localisation_learning_rate,
            replacement="oldest" if paper else "lowest_weight",
            protect_initial=paper,
        )
        super().__init__(model, config, memory)

    @property
    def kappa(self) -> Tensor:
        """κ, `[1, 1, C, k, k]`."""
        return self.filters

    def start(self, state: TrackerState, image: Tensor, mask: Tensor) -> None:
        """Learn κ on the first frame's five samples (§5), image `[3, H, W] uint8`, mask `[H, W] float32`."""
        crops = first_frame.localisation_crops(state, image, mask, self.config)
        features = self.model.localisation_features(crops.images)
        centres = first_frame.first_label_centres(state, crops, self.config)
        labels = self._labels(centres, features)
        boxes = first_frame.first_boxes(state, centres, self.config).to(features.device)
        kappa = self.model.classifier.filter_initializer(features[:, None], boxes[:, None])
        self.memory.start({"features": features, "labels": labels})
        self.last_update = 1
        iterations = self.config.localisation_init_iterations
        self.filters = self.model.classifier.learn(kappa, features[:, None], labels[:, None], iterations=iterations)[-1]

    def correct(self, state: TrackerState, image: Tensor, mask: Tensor) -> None:
        """Learn a further prompt from the present κ on, image `[3, H, W] uint8` and mask `[H, W] float32`."""
        crops = first_frame.localisation_crops(state, image, mask, self.config)
        features = self.model.localisation_features(crops.images[:1])
        labels = self._labels(first_frame.first_label_centres(state, crops, self.config)[:1], features)
        self.memory.anchor({"features": features[0], "labels": labels[0]})
        self.last_update = state.frame_number
        self._learn(self.config.localisation_init_iterations)

    def update(
        self, state: TrackerState, features: Tensor, found: Localisation, tight: tuple[int, int, int, int] | None
    ) -> None:
        """Follow the target and learn from this frame (§9.2, §9.3).

        Args:
            state: with this frame's flags, probabilities and region set.
            features: x_c, `[1, C, h, w]`.
            found: the score map's answer.
            tight: the mask's tight box x, y, w, h; None where it is empty.
        """
        region = state.region
        assert region is not None
        self._follow(state, region, found, tight)
        config, now = self.config, state.frame_number
        if found.flag in ("not_found", "uncertain") or not config.update_localisation or not self._stores(now):
            return
        hard = found.flag == "hard_negative"
        centre = self._label_position(state, tight)
        labels = self._labels(((centre - region.position) / region.scale)[None], features)
        rate = config.hard_negative_learning_rate if hard else config.localisation_learning_rate
        self.memory.insert({"features": features[0], "labels": labels[0]}, learning_rate=rate)
        if hard:
            self._learn(config.hard_negative_iterations)
        elif self._due(now):
            self._learn(config.localisation_update_iterations)
        self.last_update = now

    def _learn(self, iterations: int) -> None:
        features, labels = self.memory.stored("features")[:, None], self.memory.stored("labels")[:, None]
        self.filters = self.model.classifier.learn(
            self.kappa,
            features,
            labels,
            iterations=iterations,
            sample_weights=self.memory.stored_weights.to(features.device),
        )[-1]

    def _follow(
        self,
        state: TrackerState,
        region: SearchRegion,
        found: Localisation,
        tight: tuple[int, int, int, int] | None,
    ) -> None:
        """Take the target's place from the mask, or from the score map where there is no usable mask (§9.2)."""
        config = self.config
        too_small = state.mask_too_small and config.rules == "code"
        if tight is not None and not state.lost_mask and not too_small:
            x, y, w, h = tight
            state.clf_position, state.clf_target_size = first_frame.target_of_box((x, y, w, h))
            state.clf_scale = scale_of_target(state.clf_target_size, config.search_area_scale, config.crop_size)
        elif found.flag != "not_found":
            low, high = state.clf_scale_bounds
            state.clf_scale = region.scale.clamp(min=low).clamp(max=high)
            state.clf_target_size = state.clf_base_target_size * state.clf_scale
            # The centre may leave the image by what keeps `target_inside_ratio` of the target in it.
            offset = (config.target_inside_ratio - 0.5) * state.clf_target_size
            limits = torch.tensor(state.probabilities.shape, dtype=torch.float32)
            place = region.position + found.displacement
            state.clf_position = torch.maximum(torch.minimum(place, limits - offset), offset)

    def _label_position(self, state: TrackerState, tight: tuple[int, int, int, int] | None) -> Tensor:
        """The label's centre: of the tight box (released code) or of the mask itself (paper)."""
        if self.config.rules == "paper" and tight is not None:
            centre = moments(above(state.probabilities, 0.5))
            if centre is not None:
                return centre[0]
        return state.clf_position

    def _labels(self, centres: Tensor, features: Tensor) -> Tensor:
        """Return Gaussian labels `[n, h', w']` for centres `[n, 2]`, crop pixels off the crop's centre (§5.3)."""
        return localisation_labels(centres, self.model, self.config, features).to(features.device)


def localisation_labels(centres: Tensor, model: RTS, config: TrackerConfig, features: Tensor) -> Tensor:
    """`LocalisationBranch._labels` on the centres' own device."""
    return labels_in_crop(
        centres,
        config.crop_size,
        (features.shape[-2], features.shape[-1]),
        model.config.localisation_filter_size,
        sigma_factor=config.localisation_sigma_factor / config.search_area_scale,
    )
