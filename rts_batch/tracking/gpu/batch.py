"""Lanes: targets that go through the network as one batch, each with its own state on the device.

A frame is three stages. `prepare` (a lane's own) learns from the last frame and cuts the crop; the network runs on the
crops of all lanes; `finish` (a lane's own) reads its score map and logits. Nothing in them depends on a value that the
host knows, so on CUDA each is captured once as a graph and replayed. A lane's numbers never meet another's: the batch
always has the same size, and what lies in the other lanes does not matter.

Threads may step their own trackers of one network. They meet at the network: who arrives last runs it for all.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rts_batch.config import TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.tracking.gpu.memory import DeviceMemory

if TYPE_CHECKING:
    from rts_batch.tracking.gpu.steps import LaneSteps
    from rts_batch.tracking.gpu.tracker import DeviceTracker

SIZES_KEPT = 4
"""Image sizes whose graphs a lane keeps."""

PATIENCE = 0.002
"""Seconds that a lane waits for the others before the network runs without them."""

_CAPTURING = threading.Lock()


class Stage:
    """A function of tensors that keep their places; on CUDA a thread's second call captures it, later ones replay it.

    A thread's first call runs it as it is: libraries set themselves up outside the capture, and cuDNN keeps what its
    autotuning found for each thread apart.

    Args:
        function: what to do.
        stream: where its calls are issued; None on the CPU. Libraries keep a workspace for each stream, so graphs that
            may run side by side must have been captured on streams of their own.
        pool: memory shared with graphs that never run beside this one.
    """

    def __init__(self, function: Callable[[], None], stream: torch.cuda.Stream | None, pool: Any) -> None:
        self._function = function
        self._stream = stream
        self._pool = pool
        self._warm_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        thread = threading.current_thread()
        if self._graph is None and thread in self._warm_threads and self._stream is not None:
            self._graph = self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._function()
            self._warm_threads.add(thread)

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other lanes' threads go on working meanwhile.
        capturing = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
        with _CAPTURING, _no_collection(), capturing:
            self._function()
        return graph


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python from collecting garbage: an old graph that is destroyed during a capture would break it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class LaneNetwork:
    """The network of a fixed number of lanes.

    Args:
        model: the network, in eval mode.
        config: the procedure.
        lanes: targets side by side.
    """

    @torch.inference_mode()
    def __init__(self, model: RTS, config: TrackerConfig, *, lanes: int = 1) -> None:
        self.model = model
        self.config = config
        self.device = next(model.parameters()).device
        height, width = config.crop_size
        self.crops = torch.zeros(lanes, 3, height, width, device=self.device)
        self.previous_masks = torch.zeros(lanes, height, width, device=self.device)
        kernel = model.config.localisation_filter_size
        self.tau = torch.zeros(lanes, *model.target_model.filter_shape, device=self.device)
        self.kappa = torch.zeros(lanes, 1, model.config.feature_dim, kernel, kernel, device=self.device)
        # The first run says which shapes come out.
        self.segmentation_features, self.localisation_features, self.score_maps, self.logits = self._forward()
        self._stream = stream_of(self.device)
        self.stage = Stage(self._run, self._stream, graph_pool(self.device))
        self.lanes = [Lane(self, number) for number in range(lanes)]
        self._clock = 0
        self._meeting = threading.Condition()
        self._round = 0
        self._arrived: list[Lane] = []
        self._reading: set[Lane] = set()
        """Lanes whose results of the last run have not been looked at yet."""

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

    def lane_of(self, tracker: DeviceTracker) -> Lane:
        """Returns the tracker's lane, one that is free, or the one whose tracker has not stepped for longest."""
        with self._meeting:
            own = next((lane for lane in self.lanes if lane.owner is tracker), None)
            lane = own or min(self.lanes, key=lambda lane: (lane.owner is not None, lane.last_used))
            if own is None:
                if lane.owner is not None:
                    lane.owner.leave_lane()
                lane.take(tracker)
            self._clock += 1
            lane.last_used = self._clock
            return lane

    @contextlib.contextmanager
    def results_of(self, lanes: Sequence[Lane]) -> Iterator[None]:
        """Runs the network for lanes that are prepared, and for those of other threads that arrive meanwhile.

        Inside the context the lanes' results stay as they are.
        """
        with self._meeting:
            mine = self._round
            self._arrived.extend(lanes)
            if len(self._arrived) < sum(lane.owner is not None for lane in self.lanes):
                self._meeting.wait_for(lambda: self._round != mine, PATIENCE)
            while self._round == mine:
                if self._reading:
                    self._meeting.wait()
                else:
                    self._run_for_all(lanes)
        try:
            yield
        finally:
            for lane in lanes:
                if lane.stream is not None:
                    lane.read = lane.stream.record_event()
            with self._meeting:
                self._reading.difference_update(lanes)
                self._meeting.notify_all()

    def _run_for_all(self, own: Sequence[Lane]) -> None:
        """Runs the network for all lanes that have arrived; where that fails, the other threads try for themselves."""
        try:
            self._run_on_stream()
        except BaseException:
            self._arrived = [lane for lane in self._arrived if lane not in own]
            self._meeting.notify_all()
            raise
        self._reading.update(self._arrived)
        self._arrived.clear()
        self._round += 1
        self._meeting.notify_all()

    def _run_on_stream(self) -> None:
        if self._stream is None:
            self.stage()
            return
        for lane in self._arrived:
            assert lane.stream is not None
            self._stream.wait_stream(lane.stream)
        for lane in self.lanes:
            if lane.read is not None:
                self._stream.wait_event(lane.read)
        with torch.cuda.stream(self._stream):
            self.stage()
        for lane in self._arrived:
            assert lane.stream is not None
            lane.stream.wait_stream(self._stream)


