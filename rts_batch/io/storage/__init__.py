"""Bytes on local disk and in object stores: `files` reads, writes and lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rts_batch.io.storage.files import delete as delete

__all__ = ["delete"]
"""What programs outside of this repository take from here."""


def __getattr__(name: str) -> Any:
    if name == "delete":  # late, because who only takes an address apart shall not wait for fsspec
        from rts_batch.io.storage.files import delete

        return delete
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
