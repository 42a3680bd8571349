"""What is saved of a target stays as it was said, whatever else is said of it afterwards."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rts_batch.manifest import read_manifest
from rts_batch.masks import encode_rle
from rts_batch.runs.corrections import merged_manifest
from tests.support.review_desk import Page, disc_video, marking_page, page_of
from tests.support.videos import make_video


def counts(left: int = 10) -> str:
    mask = np.zeros((120, 160), bool)
    mask[10:30, left : left + 20] = True
    return encode_rle(mask).decode()


def saved(page: Page, *changes: dict[str, object], **others: object) -> list[dict[str, Any]]:
    """The rows that are there after a save of changes of the clip's first target."""
    version = page.get("corrections").json()["version"]
    sent = [{"video_id": "clip", "object_id": 1, **change} for change in changes]
    answer = page.post("corrections", {"version": version, "changes": sent, **others})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["rows"])


def said(rows: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Frame, counts of the mask, absence and category of each row."""
    return [
        (row["frame"], row["mask"] and json.loads(row["mask"])["counts"], row["absent"], row["category"])
        for row in rows
    ]


RENAMED: dict[str, object] = {"frame": None, "category": "truck"}


@pytest.mark.parametrize("what", [{"counts": counts()}, {"absent": True}])
def test_another_category_leaves_what_is_said_of_the_first_prompts_frame(
    tmp_path: Path, what: dict[str, object]
) -> None:
    corrected = {"frame": 0, "category": "truck", **what}
    expected = [(0, what.get("counts"), "absent" in what, "truck")]
    with page_of(tmp_path, disc_video(tmp_path, "clip", 8)) as page:
        for changes in itertools.permutations([corrected, RENAMED]):
            assert said(saved(page, *changes)) == expected, "in one save"
            assert said(saved(page, RENAMED)) == expected, "in a later one"
        rows = saved(page, {"frame": 5, "counts": counts(40)}, {"frame": None, "category": "bus"})
        assert [(row["frame"], row["category"]) for row in rows] == [(0, "bus"), (5, "bus")], "of all that is saved"
        spot = {"video_id": "clip", "object_id": 1, "frame": 0}
        rows = saved(page, RENAMED, removed=[spot])
    assert [(row["frame"], row["box"]) for row in rows] == [(0, [1, 1, 4, 4]), (5, None)], "the run's own prompt again"


def test_a_target_of_which_nothing_else_is_saved_gets_its_first_prompt_again(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 8)) as page:
        (row,) = saved(page, RENAMED)
        assert (row["frame"], row["box"], row["category"]) == (0, [1, 1, 4, 4], "truck")
        rows = saved(page, {"frame": 5, "counts": counts()}, {"frame": 0, "counts": counts(40), "category": "truck"})
    assert said(rows) == [(0, counts(40), False, "truck"), (5, counts(), False, "truck")]


def test_a_new_videos_target_drawn_anew_and_renamed_has_the_new_mask(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", 6)
    with marking_page([str(tmp_path / "clip.mp4")], tmp_path / "m.csv") as page:
        saved(page, {"frame": 2, "counts": counts(), "category": "car"})
        assert said(saved(page, {"frame": 2, "counts": counts(80), "category": "truck"}, RENAMED)) == [
            (2, counts(80), False, "truck")
        ]
        unknown = {**RENAMED, "video_id": "clip", "object_id": 7}
        version = page.get("corrections").json()["version"]
        answer = page.post("corrections", {"version": version, "changes": [unknown]})
    assert answer.status_code == 422
    assert "object 7: the run does not know this target" in answer.json()["error"]


def times_of(path: Path) -> list[tuple[int | None, float | None, str]]:
    (task,) = read_manifest(str(path)).tasks
    return [(prompt.frame, prompt.time, prompt.kind) for prompt in task.targets[0].prompts]


def absent_at(tmp_path: Path, time: float, *, marked: int) -> None:
    """Have the run's manifest mark its target on a frame, and say at a time that it is absent."""
    manifest = tmp_path / "by-time.csv"
    manifest.write_text(
        "video,video_id,object_id,frame,time,box,prompt_kind\n"
        f'{tmp_path}/clip.mp4,clip,1,{marked},,"1,1,4,4",correct\n'
        f"{tmp_path}/clip.mp4,clip,1,,{time},,absent\n"
    )
    (tmp_path / "run" / "manifest.parquet").write_bytes(read_manifest(str(manifest)).to_parquet())


def test_an_absence_given_by_its_time_is_corrected_on_its_frame(tmp_path: Path) -> None:
    with page_of(tmp_path, disc_video(tmp_path, "clip", 12, lost=range(5, 12))) as page:
        absent_at(tmp_path, 0.2, marked=0)
        # Each frame of the absence is lost as the first one is.
        saved(page, {"frame": 5, "counts": counts()}, {"frame": 7, "counts": counts(40)})
        with merged_manifest(str(tmp_path / "run")) as path:
            assert times_of(Path(path)) == [(0, None, "correct"), (7, None, "correct"), (None, 0.2, "correct")]
        assert [row["frame"] for row in saved(page, {"frame": 5, "absent": True})] == [5, 7], "still one row"


def test_an_absence_before_all_rows_is_not_taken_for_one_on_their_first_frame(tmp_path: Path) -> None:
    video = replace(disc_video(tmp_path, "clip", 12), first={1: 6, 2: 4})
    with page_of(tmp_path, video) as page:
        absent_at(tmp_path, 0.04, marked=6)
        saved(page, {"frame": 4, "counts": counts()})
        with merged_manifest(str(tmp_path / "run")) as path:
            assert times_of(Path(path)) == [(4, None, "correct"), (6, None, "correct"), (None, 0.04, "absent")]
