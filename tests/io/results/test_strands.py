"""Rows of one target that came upward and downward, as they leave: in order, each frame once."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from rts_batch.io.results.strands import Strand, woven
from tests.support.run_folders import row_of

MASK = np.ones((2, 2), bool)
PROMPTS = (3, 11)


def strand(spool: io.BytesIO, frames: range, at_once: int, quality: dict[int, float]) -> Strand:
    """Flushed every few rows; an area says which way a row came."""
    found = Strand(downward=frames.step < 0)
    for first in range(0, len(frames), at_once):
        for frame in frames[first : first + at_once]:
            row = row_of(MASK, frame, "prompt")
            if frame not in PROMPTS:
                row = row_of(MASK, frame, "tracked", score=0.5, quality=quality.get(frame, 0.5))
            found.pending.append(row._replace(area=frames.step))
        found.flush(spool)
    assert not found.pending
    return found


def columns(batches: list[pa.RecordBatch]) -> tuple[list[int], str]:
    table = pa.Table.from_batches(batches)
    return table["frame"].to_pylist(), "".join("<" if area < 0 else ">" for area in table["area"].to_pylist())


@pytest.mark.parametrize("upward", [1, 4, 100])
@pytest.mark.parametrize("downward", [1, 3, 100])
def test_each_frame_leaves_once_and_in_order_however_it_was_spooled(upward: int, downward: int) -> None:
    spool = io.BytesIO()
    forward = strand(spool, range(3, 16), upward, dict.fromkeys((4, 5, 6), 0.9))
    backward = strand(spool, range(11, -1, -1), downward, dict.fromkeys((7, 8, 9, 10), 0.9))
    frames, sides = columns(list(woven(forward, backward, spool)))
    assert frames == list(range(16))
    # Before the first prompt, the prompt, its side, the other side, the second prompt and what lies behind it.
    assert sides == "<<<" + ">" + ">>>" + "<<<<" + ">" + ">>>>"


def test_what_came_one_way_only_leaves_as_it_is() -> None:
    spool = io.BytesIO()
    forward = strand(spool, range(3, 16), 4, {})
    assert columns(list(woven(forward, Strand(downward=True), spool))) == (list(range(3, 16)), ">" * 13)
