"""Which frame a time is nearest to."""

from __future__ import annotations

import pytest

from rts_batch.io.video.frames import Damage, FrameRange, Moment


@pytest.mark.parametrize(("time", "side"), [(0.0, -1), (0.45, -1), (0.46, 0), (0.5, 0), (4.25, 0), (4.26, 1), (9.0, 1)])
def test_of_two_frames_as_near_the_one_that_is_shown_counts(time: float, side: int) -> None:
    assert Moment(5, 0.5, before=0.4, after=8.0).side(time) == side


def test_the_first_and_the_last_frame_have_one_neighbour() -> None:
    assert [Moment(0, 1.48, after=1.52).side(time) for time in (0.0, 1.5, 1.51)] == [0, 0, 1]
    assert [Moment(9, 1.84, before=1.8).side(time) for time in (1.82, 1.83, 60.0)] == [-1, 0, 0]


def test_damage_of_two_readings_is_put_together() -> None:
    both = Damage(disordered_times=2, first_disordered=7).merged(Damage(disordered_times=1, first_disordered=3))
    assert (both.disordered_times, both.first_disordered) == (2, 3)
    assert both
    assert both.warnings() == ["2 frames have no time, or one before that of the frame before; the first is frame 3"]


def test_no_frame_comes_before_the_first() -> None:
    """A negative one moved the indices of all that followed."""
    with pytest.raises(ValueError, match="frames are counted from 0, and the first one wanted is -1"):
        FrameRange(-1)
