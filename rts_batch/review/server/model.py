"""The network, loaded while the page is already being looked at: masks of boxes, and a look ahead from a prompt."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import RtsBatchError, WeightsError
from rts_batch.masks import Box, Marking, TrackedFrame


class Scene(Protocol):
    """The targets of one video, tracked frame by frame."""

    def step(
        self, image: NDArray[np.uint8], prompts: Mapping[int, Marking] | None = None, /
    ) -> Mapping[int, TrackedFrame]: ...

    def close(self) -> None: ...


class Model(Protocol):
    """Weights in memory; `rts_batch.load` makes one."""

    def mask_of(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.bool_]: ...

    def open(self, targets: int = 1) -> Scene: ...


class LazyModel:
    """Loads in a thread of its own; whoever asks sooner waits for that.

    Loading keeps a core busy for seconds, and other threads of this process waiting, so it begins when there is
    something to look at.

    Args:
        load: returns the model.
    """

    def __init__(self, load: Callable[[], Model]) -> None:
        self._load = load
        self._starting = threading.Lock()
        self._later: threading.Timer | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._error = "the weights were not loaded"

    def start(self, after: float = 0.0) -> None:
        """Begin to load in so many seconds, unless that has been said before."""
        with self._starting:
            if self._later is None and self._thread is None and not self._closed:
                self._later = threading.Timer(after, self._begin)
                self._later.daemon = True
                self._later.start()

    def close(self) -> None:
        """Wait until nothing is being loaded: the libraries' threads must not outlive the interpreter."""
        with self._starting:
            self._closed = True
            if self._later is not None:
                self._later.cancel()
        if self._thread is not None:
            self._thread.join()

    def mask_of(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.bool_]:
        """Return the mask [H, W] of what a box marks on a frame [H, W, 3] RGB.

        Raises:
            WeightsError: the weights cannot be used.
            PromptError: the box lies outside the frame, or the weights make no masks of boxes.
        """
        with self._lock:
            return self._loaded().mask_of(image, box)

    def look_ahead(
        self, images: Iterable[NDArray[np.uint8]], masks: Mapping[int, NDArray[np.bool_]]
    ) -> Iterator[Mapping[int, TrackedFrame]]:
        """Yield the targets on each of some frames, of which the first is marked with these masks by object id.

        Raises:
            WeightsError: the weights cannot be used.
        """
        with self._lock:
            prompts = {object_id: Marking(mask=mask) for object_id, mask in masks.items()}
            with contextlib.closing(self._loaded().open(len(masks))) as scene:
                for image in images:
                    yield scene.step(image, prompts)
                    prompts = {}

    def _loaded(self) -> Model:
        self._begin()
        if self._thread is not None:
            self._thread.join()
        if self._model is None:
            raise WeightsError(self._error)
        return self._model

    def _begin(self) -> None:
        with self._starting:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="weights", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            self._model = self._load()
        except RtsBatchError as error:
            self._error = str(error)
        except Exception as error:
            self._error = f"the weights cannot be loaded ({error!r})"
            raise
