"""Slots: targets that go through the network as one batch, each with its own state on the device.

A frame is three stages. `prepare` (a slot's own) learns from the last frame and cuts the crop; the network runs on the
crops of all slots; `finish` (a slot's own) reads its score map and logits. Nothing in them depends on a value that the
host knows, so on CUDA each is captured once as a graph and replayed. A slot's numbers never meet another's: the batch
always has the same size, and what lies in the other slots does not matter.

Threads may step their own trackers of one network. They meet at the network: it runs when all are there, or when the
device has nothing else to do. While a tracker is at work on its slot nobody takes it away.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.tracking.gpu.graphs import Stage, graph_pool, stream_of
from rts_batch.tracking.gpu.memory import DeviceMemory

SIZES_KEPT = 4
"""Image sizes whose graphs a slot keeps."""

POLL_SECONDS = 0.0005
"""Between two looks at whether the device has done the last run."""

_Steps = TypeVar("_Steps")


class Owner(Protocol):
    """Who has a slot."""

    def leave(self) -> None:
        """Take everything out of the slot, because another target needs it."""


class BatchedNetwork:
    """The network of a fixed number of slots.

    Args:
        model: the network, in eval mode.
        config: the procedure.
        slots: targets side by side.
        threads: each slot may be stepped by a thread of its own, and so has a stream of its own. Otherwise one thread
            steps them all, on the network's stream.
    """

    @torch.inference_mode()
    def __init__(self, model: RTS, config: TrackerConfig, *, slots: int = 1, threads: bool = False) -> None:
        self.model = model
        self.config = config
        self.device = next(model.parameters()).device
        height, width = config.crop_size
        self.crops = torch.zeros(slots, 3, height, width, device=self.device)
        self.previous_masks = torch.zeros(slots, height, width, device=self.device)
        kernel = model.config.localisation_filter_size
        self.tau = torch.zeros(slots, *model.target_model.filter_shape, device=self.device)
        self.kappa = torch.zeros(slots, 1, model.config.feature_dim, kernel, kernel, device=self.device)
        # The first run says which shapes come out.
        self.segmentation_features, self.localisation_features, self.score_maps, self.logits = self._forward()
        self._stream = stream_of(self.device, urgent=True)
        self._done: torch.cuda.Event | None = None
        """Of the last run."""
        self.stage = Stage(self._run, self._stream, graph_pool(self._stream))
        self.slots = [
            Slot(self, number, stream_of(self.device) if threads else self._stream) for number in range(slots)
        ]
        self._begin_meetings()

    def _begin_meetings(self) -> None:
        self._clock = 0
        self._meeting = threading.Condition()
        self._round = 0
        self._arrived: list[Slot] = []
        self._reading: set[Slot] = set()
        """Slots whose results of the last run have not been looked at yet."""

    def _forward(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        model = self.model
        found = model.extract(self.crops)
        score_maps = model.localise(found.localisation[None], self.kappa)
        logits = model.segment(
            found.segmentation[None],
            found.maps,
            self.tau,
            score_maps if self.config.localisation_conditioning else None,
            previous_mask=self.previous_masks[None] if model.config.previous_mask else None,
        )
        return found.segmentation, found.localisation, score_maps[0], logits[0]

    def _run(self) -> None:
        outputs = (self.segmentation_features, self.localisation_features, self.score_maps, self.logits)
        for own, values in zip(outputs, self._forward(), strict=True):
            own.copy_(values)

    @contextlib.contextmanager
    def holding(self, owner: Owner) -> Iterator[Slot]:
        """Claim a slot for work of its owner: its own, a free one, or that of who has not worked for longest."""
        with self._meeting:
            self._meeting.wait_for(lambda: self._own(owner) or any(not slot.held for slot in self.slots))
            own = self._own(owner)
            slot = own or min(
                (slot for slot in self.slots if not slot.held),
                key=lambda slot: (slot.owner is not None, slot.last_used),
            )
            if own is None:
                if slot.owner is not None:
                    slot.owner.leave()
                slot.take(owner)
            self._clock += 1
            slot.last_used = self._clock
            slot.held = True
        try:
            yield slot
        finally:
            self._let_go(slot)

    @contextlib.contextmanager
    def undisturbed(self, owner: Owner) -> Iterator[None]:
        """Keep the owner's slot, if it has one, from being taken meanwhile."""
        with self._meeting:
            slot = self._own(owner)
            outermost = slot is not None and not slot.held
            if slot is not None:
                slot.held = True
        try:
            yield
        finally:
            if slot is not None and outermost:
                self._let_go(slot)

    def _own(self, owner: Owner) -> Slot | None:
        return next((slot for slot in self.slots if slot.owner is owner), None)

    def _let_go(self, slot: Slot) -> None:
        with self._meeting:
            slot.held = False
            self._meeting.notify_all()

    @contextlib.contextmanager
    def results_of(self, slots: Sequence[Slot]) -> Iterator[None]:
        """Run the network for slots that are prepared, and for those of other threads that arrive meanwhile.

        It runs when every slot that has an owner is there, or as soon as the device has done the run before: while
        that is at work nobody loses by waiting. Inside the context the slots' results stay as they are.
        """
        with self._meeting:
            mine = self._round
            self._arrived.extend(slots)
            self._meeting.notify_all()
            while self._round == mine:
                if self._reading:
                    self._meeting.wait()
                elif len(self._arrived) >= sum(slot.owner is not None for slot in self.slots) or not self._busy():
                    self._run_for_all(slots)
                else:
                    # One of them looks; it tells the others.
                    self._meeting.wait(POLL_SECONDS if self._arrived[0] in slots else None)
        try:
            yield
        finally:
            for slot in slots:
                if slot.stream is not None:
                    slot.read = slot.stream.record_event()
            with self._meeting:
                self._reading.difference_update(slots)
                self._meeting.notify_all()

    def _busy(self) -> bool:
        """Whether the device still works on the last run."""
        return self._done is not None and not self._done.query()

    def _run_for_all(self, own: Sequence[Slot]) -> None:
        """Run the network for all slots that have arrived; where that fails, the other threads try for themselves."""
        try:
            self._run_on_device()
        except BaseException:
            self._arrived = [slot for slot in self._arrived if slot not in own]
            self._meeting.notify_all()
            raise
        self._reading.update(self._arrived)
        self._arrived.clear()
        self._round += 1
        self._meeting.notify_all()

    def _run_on_device(self) -> None:
        if self._stream is None:
            self.stage()
            return
        for slot in self._arrived:
            assert slot.stream is not None
            self._stream.wait_stream(slot.stream)
        for slot in self.slots:
            if slot.read is not None:
                self._stream.wait_event(slot.read)
        with torch.cuda.stream(self._stream):
            self.stage()
        self._done = self._stream.record_event()
        for slot in self._arrived:
            assert slot.stream is not None
            slot.stream.wait_stream(self._stream)


