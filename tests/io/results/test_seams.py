"""Which of two sides' masks are kept between prompts, by qualities that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rts_batch.io.results.seams import Side, from_behind

PROMPT, ABSENT = "prompt", "absent"
Known = Sequence[float | str | None]


def side(known: Known) -> Side:
    """Of qualities, prompts and absences, one for each frame; None is a mask of which nobody knows how good it is."""
    qualities = np.array([value if isinstance(value, float) else math.nan for value in known])
    return Side(qualities, np.array([isinstance(value, str) for value in known]))


def kept(before: Known, behind: Known) -> str:
    """Which side each frame is of: `>` as tracked forward, `<` as tracked backward."""
    return "".join("<" if one else ">" for one in from_behind(side(before), side(behind)))


def test_the_seam_lies_where_both_parts_are_best() -> None:
    before = [PROMPT, 0.9, 0.8, 0.3, 0.2, 0.2, PROMPT]
    behind = [PROMPT, 0.1, 0.3, 0.6, 0.8, 0.9, PROMPT]
    assert kept(before, behind) == ">>><<<>"


def test_one_frame_that_is_better_elsewhere_does_not_break_a_side() -> None:
    before = [PROMPT, 0.9, 0.5, 0.9, 0.2, PROMPT]
    behind = [PROMPT, 0.2, 0.6, 0.2, 0.9, PROMPT]
    assert kept(before, behind) == ">>>><>"


def test_each_gap_has_a_seam_of_its_own() -> None:
    before = [PROMPT, 0.9, 0.9, 0.1, PROMPT, 0.2, 0.2, PROMPT]
    behind = [PROMPT, 0.5, 0.5, 0.5, PROMPT, 0.9, 0.9, PROMPT]
    assert kept(before, behind) == ">>><><<>"


@pytest.mark.parametrize(("length", "expected"), [(4, ">>><<>"), (5, ">>>><<>")])
@pytest.mark.parametrize("quality", [0.5, None])
def test_where_nothing_tells_them_apart_each_frame_goes_to_the_nearer_prompt(
    length: int, expected: str, quality: float | None
) -> None:
    rows = [PROMPT, *[quality] * length, PROMPT]
    assert kept(rows, rows) == expected


def test_a_target_that_is_said_to_be_absent_stays_so_until_its_next_prompt() -> None:
    before = [PROMPT, 0.2, 0.2, ABSENT, ABSENT, ABSENT, PROMPT]
    behind = [ABSENT, ABSENT, ABSENT, ABSENT, 0.9, 0.9, PROMPT]
    assert kept(before, behind) == ">" * 7
