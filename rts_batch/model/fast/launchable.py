"""Which of the Triton kernels beside this module can run on a device."""

from __future__ import annotations

import functools
import importlib
import logging
from types import ModuleType

import torch

log = logging.getLogger(__name__)


@functools.cache
def kernels_for(name: str, device: torch.device) -> ModuleType | None:
    """Return `kernels/<name>.py` for a CUDA device; None elsewhere, and where none of it can be built and launched.

    Triton builds its driver with a C compiler when the first kernel is launched, so that being installed says nothing.
    Not to be asked for the first time while a CUDA graph is captured.
    """
    if device.type != "cuda":
        return None
    try:
        kernels = importlib.import_module(f"rts_batch.model.fast.kernels.{name}")
        kernels.try_launch(device)
    except Exception as error:  # whatever a missing compiler, driver or Triton raises
        log.warning("the Triton kernels of %s cannot run here, which takes longer without: %s", name, error)
        return None
    return kernels
