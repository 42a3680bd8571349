"""What is not known of a video although it is exported: nothing of that may become background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rts_batch.export.row_filter import RowFilter
from rts_batch.io.results.schema import absent_rows
from rts_batch.runs.video_masks import Target, VideoMasks

_COLUMNS = ["object_id", "frame", "x", "area", "score", "confidence", "quality", "state"]


@dataclass(frozen=True)
class Doubt:
    """The exported frames of a video of which not everything is known."""

    left_out: Mapping[int, int]
    """Frame → how many rows are left out there because of doubt, at least one."""
    unmarked: frozenset[int]
    """Where a target has no row, though nothing says that it is not there."""

    @property
    def rows(self) -> int:
        """How many rows are left out in all."""
        return sum(self.left_out.values())

    @cached_property
    def frames(self) -> frozenset[int]:
        """All of them: what is not labelled there is no background."""
        return self.unmarked.union(self.left_out)


def find_doubt(masks: VideoMasks, targets: Sequence[Target], row_filter: RowFilter, *, needs_mask: bool) -> Doubt:
    """Return what is in doubt of these targets, which may be some of the video's.

    Before its first row a tracked target counts as not there: it is marked where it comes. After its last one (of a
    `backward` task) nobody has looked for it, and where no row was tracked (`annotate`) on no frame without one.
    """
    left_out: Counter[int] = Counter()
    rows_on = np.zeros(masks.frames_total, np.int32)
    tracked = False
    wanted = [target.object_id for target in targets]
    for table in masks.tables(_COLUMNS):
        frames, chosen = table["frame"].to_numpy(), np.isin(table["object_id"].to_numpy(), wanted)
        states = table["state"].cast(pa.string()).to_numpy(zero_copy_only=False)
        tracked |= not ((states == "prompt") | absent_rows(table)).all()
        due = chosen & (frames % row_filter.every == 0)
        left_out.update(frames[due & _doubted(table, states, row_filter, needs_mask=needs_mask)].tolist())
        np.add.at(rows_on, frames[due & (frames < masks.frames_total)], 1)
    firsts = sorted(target.first_frame for target in targets)
    exported = np.arange(-(-min(firsts, default=0) // row_filter.every), -(-masks.frames_total // row_filter.every))
    exported *= row_filter.every
    begun = np.searchsorted(firsts, exported, side="right") if tracked else len(targets)
    return Doubt(left_out, frozenset(exported[rows_on[exported] < begun].tolist()))


def _doubted(
    table: pa.Table, states: NDArray[np.object_], row_filter: RowFilter, *, needs_mask: bool
) -> NDArray[np.bool_]:
    """Return which rows `[N]` are not shown although nothing says that the target is not there.

    Those are left out by their state or value, or hold nothing that could be shown, whatever their state: no mask or,
    where none is needed, no box. What is too small, or not among the objects wanted, is left out on purpose and is no
    doubt. Nor is a target of which a person has said that it is absent.
    """
    doubted = np.zeros(len(states), np.bool_)
    for column, least in row_filter.minima.items():
        doubted |= ~(table[column].to_numpy() >= least)  # null is NaN
    doubted &= states != "prompt"
    if row_filter.states is not None:
        doubted |= ~np.isin(states, list(row_filter.states))
    doubted |= table["area"].to_numpy() == 0 if needs_mask else np.isnan(table["x"].to_numpy())
    return np.logical_and(doubted, ~absent_rows(table))
