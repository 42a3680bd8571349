"""The sample memories of both branches and their weights (paper §3.3; spec rts-tracker §8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Replacement = Literal["lowest_weight", "oldest"]


class SampleMemory:
    """Samples in a fixed number of slots, each with a weight that decays as newer samples arrive.

    Args:
        capacity: slots.
        learning_rate: weight of a new sample relative to the ones before it.
        minimum_initial_weight: share kept for the first frame's samples together, which then are never replaced;
            None protects nothing, as the released instance memory does.
        replacement: which sample gives way when the memory is full, `lowest_weight` (released) or `oldest` (paper).
        protect_initial: never replace the first frame's samples even without a minimum weight (paper).
    """

    def __init__(
        self,
        capacity: int,
        learning_rate: float,
        *,
        minimum_initial_weight: float | None = None,
        replacement: Replacement = "lowest_weight",
        protect_initial: bool = False,
    ) -> None:
        self.capacity = capacity
        self.learning_rate = learning_rate
        self.minimum_initial_weight = minimum_initial_weight
        self.replacement = replacement
        self.protect_initial = protect_initial or minimum_initial_weight is not None
        self.weights = torch.zeros(capacity)
        self.slots: dict[str, Tensor] = {}
        self.count = 0
        self.initial_count = 0
        self.protected = torch.zeros(capacity, dtype=torch.bool)
        """Slots that are never overwritten: those of anchors, and the first frame's where these are protected."""
        self.last_slot: int | None = None
        self.inserted = 0
        self.age = torch.zeros(capacity, dtype=torch.int64)
        """When each slot was filled, counted in samples after the first frame's."""

    def start(self, samples: Mapping[str, Tensor]) -> None:
        """Store the first frame's samples, `[n, …]` each under its name, with equal weights."""
        count = len(next(iter(samples.values())))
        self.slots = {
            name: torch.zeros((self.capacity, *values.shape[1:]), dtype=values.dtype, device=values.device)
            for name, values in samples.items()
        }
        for name, values in samples.items():
            self.slots[name][:count] = values
        self.weights = torch.zeros(self.capacity)
        self.weights[:count] = 1 / count
        self.count = self.initial_count = count
        self.protected = torch.zeros(self.capacity, dtype=torch.bool)
        self.protected[:count] = self.protect_initial
        self.last_slot = None
        self.inserted = 0
        self.age.zero_()

    def insert(self, sample: Mapping[str, Tensor], *, learning_rate: float | None = None) -> int:
        """Store one sample, `[…]` each without the slot axis, update all weights and return its slot."""
        slot = self._choose_slot()
        self._update_weights(slot, self.learning_rate if learning_rate is None else learning_rate)
        self._store(slot, sample)
        self.last_slot = slot
        return slot

    def anchor(self, sample: Mapping[str, Tensor]) -> None:
        """Store the sample of a further prompt, `[…]` each, for good, and forget those that were tracked before it.

        They come from a tracker that had to be corrected. What stays are the prompts: the first frame's samples
        together and each anchor, all with the same weight. Anchors fill half of the memory at most; then the oldest
        gives way.
        """
        place = torch.arange(self.capacity)
        initial = place[(self.age == 0) & (place < self.initial_count)]
        anchors = place[self.protected & (self.age > 0)]
        room = max(min(self.capacity // 2, self.capacity - len(initial) - 1), 1)
        anchors = anchors[self.age[anchors].argsort()][max(len(anchors) + 1 - room, 0) :]
        kept = torch.cat([initial, anchors])
        for values in (*self.slots.values(), self.age):
            values[: len(kept)] = values[kept]
        self.age[len(kept) :] = 0
        self.initial_count = len(initial)
        self.count = len(kept)
        self.last_slot = None
        self.protected = (place < len(kept) + 1) & ((place >= len(initial)) | self.protect_initial)
        self.protected[-1] = False  # there is always a slot for what is tracked
        self._store(self.count, sample)
        self.weights = self.prompt_weights()

    def _store(self, slot: int, sample: Mapping[str, Tensor]) -> None:
        for name, values in sample.items():
            self.slots[name][slot] = values
        self.inserted += 1
        self.age[slot] = self.inserted
        self.count = max(self.count, slot + 1)

    def stored(self, name: str) -> Tensor:
        """Return the filled slots of `name`, `[count, …]`."""
        return self.slots[name][: self.count]

    @property
    def stored_weights(self) -> Tensor:
        """The weights of the filled slots, `[count] float32`, on the CPU."""
        return self.weights[: self.count]

    def _choose_slot(self) -> int:
        if self.count < self.capacity:
            return self.count
        order = self.weights if self.replacement == "lowest_weight" else self.age.double()
        # NumPy's argmin takes the first of equal values, torch's any of them.
        return int(order.masked_fill(self.protected, torch.inf).numpy().argmin())

    def prompt_weights(self, total: float = 1.0) -> Tensor:
        """Weights that add up to `total` over the prompts: the first frame's samples together count as one anchor."""
        anchors = self.protected.clone()
        anchors[: self.initial_count] = False
        prompts = int(anchors.sum()) + (self.initial_count > 0)
        shares = torch.full((self.capacity,), prompts, dtype=torch.float64)
        shares[: self.initial_count] *= self.initial_count
        members = anchors | (torch.arange(self.capacity) < self.initial_count)
        return (members * total / shares).float()

    def _update_weights(self, slot: int, learning_rate: float) -> None:
        weights = self.weights.clone()
        if self.last_slot is None:
            weights /= 1 - learning_rate
            weights[slot] = learning_rate
        else:
            weights[slot] = weights[self.last_slot] / (1 - learning_rate)
        weights /= weights.sum()
        minimum, prompts = self.minimum_initial_weight, self.protected
        if minimum is not None and weights[prompts].sum() < minimum:
            # As published: the sum may come out up to 1.006, and nothing normalises it again.
            weights /= minimum + weights[~prompts].sum()
            weights[prompts] = self.prompt_weights(minimum)[prompts]
        self.weights = weights

    def snapshot(self) -> dict[str, Any]:
        """Return the state as tensors and plain values; only filled slots are copied."""
        return {
            "slots": {name: self.stored(name).to("cpu", copy=True) for name in self.slots},
            "weights": self.weights.clone(),
            "age": self.age.clone(),
            "protected": self.protected.clone(),
            "count": self.count,
            "initial_count": self.initial_count,
            "last_slot": self.last_slot,
            "inserted": self.inserted,
        }

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Put a `snapshot` back."""
        self.count, self.initial_count = state["count"], state["initial_count"]
        self.last_slot, self.inserted = state["last_slot"], state["inserted"]
        self.weights, self.age = state["weights"].clone(), state["age"].clone()
        self.protected = state["protected"].clone()
        self.slots = {}
        for name, values in state["slots"].items():
            self.slots[name] = torch.zeros((self.capacity, *values.shape[1:]), dtype=values.dtype, device=device)
            self.slots[name][: self.count] = values
