"""Between two prompts of a target a video is tracked from either side: which side's masks are kept on which frames.

Each gap between prompts has one seam. Frames before it are kept as they were tracked from the prompt before the gap,
those from it on as they were tracked from the one behind, so that no mask jumps to and fro. The seam lies where the
qualities of both parts have the highest sum (docs/quality.md says what that brings).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Side(NamedTuple):
    """The rows of a target as one pass made them, N of them on as many frames in a row."""

    qualities: NDArray[np.float64]
    """NaN where the row has none."""
    fixed: NDArray[np.bool_]
    """Whether a person has said what is there: a prompt, or that the target is absent."""

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Side:
        """Read a batch of rows."""
        return cls(
            batch["quality"].to_numpy(zero_copy_only=False).astype(np.float64),
            # Only what was searched for has a score.
            pc.is_null(batch["score"]).to_numpy(zero_copy_only=False),
        )

    def part(self, start: int, stop: int) -> Side:
        return Side(self.qualities[start:stop], self.fixed[start:stop])


def from_behind(before: Side, behind: Side) -> NDArray[np.bool_]:
    """Return for each frame whether the side that was tracked backward is kept, `[N] bool`.

    Args:
        before: as tracked forward.
        behind: as tracked backward, the same frames.
    """
    kept = np.zeros(len(before.fixed), np.bool_)
    # What a person has said holds as it does forward: a target that is absent stays so until its next prompt.
    edges = np.flatnonzero(np.diff(before.fixed.astype(np.int8), prepend=1, append=1))
    for start, stop in edges.reshape(-1, 2).tolist():
        if not behind.fixed[start:stop].any():
            kept[start + _seam(before.qualities[start:stop], behind.qualities[start:stop]) : stop] = True
    return kept


def _seam(before: NDArray[np.float64], behind: NDArray[np.float64]) -> int:
    """Return how many frames of a gap, `[N]` qualities on either side, are kept from the side before it."""
    middle = (len(before) + 1) // 2
    sums = np.concatenate([[0.0], np.cumsum(before - behind)])
    if np.isnan(sums[-1]):  # nobody knows: each frame goes to the nearer prompt
        return middle
    best = np.flatnonzero(sums == sums.max())
    return int(best[np.abs(best - middle).argmin()])
