"""A manifest of every annotated box of a data set: run it, and its masks are that data set's masks.

Each row is segmented on its own frame (`prompt_kind=annotate`), as the paper made masks for LaSOT and GOT-10k with STA.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rts_batch.errors import TrainingError
from rts_batch.training.clips.datasets.boxed import BoxedFolders

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("video", pa.string()),
        ("frame", pa.int64()),
        *((side, pa.float64()) for side in "xywh"),
        ("prompt_kind", pa.string()),
    ]
)


def write_box_manifest(data: BoxedFolders, path: str | Path) -> tuple[int, list[str]]:
    """Write one row for every usable frame of every sequence.

    Returns:
        How many rows there are, and what is wrong with the sequences that were left out.

    Raises:
        TrainingError: no sequence can be read.
    """
    skipped: list[str] = []
    rows = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for table in _tables(data, skipped):
            writer.write_table(table)
            rows += table.num_rows
    if not rows:
        Path(path).unlink()
        raise TrainingError(f"{data.name}: no sequence has a usable box; {skipped[0] if skipped else 'all are empty'}")
    return rows, skipped


def _tables(data: BoxedFolders, skipped: list[str]) -> Iterator[pa.Table]:
    for index, sequence in enumerate(data.sequences):
        try:
            boxes = data.boxes(index)
        except TrainingError as error:
            skipped.append(f"{data.label(index)}: {error}")
            continue
        x, y, w, h = zip(*boxes.values(), strict=True) if boxes else ((), (), (), ())
        columns = [
            [sequence] * len(boxes),
            [str(data.images(sequence).resolve())] * len(boxes),
            list(boxes),
            *map(list, (x, y, w, h)),
            ["annotate"] * len(boxes),
        ]
        yield pa.table([pa.array(v, f.type) for v, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