class Lane:
    """A place in the batch, with room for one target's memories."""

    def __init__(self, network: LaneNetwork, number: int) -> None:
        self.network = network
        self.number = number
        self.stream = stream_of(network.device)
        self.side_stream = stream_of(network.device)
        """For what may happen while the network runs."""
        self.pool = graph_pool(network.device)
        self.read: torch.cuda.Event | None = None
        """When its results of the network's last run had been read."""
        self.last_used = 0
        self.segmentation: DeviceMemory | None = None
        self.localisation: DeviceMemory | None = None
        self._owner: weakref.ref[DeviceTracker] | None = None
        self._steps: OrderedDict[tuple[int, int], LaneSteps] = OrderedDict()

    def issue(self) -> contextlib.AbstractContextManager[Any]:
        """A context whose work goes to the lane's stream."""
        return contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def issue_aside(self) -> contextlib.AbstractContextManager[Any]:
        """A context whose work begins after the lane's so far, and then goes on beside it until `join`."""
        if self.stream is None or self.side_stream is None:
            return contextlib.nullcontext()
        self.side_stream.wait_stream(self.stream)
        return torch.cuda.stream(self.side_stream)

    def join(self) -> None:
        """Has the lane wait for what was issued aside."""
        if self.stream is not None and self.side_stream is not None:
            self.stream.wait_stream(self.side_stream)

    def wait_for_caller(self) -> None:
        """Has the lane begin later work only after what the current stream has been given."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())

    def catch_up(self) -> None:
        """Has the current stream begin later work only after what the lane has been given."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)

    @property
    def owner(self) -> DeviceTracker | None:
        return None if self._owner is None else self._owner()

    def take(self, tracker: DeviceTracker) -> None:
        """Gives the lane to a tracker for as long as that lives."""
        self._owner = weakref.ref(tracker)

    def steps_for(self, image_size: tuple[int, int], build: Callable[[], LaneSteps]) -> LaneSteps:
        """Returns the stages for images of a size."""
        if image_size not in self._steps:
            self._steps[image_size] = build()
            while len(self._steps) > SIZES_KEPT:
                self._steps.popitem(last=False)
        self._steps.move_to_end(image_size)
        return self._steps[image_size]


def stream_of(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream of its own; None on the CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def graph_pool(device: torch.device) -> Any:
    """Memory that graphs which never run at once share; None on the CPU."""
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None
