"""A slot whose targets' steps are Triton kernels, those of a round of targets together (`rounds.py`).

Identical to the `steps.py` of the folder above up to rounding, with a few launches where that has hundreds: on a GPU
the time of a frame outside the network is launches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rts_batch.tracking.branches import trains_on
from rts_batch.tracking.gpu.kernels.common import TILE_COLUMNS, TILE_ROWS, carry, launch, tiles_of
from rts_batch.tracking.gpu.kernels.rounds import COPIED, KernelRounds
from rts_batch.tracking.gpu.kernels.table import Field, Kept, address
from rts_batch.tracking.gpu.memory import DeviceMemory
from rts_batch.tracking.gpu.network import Slot
from rts_batch.tracking.gpu.result import Reading
from rts_batch.tracking.gpu.steps import Branches, SlotSteps
from rts_batch.tracking.memory import SampleMemory


def try_launch(device: torch.device) -> None:
    """Build and run a kernel; raise whatever keeps it from that."""
    values, copy = torch.ones(1, device=device), torch.zeros(1, device=device)
    row = torch.zeros(1, Field.LENGTH, dtype=torch.int64)
    row[0, Field.PREPARES], row[0, Field.TAU] = 1, values.data_ptr()
    launch(carry, (1, 1), row.to(device), copy, 1, FIELD=int(Field.TAU), AWAY=False, BLOCK=COPIED)
    if copy.item() != 1:
        raise RuntimeError("a kernel ran and did not write what it should")


class KernelMemory(DeviceMemory):
    """Identical to the parent; samples are stored by the kernels of a round."""

    def __init__(self, memory: SampleMemory, device: torch.device) -> None:
        super().__init__(memory, device)
        self.slot = torch.zeros(1, dtype=torch.int64, device=device)

    def row(self, gate: Tensor) -> dict[int, int]:
        """Return what a round's table says of it, from `Kept`'s beginning on."""
        own = {
            Kept.WEIGHTS: self.weights,
            Kept.AGE: self.age,
            Kept.PROTECTED: self.protected,
            Kept.PROMPT_WEIGHTS: self.prompt_weights,
            Kept.COUNTERS: self.counters,
            Kept.SLOT: self.slot,
            Kept.GATE: gate,
        }
        samples = {
            Kept.SAMPLES + number: self.slots[name]
            for number, name in enumerate(("features", "labels", "weights"))
            if name in self.slots
        }
        return {int(field): address(values) for field, values in (own | samples).items()}


class KernelSteps(SlotSteps):
    """Identical to the parent but for rounding; a round does all but the learning, which is the slot's own."""

    memory: type[KernelMemory] = KernelMemory
    rounds = KernelRounds
    segmentation: KernelMemory
    localisation: KernelMemory

    def __init__(self, slot: Slot, branches: Branches, image_size: tuple[int, int]) -> None:
        super().__init__(slot, branches, image_size)
        self.place = 0
        """Of the network's, in the round in which it is or was last."""
        self.to_prepare = self.to_learn = self.to_finish = False
        """What the round has not done yet: a round that failed is tried again, target by target."""

    def _make_room(self, image_size: tuple[int, int]) -> None:
        super()._make_room(image_size)
        height, width = image_size
        down, across = tiles_of(height, TILE_ROWS), tiles_of(width, TILE_COLUMNS)
        device = self.network.device
        self._rows = torch.zeros(across, height, device=device)
        self._columns = torch.zeros(down, width, device=device)
        self._partial = torch.zeros(down * across, 8, device=device)

    def _forget_size(self) -> None:
        """What is captured depends on no size."""

    def prepare(self, frame: Tensor, previous: Tensor | None) -> None:
        self._bring(frame, previous)
        self.to_prepare, self.to_learn, self.to_finish = True, self.due, True

    def learn(self) -> None:
        """Train τ, where that is due, and give it to the network."""
        if self.to_learn:
            self._stage(self._learn_mask)()
            self.network.inputs[2][self.place].copy_(self.tau[0])
            self.to_learn = False

    def measure(self) -> None:
        """Measure by tensor operations, where the kernels cannot."""
        features, _, score_maps, logits = self.network.outputs
        for own, values in ((self.x_s, features), (self.score_map, score_maps), (self.logits, logits)):
            own.copy_(values[self.place])
        self._stage(self._measure)()

    def finish(self) -> Reading:
        if self.config.update_localisation and trains_on(self.frame_number, self.config):
            self._stage(self._learn_place)()
        return self._read()

    def row(self) -> list[int]:
        """Return what a round's table says of it."""
        state, look = self.state, self.look
        row = [0] * Field.LENGTH
        row[Field.PREPARES], row[Field.FINISHES] = int(self.to_prepare), int(self.to_finish)
        row[Field.STORES], row[Field.FORCED] = int(self.to_prepare and self.stores), int(self.forced)
        row[Field.HEIGHT], row[Field.WIDTH] = self.image_size
        for field, values in {
            Field.FRAME: self.frame,
            Field.VALUES: state.values,
            Field.FLAGS: state.flags,
            Field.PLACES: state.places,
            Field.INSIDE: state.inside,
            Field.PROBABILITIES: state.probabilities,
            Field.PREVIOUS: state.previous,
            Field.SCORES: self.scores,
            Field.MASK: self.mask,
            Field.NUMBERS: self.numbers,
            Field.SIGNALS: self.signals,
            Field.LABEL: self.label,
            Field.FEATURES: state.features,
            Field.TAU: self.tau,
            Field.KAPPA: self.kappa,
            Field.ROWS: self._rows,
            Field.COLUMNS: self._columns,
            Field.PARTIAL: self._partial,
            Field.LOOK_MEAN: look.mean,
            Field.LOOK_CELLS: look.cells,
            Field.LOOK_TARGET: look.target,
            Field.LOOK_BACKGROUND: look.background,
        }.items():
            row[field] = address(values)
        for first, own in (
            (Field.SEGMENTATION, self.segmentation.row(self.gate)),
            (Field.LOCALISATION, self.localisation.row(self.found)),
        ):
            for offset, place in own.items():
                row[first + offset] = place
        return row
