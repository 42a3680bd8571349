"""Which rows of a run are exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rts_batch.errors import UsageError
from rts_batch.io.results.schema import Row
from rts_batch.masks import STATES, State


@dataclass(frozen=True, kw_only=True)
class RowFilter:
    """Which rows of the masks table are exported; where a row is left out, its target may be anywhere.

    Raises:
        UsageError: a value that makes no sense.
    """

    min_score: float | None = None
    """Prompts have no score and always pass."""
    min_confidence: float | None = None
    """Prompts always pass: they are given, not estimated."""
    min_quality: float | None = None
    """Prompts always pass; rows without an estimate do not."""
    min_area: int = 0
    """Pixels of the mask."""
    states: frozenset[State] | None = None
    every: int = 1
    """Frames whose index is a multiple of this."""
    objects: frozenset[int | str] | None = None
    """Numbers and names of targets."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"--every is {self.every}; 1 takes every frame, 5 every fifth")
        unknown = sorted((self.states or frozenset()) - set(STATES))
        if unknown:
            raise UsageError(f"--states: {', '.join(unknown)} is none of {', '.join(STATES)}")

    @cached_property
    def minima(self) -> Mapping[str, float]:
        """Column → the least value that a row which is no prompt must have in it, rounded as the table's values are."""
        asked = {"score": self.min_score, "confidence": self.min_confidence, "quality": self.min_quality}
        # A value that was written as 0.9 lies below 0.9 as float32, and shall pass it.
        return {column: float(np.float32(least)) for column, least in asked.items() if least is not None}

    def takes(self, row: Row) -> bool:
        """Whether the row passes, whatever its frame and object."""
        if row.area < self.min_area or (self.states is not None and row.state not in self.states):
            return False
        if row.state == "prompt":
            return True
        return all(_reaches(getattr(row, column), least) for column, least in self.minima.items())


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least
