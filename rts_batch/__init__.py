"""rts-batch: masks of one object through thousands of videos, with the RTS tracker on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rts_batch.version import __version__ as __version__

if TYPE_CHECKING:
    from rts_batch.runs.reading import read_masks as read_masks

__all__ = ["__version__", "read_masks"]


def __getattr__(name: str) -> Any:
    if name == "read_masks":  # late, because the command line shall not wait for pyarrow
        from rts_batch.runs.reading import read_masks

        return read_masks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
