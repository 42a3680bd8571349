"""Opens the scenes of a worker's videos, with the tracker that its device is best served by."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial

from rts_batch.config import Overlap, QualityMap, TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.gpu.batch import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker, steps_class, supports
from rts_batch.tracking.scene import Scene
from rts_batch.tracking.tracker import Tracker

MOST_SLOTS = 16
"""Of one network; a scene of more targets takes several runs of it for a frame."""


NETWORKS_KEPT = 2
"""With all that they hold on the device, for later videos with as many targets."""


class SceneOpener:
    """Opens scenes that share one model.

    On CUDA, videos of one target share a network of `lanes` slots; the targets of a video with several have a network
    of their own, so that the batch's size, and with it the last bits of a mask, depends on nothing but the video.

    Args:
        model: the network, in eval mode.
        config: the procedure.
        sta: the box-to-mask network.
        lanes: videos that are tracked side by side.
        overlap: what becomes of targets of one video that share pixels.
        quality: estimates how good each mask is; None estimates nothing.
    """

    def __init__(
        self,
        model: RTS,
        config: TrackerConfig,
        *,
        sta: STA | None = None,
        lanes: int = 1,
        overlap: Overlap = "merge",
        quality: QualityMap | None = None,
    ) -> None:
        self._quality = quality
        self._model = model
        self._config = config
        self._sta = sta
        self._lanes = lanes
        self._overlap = overlap
        self._on_device = next(model.parameters()).device.type == "cuda" and supports(config)
        self._shared: BatchedNetwork | None = None
        self._free: deque[BatchedNetwork] = deque(maxlen=NETWORKS_KEPT)
        """Networks of videos with several targets that are done, the latest last; any thread may add one."""
        self._lock = threading.Lock()
        if self._on_device:
            steps_class(next(model.parameters()).device)  # what is amiss is said while the worker loads

    def open(self, targets: int) -> Scene:
        """Return an empty scene for a video of so many targets."""
        if not self._on_device:
            return self._scene(targets, fast_tracker)
        with self._lock:
            if targets == 1:
                self._shared = self._shared or self._network(self._lanes, threads=True)
                return self._scene(targets, partial(GpuTracker, network=self._shared))
            slots = min(targets, MOST_SLOTS)
            network = self._take_free(slots) or self._network(slots)
        scene = self._scene(targets, partial(GpuTracker, network=network))
        weakref.finalize(scene, self._free.append, network)
        return scene

    def _take_free(self, slots: int) -> BatchedNetwork | None:
        """Take a free network of so many slots out; one at a time, so that it is never in two hands."""
        others: list[BatchedNetwork] = []
        found = None
        with contextlib.suppress(IndexError):
            while found is None:
                network = self._free.pop()
                if len(network.slots) == slots:
                    found = network
                else:
                    others.append(network)
        self._free.extend(reversed(others))
        return found

    def _scene(self, targets: int, tracker: Callable[..., Tracker]) -> Scene:
        single = targets == 1
        return Scene(
            self._model,
            self._config,
            sta=self._sta,
            single=single,
            overlap=self._overlap,
            tracker=tracker,
            quality=self._quality,
        )

    def _network(self, slots: int, *, threads: bool = False) -> BatchedNetwork:
        return BatchedNetwork(self._model, self._config, slots=slots, threads=threads)
