"""A sample memory whose bookkeeping lies on the device (`memory.SampleMemory` with the released rules)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rts_batch.tracking.memory import SampleMemory


class DeviceMemory:
    """Identical to a `SampleMemory` that replaces the lowest weight, but nothing of it has to be read by the host.

    All slots exist from the start; those not filled yet have the weight zero, which removes them from every sum.

    Args:
        memory: whose settings and shapes to take, with samples in it; `load` takes those.
    """

    def __init__(self, memory: SampleMemory, device: torch.device) -> None:
        self.capacity = memory.capacity
        self.learning_rate = memory.learning_rate
        self.minimum = memory.minimum_initial_weight
        self.slots = {name: torch.empty_like(values) for name, values in memory.slots.items()}
        self.weights = torch.zeros(memory.capacity, device=device)
        self.age = torch.zeros(memory.capacity, dtype=torch.int64, device=device)
        self.protected = torch.zeros(memory.capacity, dtype=torch.bool, device=device)
        self.prompt_weights = torch.zeros(memory.capacity, device=device)
        """What the prompts' samples weigh once they have fallen to the minimum."""
        self.counters = torch.zeros(3, dtype=torch.int64, device=device)
        self.count, self.last_slot, self.inserted = self.counters.split(1)
        """`[1] int64`; `last_slot` is −1 where no sample was inserted yet."""

    def load(self, memory: SampleMemory) -> None:
        """Take a memory of the host; from then on both share the samples, and `save` hands the rest back."""
        for name, values in self.slots.items():
            if values is not memory.slots[name]:
                values.copy_(memory.slots[name])
                memory.slots[name] = values
        self.weights.copy_(memory.weights)
        self.age.copy_(memory.age)
        self.protected.copy_(memory.protected)
        if self.minimum is not None:
            self.prompt_weights.copy_(memory.prompt_weights(self.minimum))
        self.count.fill_(memory.count)
        self.last_slot.fill_(-1 if memory.last_slot is None else memory.last_slot)
        self.inserted.fill_(memory.inserted)

    def save(self, memory: SampleMemory) -> None:
        """Write the bookkeeping back into the memory that was loaded."""
        memory.weights, memory.age = self.weights.to("cpu", copy=True), self.age.to("cpu", copy=True)
        count, last_slot, inserted = self.counters.tolist()
        memory.count, memory.inserted = count, inserted
        memory.last_slot = None if last_slot < 0 else last_slot

    def insert(self, sample: Mapping[str, Tensor], gate: Tensor) -> None:
        """Store a sample, `[…]` each without the slot axis, and update all weights where `gate`, `[] bool`."""
        lowest = self.weights.masked_fill(self.protected, torch.inf).argmin(0, keepdim=True)
        slot = torch.where(self.count < self.capacity, self.count, lowest)
        weights = self._updated(slot)
        self.weights.copy_(torch.where(gate, weights, self.weights))
        for name, values in sample.items():
            kept = self.slots[name]
            kept.index_copy_(0, slot, torch.where(gate, values[None], kept.index_select(0, slot)))
        self.inserted += gate
        self.age.scatter_(0, slot, torch.where(gate, self.inserted, self.age.gather(0, slot)))
        self.count.copy_(torch.where(gate, torch.maximum(self.count, slot + 1), self.count))
        self.last_slot.copy_(torch.where(gate, slot, self.last_slot))

    def _updated(self, slot: Tensor) -> Tensor:
        """The weights after a sample went into `slot` (§8)."""
        weights, rate, first = self.weights, self.learning_rate, self.last_slot < 0
        new = torch.where(first, rate, weights.gather(0, self.last_slot.clamp(min=0)) / (1 - rate))
        weights = torch.where(first, weights / (1 - rate), weights).scatter(0, slot, new)
        weights = weights / weights.sum()
        if self.minimum is None:
            return weights
        prompts = torch.where(self.protected, weights, 0.0)
        raised = torch.where(self.protected, self.prompt_weights, weights / (self.minimum + (weights - prompts).sum()))
        return torch.where(prompts.sum() < self.minimum, raised, weights)
