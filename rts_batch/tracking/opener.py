"""Opens the scenes of a worker's videos, with the tracker that its device is best served by."""

from __future__ import annotations

import threading
from functools import partial

from rts_batch.config import Overlap, QualityMap, TrackerConfig
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.gpu.engine import Engine
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.tracker import GpuTracker, ready_steps, supports
from rts_batch.tracking.scene import Scene

MOST_PLACES = 8
"""Of a batch of the network; more targets take turns. Beyond it a batch gains little and loses more where it is not
full (`benchmarks/rounds.py`)."""


class SceneOpener:
    """Opens scenes that share one model.

    On CUDA all of them share one engine. How many places the batches have in which a video is tracked, and with it the
    last bits of its masks, depends on nothing but the lanes and its number of targets.

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
        self._networks: dict[int, BatchedNetwork] = {}
        self._lock = threading.Lock()
        device = next(model.parameters()).device
        self._engine = Engine(device) if device.type == "cuda" and supports(config) else None
        if self._engine is not None:
            self._network(targets=1)  # what is amiss is said while the worker loads

    def open(self, targets: int) -> Scene:
        """Return an empty scene for a video of so many targets."""
        return Scene(
            self._model,
            self._config,
            sta=self._sta,
            single=targets == 1,
            overlap=self._overlap,
            tracker=partial(GpuTracker, network=self._network(targets)) if self._engine else fast_tracker,
            quality=self._quality,
        )

    def _network(self, targets: int) -> BatchedNetwork:
        """The batch for videos of so many targets: a power of two of places."""
        places = min(1 << (max(self._lanes, targets) - 1).bit_length(), MOST_PLACES)
        with self._lock:
            if places not in self._networks:
                network = BatchedNetwork(self._model, self._config, places=places, engine=self._engine)
                ready_steps(network)
                self._networks[places] = network
            return self._networks[places]