class Slot:
    """A place in the batch, with room for one target's memories."""

    def __init__(self, network: BatchedNetwork, number: int, stream: torch.cuda.Stream | None) -> None:
        self.network = network
        self.number = number
        self.stream = stream
        self.held = False
        """Its owner is at work on it."""
        self.pool = graph_pool(stream)
        self.read: torch.cuda.Event | None = None
        """When its results of the network's last run had been read."""
        self.last_used = 0
        self.segmentation: DeviceMemory | None = None
        self.localisation: DeviceMemory | None = None
        self._owner: weakref.ref[Owner] | None = None
        self._steps: OrderedDict[tuple[int, int], object] = OrderedDict()

    def issue(self) -> contextlib.AbstractContextManager[Any]:
        """A context whose work goes to the slot's stream."""
        return contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def wait_for_caller(self) -> None:
        """Have the slot begin later work only after what the current stream has been given."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())

    def catch_up(self) -> None:
        """Have the current stream begin later work only after what the slot has been given."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)

    @property
    def owner(self) -> Owner | None:
        return None if self._owner is None else self._owner()

    def take(self, owner: Owner) -> None:
        """Give the slot away for as long as its owner lives."""
        self._owner = weakref.ref(owner)

    def steps_for(self, image_size: tuple[int, int], build: Callable[[], _Steps]) -> _Steps:
        """Return the stages for images of a size."""
        if image_size not in self._steps:
            self._steps[image_size] = build()
            while len(self._steps) > SIZES_KEPT:
                self._steps.popitem(last=False)
        self._steps.move_to_end(image_size)
        return cast(_Steps, self._steps[image_size])
