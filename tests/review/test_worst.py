"""Which frames are named first to be corrected, on tracks whose qualities are known."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from rts_batch import read_masks
from rts_batch.errors import ResultsError
from rts_batch.io.results.writer import ResultsWriter
from rts_batch.manifest.task import Direction
from rts_batch.masks import State
from rts_batch.review.worst import MENDED, REACH, REACH_OF_BOTH_SIDES, WorstFrame, worst_frames
from tests.support.run_folders import row_of
from tests.support.running import run

MASK = np.ones((4, 4), bool)


def write_video(
    folder: Path,
    name: str,
    qualities: list[float | None],
    *,
    object_id: int = 1,
    direction: Direction = "forward",
    absent: Collection[int] = (),
) -> None:
    """A video of one target; None is a prompt, or an absence on the frames that are given as such."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    task = {"video_id": name, "direction": direction}
    path = folder / "masks" / f"{name}.parquet"
    with ResultsWriter(path, targets={object_id: {}}, task=task, weights="w") as writer:
        for frame, quality in enumerate(qualities):
            state: State = "lost" if frame in absent else "prompt" if quality is None else "tracked"
            writer.add(row_of(MASK, frame, state, video_id=name, object_id=object_id, quality=quality))
        writer.close(frames=len(qualities))


def chosen(folder: Path, count: int) -> list[WorstFrame]:
    return worst_frames(read_masks(str(folder)), count)


def test_one_correction_serves_the_frames_behind_it(tmp_path: Path) -> None:
    good, bad = [0.95] * 20, [0.2] * 20
    write_video(tmp_path, "a", [None, *good, *bad])
    write_video(tmp_path, "b", [None, *good, 0.1, *good])
    first, second, third = chosen(tmp_path, 3)
    assert (first.video_id, first.frame) == ("a", 21), "where it goes wrong, not the lowest value"
    mended = [1.0, *(MENDED * np.exp(-step / REACH) for step in range(1, 20))]
    assert first.gain == pytest.approx(0.8 * sum(mended), rel=1e-3)
    assert first.quality == pytest.approx(0.2)
    # What the first one mends is not asked for again in the frames beside it.
    assert all(abs(found.frame - 21) > 3 for found in (second, third) if found.video_id == "a")
    assert first.gain > second.gain >= third.gain


def test_a_correction_reaches_no_further_than_the_next_one(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [None, *[0.9] * 20, *[0.2] * 10, *[0.9] * 20])
    found = chosen(tmp_path, 9)
    assert found[0].frame == 21
    # What lies before it could mend a frame or two up to there: nobody is asked to mark the same failure twice.
    assert not {frame.frame for frame in found} & {18, 19, 20}
    before = next(frame for frame in found if frame.frame < 21)
    reached = 0.1 * (1 + MENDED * sum(np.exp(-step / REACH) for step in range(1, 21 - before.frame)))
    assert before.gain == pytest.approx(reached, rel=1e-3)


def test_what_is_marked_already_is_not_named(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [None, 0.3, None, 0.9, 0.9, None])
    assert {found.frame for found in chosen(tmp_path, 50)} <= {1, 3, 4}
    assert chosen(tmp_path, 1)[0].frame == 1
    # A correction before the second prompt does nothing for what lies behind it.
    assert chosen(tmp_path, 1)[0].gain == pytest.approx(0.7)


def test_what_was_tracked_backward_is_mended_backward(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [0.2] * 10 + [0.95] * 10 + [None], direction="backward")
    assert chosen(tmp_path, 1)[0].frame == 9
    write_video(tmp_path / "both", "a", [0.2] * 10 + [0.95] * 10 + [None] + [0.95] * 10, direction="both")
    assert chosen(tmp_path / "both", 1)[0].frame == 9


def test_a_bidirectional_correction_mends_either_side(tmp_path: Path) -> None:
    qualities = [None, *[0.95] * 10, *[0.2] * 9, *[0.95] * 10, None]
    write_video(tmp_path / "forward", "a", qualities)
    assert chosen(tmp_path / "forward", 1)[0].frame == 11, "where it goes wrong"
    write_video(tmp_path / "both", "a", qualities, direction="bidirectional")
    first, second = chosen(tmp_path / "both", 2)
    assert first.frame == 15, "in the middle of what is wrong"
    mended = [MENDED * np.exp(-step / REACH_OF_BOTH_SIDES) for step in range(1, 15)]
    assert first.gain == pytest.approx(0.8 + 2 * (0.8 * sum(mended[:4]) + 0.05 * sum(mended[4:])), rel=1e-3)
    assert second.gain < 0.8 * (1 - np.exp(-4 / REACH_OF_BOTH_SIDES)) * 9, "both sides of the first are served"


def test_an_absence_turns_no_direction_round(tmp_path: Path) -> None:
    behind = [0.95] * 5 + [None] + [0.95] * 6 + [0.2] * 6 + [None] * 2
    write_video(tmp_path, "a", behind, direction="both", absent=(18, 19))
    assert chosen(tmp_path, 1)[0].frame == 12, "forward from the prompt on, although the rows end without a quality"
    before = [None] * 3 + [0.2] * 10 + [0.95] * 7 + [None]
    write_video(tmp_path / "backward", "a", before, direction="backward", absent=(0, 1, 2))
    assert chosen(tmp_path / "backward", 1)[0].frame == 12, "backward, although the rows begin without a quality"
    write_video(tmp_path / "both", "a", before + [0.95] * 9, direction="both", absent=(0, 1, 2))
    assert chosen(tmp_path / "both", 1)[0].frame == 12, "before the first mark backward"


def test_no_more_are_chosen_than_there_is_to_mend(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [None, 1.0, 1.0])
    write_video(tmp_path, "b", [None, 0.5, 1.0], object_id=7)
    assert [(found.video_id, found.object_id, found.frame) for found in chosen(tmp_path, 9)] == [("b", 7, 1)]


def test_a_run_without_estimates_says_so(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [None, None])
    with pytest.raises(ResultsError, match="no row of this run has a quality"):
        chosen(tmp_path, 3)


@pytest.mark.long
def test_the_command_lists_them(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [None, 0.9, 0.4, 0.4])
    outcome = run("show", tmp_path, "--worst", "1")
    assert outcome.code == 0
    assert [line.split() for line in outcome.out.splitlines()[:2]] == [
        ["video", "object", "frame", "state", "quality", "gain"],
        ["a", "1", "2", "tracked", "0.400", "0.9"],
    ]
    assert '"frame": 2' in run("show", tmp_path, "--worst", "1", "--json").out
