"""What is not known of a video although it is exported: nothing of that may become background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rts_batch.runs.video_masks import Target, VideoMasks

if TYPE_CHECKING:
    from rts_batch.export.base import RowFilter

__all__ = ["doubted_frames"]

_COLUMNS = ["object_id", "frame", "x", "area", "score", "confidence", "quality", "state"]


def doubted_frames(
    masks: VideoMasks, targets: Sequence[Target], row_filter: RowFilter, *, needs_mask: bool
) -> Mapping[int, int]:
    """Return exported frame → how many rows of the targets are left out there because of doubt, at least one."""
    frames: Counter[int] = Counter()
    wanted = [target.object_id for target in targets]
    for table in masks.tables(_COLUMNS):
        here = table["frame"].to_numpy()
        which = _doubted(table, row_filter, needs_mask=needs_mask) & np.isin(table["object_id"].to_numpy(), wanted)
        frames.update(here[which & (here % row_filter.every == 0)].tolist())
    return frames


def _doubted(table: pa.Table, row_filter: RowFilter, *, needs_mask: bool) -> NDArray[np.bool_]:
    """Return which rows `[N]` are not shown although nothing says that the target is not there.

    Those are left out by their state or value, or hold nothing that could be shown, whatever their state: no mask or,
    where none is needed, no box. What is too small, or not among the objects wanted, is left out on purpose and is no
    doubt. Nor is a target of which a person has said that it is absent: such a row is `lost` without the score of a
    search.
    """
    states = table["state"].cast(pa.string()).to_numpy(zero_copy_only=False)
    doubted = np.zeros(len(states), np.bool_)
    for column, least in row_filter.minima.items():
        doubted |= ~(table[column].to_numpy() >= least)  # null is NaN
    doubted &= states != "prompt"
    if row_filter.states is not None:
        doubted |= ~np.isin(states, list(row_filter.states))
    doubted |= table["area"].to_numpy() == 0 if needs_mask else np.isnan(table["x"].to_numpy())
    known_absent: NDArray[np.bool_] = (states == "lost") & np.isnan(table["score"].to_numpy())
    return np.logical_and(doubted, ~known_absent)
