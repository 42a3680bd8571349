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
        """Slots that are never overwritten: the first frame's where these are protected, and those of anchors."""
        self.last_slot: int | None = None
        self._inserted = 0
        self._age = torch.zeros(capacity, dtype=torch.int64)

    def start(self, samples: Mapping[str, Tensor]) -> None:
        """Stores the first frame's samples, `[n, …]` each under its name, with equal weights."""
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
        self._inserted = 0
        self._age.zero_()

    def insert(self, sample: Mapping[str, Tensor], *, learning_rate: float | None = None, anchor: bool = False) -> int:
        """Stores one sample, `[…]` each without the slot axis, updates all weights and returns its slot.

        An anchor, the sample of a further prompt, is never overwritten and shares the first frame's minimum weight.
        """
        slot = self._choose_anchor_slot() if anchor else self._choose_slot()
        self._update_weights(slot, self.learning_rate if learning_rate is None else learning_rate)
        for name, values in sample.items():
            self.slots[name][slot] = values
        self._inserted += 1
        self._age[slot] = self._inserted
        if not anchor:  # the next ordinary sample's weight grows from the last one's, not from a minimum
            self.last_slot = slot
        self.count = max(self.count, slot + 1)
        return slot

    def stored(self, name: str) -> Tensor:
        """Returns the filled slots of `name`, `[count, …]`."""
        return self.slots[name][: self.count]

    @property
    def stored_weights(self) -> Tensor:
        """The weights of the filled slots, `[count] float32`, on the CPU."""
        return self.weights[: self.count]

    def _choose_anchor_slot(self) -> int:
        """Once half of the memory is protected, the oldest anchor gives way; a slot for other samples always stays."""
        protected = int(self.protected.sum())
        anchors = (self.protected & (self._age > 0)).nonzero().flatten()
        if len(anchors) and protected >= self.capacity // 2:
            return int(anchors[self._age[anchors].numpy().argmin()])
        slot = self._choose_slot()
        if protected < self.capacity - 1:
            self.protected[slot] = True
        return slot

    def _choose_slot(self) -> int:
        if self.count < self.capacity:
            return self.count
        order = self.weights if self.replacement == "lowest_weight" else self._age.double()
        # NumPy's argmin takes the first of equal values, torch's any of them.
        return int(order.masked_fill(self.protected, torch.inf).numpy().argmin())

    def _update_weights(self, slot: int, learning_rate: float) -> None:
        weights, initial = self.weights.clone(), self.protected
        if self.last_slot is None:
            weights /= 1 - learning_rate
            weights[slot] = learning_rate
        else:
            weights[slot] = weights[self.last_slot] / (1 - learning_rate)
        weights /= weights.sum()
        minimum = self.minimum_initial_weight
        if minimum is not None and weights[initial].sum() < minimum:
            # As published: the sum may come out up to 1.006, and nothing normalises it again.
            weights /= minimum + weights[~initial].sum()
            weights[initial] = minimum / int(initial.sum())
        self.weights = weights

    def snapshot(self) -> dict[str, Any]:
        """Returns the state as tensors and plain values; only filled slots are copied."""
        return {
            "slots": {name: self.stored(name).to("cpu", copy=True) for name in self.slots},
            "weights": self.weights.clone(),
            "age": self._age.clone(),
            "protected": self.protected.clone(),
            "count": self.count,
            "initial_count": self.initial_count,
            "last_slot": self.last_slot,
            "inserted": self._inserted,
        }

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Puts a `snapshot` back."""
        self.count, self.initial_count = state["count"], state["initial_count"]
        self.last_slot, self._inserted = state["last_slot"], state["inserted"]
        self.weights, self._age = state["weights"].clone(), state["age"].clone()
        self.protected = state["protected"].clone()
        self.slots = {}
        for name, values in state["slots"].items():
            self.slots[name] = torch.zeros((self.capacity, *values.shape[1:]), dtype=values.dtype, device=device)
            self.slots[name][: self.count] = values
