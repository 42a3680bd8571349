"""Writes the manifest of a benchmark, so that `rts-batch submit` tracks all of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rts_batch.errors import UsageError
from rts_batch.evaluation.benchmarks import BoxBenchmark, find_benchmark
from rts_batch.evaluation.layouts.sequences import BoxSequence, MaskSequence, read_labels
from rts_batch.evaluation.layouts.vot import VotSequence
from rts_batch.io.storage import files
from rts_batch.masks import encode_rle, mask_box

Init = Literal["mask", "box"]

_COLUMNS: Final = (
    "video",
    "video_id",
    "object_id",
    "start",
    "end",
    "direction",
    "frame",
    "frames",
    "box",
    "mask",
    "category",
    "init",
)


@dataclass(frozen=True)
class PreparedManifest:
    """What a manifest holds."""

    sequences: int
    targets: int
    init: Init


def prepare(benchmark: str, root: Path, output: str, *, init: Init | None = None) -> PreparedManifest:
    """Write a CSV manifest with a row for each target of a benchmark.

    Args:
        benchmark: its name, see `BENCHMARKS`.
        root: the folder that it is unpacked in. The manifest names the frames' folders absolutely.
        output: path or URI of the manifest.
        init: what the tracker is given: `mask`, `box` (of a mask: the tight box around it), or None for what the
            benchmark gives.

    Raises:
        UsageError: no such benchmark, a layout that is not its own, masks wanted of a benchmark of boxes, or a name
            that is not a CSV's.
        StorageError: the manifest cannot be written.
    """
    if not output.lower().endswith(".csv"):
        raise UsageError(f"-o {output}: the manifest is a CSV; give a name that ends in .csv")
    chosen = find_benchmark(benchmark)
    if isinstance(chosen, BoxBenchmark):
        if init == "mask":
            raise UsageError(f"{chosen.title} gives boxes, no masks; leave --init out, or give --init box")
        init = "box"
    init = init or "mask"
    sequences = chosen.sequences(root.resolve())
    rows = [row for sequence in sequences for row in _rows(sequence, init)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    # Carried into the results, so that these say what the tracker was given.
    writer.writerows(row | {"init": init} for row in rows)
    files.put_bytes(output, text.getvalue().encode())
    return PreparedManifest(len(sequences), len(rows), init)


def _rows(sequence: BoxSequence | MaskSequence | VotSequence, init: Init) -> Iterable[dict[str, Any]]:
    if isinstance(sequence, BoxSequence):
        return [_box_row(sequence)]
    return _anchor_rows(sequence, init) if isinstance(sequence, VotSequence) else _mask_rows(sequence, init)


def _box_row(sequence: BoxSequence) -> dict[str, Any]:
    return {
        "video": str(sequence.folder),
        "video_id": sequence.name,
        "object_id": 1,
        "start": sequence.start,
        "end": sequence.end,
        "frame": sequence.start,
        "frames": None if sequence.end is None else sequence.end - sequence.start,
        "box": ",".join(f"{value:.12g}" for value in sequence.truth[0]),
    }


def _mask_rows(sequence: MaskSequence, init: Init) -> Iterator[dict[str, Any]]:
    for target in sequence.objects:
        mask = sequence.mask(read_labels(sequence.labels[target.start]), target.object_id)
        box = mask_box(mask)
        if box is None:
            raise UsageError(
                f"{sequence.labels[target.start]}: object {target.object_id} is to begin here, but has no pixel"
            )
        yield {
            "video": str(sequence.folder),
            "video_id": sequence.name,
            "object_id": target.object_id,
            "frame": target.start,
            "frames": len(sequence.frames),
            "category": target.category,
            **_mark(mask, box, init),
        }


def _anchor_rows(sequence: VotSequence, init: Init) -> Iterator[dict[str, Any]]:
    """Each run of VOT's multi-start protocol is a video of its own."""
    for anchor in sequence.anchors:
        mask = sequence.truth(anchor.frame)
        box = mask_box(mask)
        if box is None:
            raise UsageError(f"{sequence.name}: frame {anchor.frame} is an anchor, but the target is not to be seen")
        frames = sequence.frames_of(anchor)
        yield {
            "video": str(sequence.folder),
            "video_id": sequence.run_name(anchor),
            "object_id": 1,
            "start": min(frames),
            "end": max(frames) + 1,
            "direction": "forward" if anchor.forward else "backward",
            "frame": anchor.frame,
            "frames": len(frames),
            **_mark(mask, box, init),
        }


def _mark(mask: NDArray[np.bool_], box: tuple[int, int, int, int], init: Init) -> dict[str, str]:
    if init == "box":
        return {"box": ",".join(map(str, box))}
    # An RLE, not the image: which of its values are meant is then out of question.
    height, width = mask.shape
    return {"mask": json.dumps({"size": [height, width], "counts": encode_rle(mask).decode()})}
