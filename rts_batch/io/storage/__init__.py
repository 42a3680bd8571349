"""Bytes on local disk and in object stores: `files` reads, writes and lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rts_batch.late import late_names

if TYPE_CHECKING:
    from rts_batch.io.storage.files import delete as delete

__all__ = ["delete"]
"""What programs outside of this repository take from here."""

# Who only takes an address apart shall not wait for fsspec.
__getattr__ = late_names(__name__, {"delete": "rts_batch.io.storage.files"})
