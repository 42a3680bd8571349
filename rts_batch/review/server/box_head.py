"""The network that makes a mask of a box, loaded while the page is already being looked at."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import RtsBatchError, WeightsError
from rts_batch.masks import Box

__all__ = ["BoxHead", "MaskOfBox"]

MaskOfBox = Callable[[NDArray[np.uint8], Box], NDArray[np.bool_]]
"""The mask [H, W] of what a box x, y, w, h marks on a frame [H, W, 3] RGB."""


class BoxHead:
    """Loads in a thread of its own from `start` on; whoever asks sooner waits for that.

    Args:
        load: returns the network's function.
    """

    def __init__(self, load: Callable[[], MaskOfBox]) -> None:
        self._load = load
        self._thread = threading.Thread(target=self._run, name="weights", daemon=True)
        self._lock = threading.Lock()
        self._mask_of: MaskOfBox | None = None
        self._error = "the weights were not loaded"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Wait until nothing is being loaded: the libraries' threads must not outlive the interpreter."""
        if self._thread.ident is not None:
            self._thread.join()

    def mask_of(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.bool_]:
        """Return the mask [H, W] of what a box marks.

        Raises:
            WeightsError: the weights cannot be used, or have no such network.
            PromptError: the box lies outside the frame.
        """
        self._thread.join()
        if self._mask_of is None:
            raise WeightsError(self._error)
        with self._lock:
            return self._mask_of(image, box)

    def _run(self) -> None:
        try:
            self._mask_of = self._load()
        except RtsBatchError as error:
            self._error = str(error)
        except Exception as error:
            self._error = f"the weights cannot be loaded ({error!r})"
            raise
