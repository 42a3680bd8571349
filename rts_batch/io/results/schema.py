"""The masks table: one row of it, its columns in the order that every file has them, how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rts_batch.errors import ResultsError
from rts_batch.masks import Box, State, decode_rle, parse_rle
from rts_batch.version import __version__

SCHEMA_VERSION: Final = "1"

EXTRA_TYPES: Final = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
"""What a column that the manifest carries into the table can be."""


class Row(NamedTuple):
    """One target on one frame: a row of the masks table (docs/results.md), without the carried columns."""

    video_id: str
    object_id: int
    frame: int
    """Index, counted from the video's first frame."""
    time: float | None
    """Presentation time in seconds."""
    height: int
    width: int
    rle: bytes
    x: float | None
    y: float | None
    w: float | None
    h: float | None
    area: int
    score: float | None
    confidence: float | None
    quality: float | None
    """Expected IoU with the truth; None for prompts, and where the tracker gave no estimate."""
    state: State
    category: str | None

    @property
    def box(self) -> Box | None:
        """x, y, w, h in pixels; None where the tracker gave none."""
        return None if self.x is None else cast(Box, (self.x, self.y, self.w, self.h))

    def mask(self) -> NDArray[np.bool_]:
        """Return the mask, bool [height, width].

        Raises:
            ResultsError: the RLE is damaged.
        """
        try:
            return decode_rle(self.rle, self.height, self.width)
        except ResultsError as error:
            raise self._located(error) from error

    def runs(self) -> NDArray[np.int64]:
        """Return the lengths of the mask's runs down its columns, zeros first, [N] int64; cheaper than the mask.

        Raises:
            ResultsError: the RLE is damaged.
        """
        try:
            return parse_rle(self.rle, self.height, self.width)
        except ResultsError as error:
            raise self._located(error) from error

    def _located(self, error: ResultsError) -> ResultsError:
        return ResultsError(f"video {self.video_id!r}, object {self.object_id}, frame {self.frame}: {error}")


RESULT_COLUMNS: Final = Row._fields
"""The names that every masks table has, in order; a manifest's own columns follow them."""

QUALITY: Final = pa.field("quality", pa.float32())
"""The column that files of earlier versions do not have; they are read as if all of it were null."""

_SCHEMA: Final = pa.schema(
    [
        pa.field("video_id", pa.string(), False),
        pa.field("object_id", pa.int32(), False),
        pa.field("frame", pa.int32(), False),
        pa.field("time", pa.float64()),
        pa.field("height", pa.int32(), False),
        pa.field("width", pa.int32(), False),
        pa.field("rle", pa.binary(), False),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("w", pa.float32()),
        pa.field("h", pa.float32()),
        pa.field("area", pa.int32(), False),
        pa.field("score", pa.float32()),
        pa.field("confidence", pa.float32()),
        QUALITY,
        pa.field("state", pa.dictionary(pa.int8(), pa.string()), False),
        pa.field("category", pa.string()),
    ]
)


_VARIED_COLUMNS: Final = ("frame", "time", "rle", "x", "y", "w", "h", "area", "score", "confidence", "quality")
"""Columns whose values hardly repeat, for which a dictionary would be a waste."""


def absent_rows(table: pa.Table | pa.RecordBatch) -> NDArray[np.bool_]:
    """Return on which rows `[N]` a person has said that the target is not there: `lost` without the score of a search.

    The table has the columns `state` and `score`.
    """
    absent = pc.and_(pc.equal(table["state"].cast(pa.string()), "lost"), pc.is_null(table["score"]))
    rows: NDArray[np.bool_] = pc.fill_null(absent, False).to_numpy(zero_copy_only=False)
    return rows


def masks_schema(extras: Mapping[str, str] | None = None) -> pa.Schema:
    """Return the schema of a masks table whose manifest carries the further columns `extras`, name to type.

    Raises:
        ResultsError: a name that the table uses itself, or a type other than int64, float64, bool and string.
    """
    schema = _SCHEMA
    for name, kind in (extras or {}).items():
        if name in RESULT_COLUMNS or kind not in EXTRA_TYPES:
            raise ResultsError(f"column {name!r} of type {kind!r} cannot be carried into the masks table")
        schema = schema.append(pa.field(name, EXTRA_TYPES[kind]))
    return schema


def masks_writer(path: str | Path, schema: pa.Schema, metadata: Mapping[str, str]) -> pq.ParquetWriter:
    """Open a masks file for writing, with the options and the versions that all of them have.

    Args:
        path: where it goes.
        schema: its columns.
        metadata: what the file says of itself, under `rts_batch.…`.
    """
    metadata = {"schema_version": SCHEMA_VERSION, "package_version": __version__, **metadata}
    return pq.ParquetWriter(
        path,
        schema.with_metadata({f"rts_batch.{name}": value for name, value in metadata.items()}),
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in schema.names if name not in _VARIED_COLUMNS],
        write_statistics=[name for name in schema.names if name != "rle"],
    )
