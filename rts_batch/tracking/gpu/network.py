"""The network for several targets as one batch, and the slots in which targets have their state on the device.

A batch always has the same places, and what lies in the others does not matter to a target, so its masks depend on
nothing but its own video. All of this is used in the engine's thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rts_batch.config import ModelConfig, TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.tracking.gpu.engine import Engine
from rts_batch.tracking.gpu.graphs import Stage

log = logging.getLogger(__name__)

SLOTS_KEPT = 16
"""With all that they hold on the device, for later targets."""

FEW = 4
"""Places that a large network runs one by one where cuDNN's heuristics decide alone: on an H100 two and four at once
took `rts50` longer than one after the other, eight did not, and `rts-mini` gained by four (`benchmarks/results/`)."""


class BatchedNetwork:
    """The network for as many targets at once as it has places.

    Args:
        model: the network, in eval mode.
        config: the procedure.
        places: of a batch.
        engine: in whose thread it runs; one of its own where absent.
        at_once: places that one run has, where that is not `places_at_once`.
    """

    def __init__(
        self,
        model: RTS,
        config: TrackerConfig,
        *,
        places: int = 1,
        engine: Engine | None = None,
        at_once: int | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.places = places
        self.device = next(model.parameters()).device
        self.at_once = at_once or places_at_once(places, model.config, self.device)
        self.engine = engine or Engine(self.device)
        self._free: list[Slot] = []
        self._kind: Any = None
        self.engine.call(self._build)

    def _build(self) -> None:
        model, config, places = self.model, self.config, self.at_once
        height, width = config.crop_size
        kernel = model.config.localisation_filter_size
        crops = torch.zeros(places, 3, height, width, device=self.device)
        previous_masks = torch.zeros(places, height, width, device=self.device)
        tau = torch.zeros(places, *model.target_model.filter_shape, device=self.device)
        kappa = torch.zeros(places, 1, model.config.feature_dim, kernel, kernel, device=self.device)
        self.inputs = (crops, previous_masks, tau, kappa)
        features, coarse, score_maps, logits = self._forward()  # which says what shapes come out
        # The kernels read the last two as they are usually laid out, and all place by place.
        self.outputs = (
            *(torch.zeros_like(values) for values in (features, coarse)),
            *(torch.zeros_like(values, memory_format=torch.contiguous_format) for values in (score_maps, logits)),
        )
        self.stage = self.captured(self._run)
        self.rounds = Rounds(self)

    def captured(self, function: Callable[[], None]) -> Stage:
        """Return a stage that is captured, as is best done while the device has nothing else to do."""
        stage = Stage(function, self.engine.pool)
        if self.engine.pool is not None:
            for _ in range(2):
                stage()
        return stage

    def be_ready_for(self, kind: Any, otherwise: Any) -> Any:
        """Capture what the rounds of slots' steps do for all slots together, and return the kind of the steps.

        Who asks first decides.

        Args:
            kind: a class of steps.
            otherwise: the class that is taken where the rounds of the first cannot be made.
        """
        if self._kind is None:
            self.engine.call(lambda: self._prepare_for(kind, otherwise))
        return self._kind

    def _prepare_for(self, kind: Any, otherwise: Any) -> None:
        if self._kind is not None:
            return
        try:
            self.rounds = kind.rounds(self)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a kernel that cannot be built or launched raises
            log.warning("%s cannot run here, so a frame takes longer: %s", kind.__name__, error)
            kind = otherwise
            self.rounds = kind.rounds(self)
        self._kind = kind

    def _forward(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        model = self.model
        crops, previous_masks, tau, kappa = self.inputs
        found = model.extract(crops)
        score_maps = model.localise(found.localisation[None], kappa)
        logits = model.segment(
            found.segmentation[None],
            found.maps,
            tau,
            score_maps if self.config.localisation_conditioning else None,
            previous_mask=previous_masks[None] if model.config.previous_mask else None,
        )
        return found.segmentation, found.localisation, score_maps[0], logits[0]

    def _run(self) -> None:
        for own, values in zip(self.outputs, self._forward(), strict=True):
            own.copy_(values)

    def run(self, slots: Sequence[Slot]) -> Callable[[], bool]:
        """Run it for slots that are prepared, no more than there are places; return what says whether that is done."""
        for first in range(0, len(slots), self.at_once):
            self.rounds.run(slots[first : first + self.at_once])
        return torch.cuda.current_stream().record_event().query if self.device.type == "cuda" else _done

    def lease(self) -> Slot:
        """Return a slot that nobody has, until it is given back."""
        return self._free.pop() if self._free else Slot(self)

    def give_back(self, slot: Slot) -> None:
        if len(self._free) < SLOTS_KEPT:
            self._free.append(slot)


def _done() -> bool:
    return True


class Rounds:
    """The network for slots whose own stages do what lies before and after it."""

    def __init__(self, network: BatchedNetwork) -> None:
        self.network = network
        self.stages: dict[str, Stage] = {}
        """What is done for all slots of a round together."""

    def run(self, slots: Sequence[Slot]) -> None:
        """Run it once, for slots that are prepared."""
        places = list(enumerate(slots))
        torch._foreach_copy_(
            [values[place] for place, _ in places for values in self.network.inputs],
            [values[0] for _, slot in places for values in slot.inputs],
        )
        self.network.stage()
        torch._foreach_copy_(
            [values[0] for _, slot in places for values in slot.outputs],
            [values[place] for place, _ in places for values in self.network.outputs],
        )


def places_at_once(places: int, config: ModelConfig, device: torch.device) -> int:
    """How many places of a batch one run of the network has: all of them, or one."""
    heuristics = device.type == "cuda" and not torch.backends.cudnn.benchmark  # which are `exact`'s
    return 1 if heuristics and config.backbone == "resnet50" and places <= FEW else places


class Slot:
    """Room for one target: what the network reads of it and writes for it, and its stages with their state.

    Tensors are those of one place of the network, with a first axis of 1.
    """

    def __init__(self, network: BatchedNetwork) -> None:
        self.network = network
        self.inputs = tuple(torch.zeros_like(values[:1]) for values in network.inputs)
        self.crops, self.previous_masks, self.tau, self.kappa = self.inputs
        self.outputs = tuple(torch.zeros_like(values[:1]) for values in network.outputs)
        self.segmentation_features, self.localisation_features, self.score_maps, self.logits = self.outputs
        self.steps: Any = None
        """Its stages, of whichever kind; they stay for its next targets."""
