"""The masks table: its columns, in the order that every file has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from rts_batch.errors import ResultsError

__all__ = ["EXTRA_TYPES", "RESULT_COLUMNS", "SCHEMA_VERSION", "masks_schema"]

SCHEMA_VERSION: Final = "1"

EXTRA_TYPES: Final = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
"""What a column that the manifest carries into the table can be."""

_COLUMNS: Final = (
    ("video_id", pa.string(), False),
    ("object_id", pa.int32(), False),
    ("frame", pa.int32(), False),
    ("time", pa.float64(), True),
    ("height", pa.int32(), False),
    ("width", pa.int32(), False),
    ("rle", pa.binary(), False),
    ("x", pa.float32(), True),
    ("y", pa.float32(), True),
    ("w", pa.float32(), True),
    ("h", pa.float32(), True),
    ("area", pa.int32(), False),
    ("score", pa.float32(), True),
    ("confidence", pa.float32(), True),
    ("state", pa.dictionary(pa.int8(), pa.string()), False),
    ("category", pa.string(), True),
)

RESULT_COLUMNS: Final = tuple(name for name, _, _ in _COLUMNS)
"""The names that every masks table has, in order; a manifest's own columns follow them."""


def masks_schema(extras: Mapping[str, str] | None = None) -> pa.Schema:
    """The schema of a masks table whose manifest carries the further columns `extras`, name to type.

    Raises:
        ResultsError: a name that the table uses itself, or a type other than int64, float64, bool and string.
    """
    fields = [pa.field(name, kind, nullable) for name, kind, nullable in _COLUMNS]
    for name, kind in (extras or {}).items():
        if name in RESULT_COLUMNS or kind not in EXTRA_TYPES:
            raise ResultsError(f"column {name!r} of type {kind!r} cannot be carried into the masks table")
        fields.append(pa.field(name, EXTRA_TYPES[kind]))
    return pa.schema(fields)
