"""A label that is mended by a further row: the real command, a real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rts_batch import read_masks
from rts_batch.masks import encode_rle
from rts_batch.runs.corrections import CorrectionsBook
from rts_batch.runs.rows_file import RowsFile
from tests.support.cluster import SharedCluster
from tests.support.running import STUB, run, write_manifest
from tests.support.videos import make_video

pytestmark = pytest.mark.ray

BOX = [30, 30, 20, 20]


def masks_in(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "masks").iterdir()}


def mask_of(x: int, y: int) -> str:
    mask = np.zeros((120, 160), bool)
    mask[y : y + 20, x : x + 20] = True
    return json.dumps({"size": [120, 160], "counts": encode_rle(mask).decode()})


def test_a_corrected_video_is_tracked_again_and_no_other(tmp_path: Path, cluster: SharedCluster) -> None:
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", 8)
    rows = [{"video": str(tmp_path / f"{name}.mp4"), "video_id": name, "box": BOX} for name in ("a", "b")]
    out, first = tmp_path / "run", write_manifest(tmp_path / "first.jsonl", rows)
    assert cluster.run("submit", first, "--out", out, "--workers", 1, *STUB).code == 0
    before = masks_in(out)

    more = write_manifest(tmp_path / "more.jsonl", [*rows, {**rows[0], "frame": 5, "box": [60, 40, 20, 20]}])
    refused = cluster.run("submit", more, "--out", out, *STUB)
    assert refused.code == 11
    assert "--redo-changed tracks those videos again" in refused.err
    assert masks_in(out) == before
    planned = run("plan", more, "--out", out, "--redo-changed", *STUB)
    assert "videos   1 to do, 1 of 2 done" in planned.out
    assert "again    1 that were done with other rows: a" in planned.out
    assert masks_in(out) == before

    outcome = cluster.run("submit", more, "--out", out, "--redo-changed", "--json", *STUB)
    assert (outcome.code, outcome.summary["done"]) == (0, 2), outcome.err
    after = masks_in(out)
    assert len(after) == len(list((out / "videos").iterdir())) == 2, "nothing of the old rows is left"
    assert len(before.items() & after.items()) == 1, "the other video's file is the same, byte for byte"
    states = {video.video_id: [row.state for row in video.rows()] for video in read_masks(str(out))}
    assert {
        name: [place for place, state in enumerate(found) if state == "prompt"] for name, found in states.items()
    } == {
        "a": [0, 5],
        "b": [0],
    }
    assert run("verify", out).code == 0


def test_resume_puts_saved_corrections_in(tmp_path: Path, cluster: SharedCluster) -> None:
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", 8)
    marks = {"a": {"box": BOX}, "b": {"polygon": "30 30 50 30 50 50 30 50"}}
    rows = [{"video": str(tmp_path / f"{name}.mp4"), "video_id": name, **mark} for name, mark in marks.items()]
    out, first = tmp_path / "run", write_manifest(tmp_path / "first.jsonl", rows)
    assert cluster.run("submit", first, "--out", out, "--workers", 1, *STUB).code == 0
    assert "has no corrections" in cluster.run("resume", out, "--corrections").err
    before = masks_in(out)
    book = CorrectionsBook(str(out))
    book.save("none", [{**rows[0], "object_id": 1, "frame": 5, "mask": mask_of(60, 40)} | {"box": None}])
    drawn = "video,video_id,frame,mask,polygon\na.mp4,a,7,,70 40 90 40 90 60 70 60\n"
    saved = book.read()
    (out / "drawn.csv").write_text(drawn)
    book.save(saved.version, RowsFile(str(out / "drawn.csv")).read().rows)
    (out / "drawn.csv").unlink()

    outcome = cluster.run("resume", out, "--corrections", "--json")
    assert (outcome.code, outcome.summary["done"]) == (0, 2), outcome.err
    after = masks_in(out)
    assert len(before.items() & after.items()) == 1
    rows_now = list(read_masks(str(out)).video("a").rows())
    assert [row.frame for row in rows_now if row.state == "prompt"] == [0, 5, 7]
    assert rows_now[5].mask()[45, 65], "the mask is the correction's own"
    assert rows_now[7].mask()[40:60, 70:90].all()
    assert rows_now[7].area == 400
    assert next(read_masks(str(out)).video("b").rows()).mask()[30:50, 30:50].all()
    assert book.pending() == []
    assert cluster.run("resume", out, "--corrections", "--json").summary["already_done"] == 2, (
        "once more, and nothing to do"
    )
    assert masks_in(out) == after


def test_a_correction_mends_the_frames_before_it_as_well_where_that_is_asked_for(
    tmp_path: Path, cluster: SharedCluster
) -> None:
    make_video(tmp_path / "a.mp4", 8)
    row = {"video": str(tmp_path / "a.mp4"), "video_id": "a", "box": BOX}
    out = tmp_path / "run"
    assert cluster.run("submit", write_manifest(tmp_path / "first.jsonl", [row]), "--out", out, *STUB).code == 0
    before = [row.mask() for row in read_masks(str(out)).video("a").rows()]
    refused = cluster.run("resume", out, "--bidirectional")
    assert (refused.code, "give both" in refused.err) == (2, True)
    CorrectionsBook(str(out)).save("none", [{**row, "object_id": 1, "frame": 5, "mask": mask_of(60, 40), "box": None}])
    assert cluster.run("resume", out, "--corrections", "--bidirectional").code == 0
    video = read_masks(str(out)).video("a")
    after = [row.mask() for row in video.rows()]
    assert [np.array_equal(*masks) for masks in zip(before, after, strict=True)] == [True] * 3 + [False] * 5
    # The stub moves a mask by a pixel a frame, whichever way it goes.
    assert np.array_equal(after[4], np.roll(after[5], 1, axis=1))
    assert np.array_equal(after[3], np.roll(after[5], 2, axis=1))
    assert video.entry.task["direction"] == "bidirectional"
    assert run("verify", out).code == 0


def test_with_kept_checkpoints_a_correction_costs_only_what_comes_after_it(
    tmp_path: Path, cluster: SharedCluster
) -> None:
    make_video(tmp_path / "a.mp4", 8)
    row = {"video": str(tmp_path / "a.mp4"), "video_id": "a", "box": BOX}
    out, first = tmp_path / "run", write_manifest(tmp_path / "first.jsonl", [row])
    kept = ("--keep-checkpoints", "--checkpoint-every", "1e-9")
    assert cluster.run("submit", first, "--out", out, *kept, *STUB).code == 0
    more = write_manifest(tmp_path / "more.jsonl", [row, {**row, "frame": 5, "box": [60, 40, 20, 20]}])
    assert cluster.run("submit", more, "--out", out, "--redo-changed", *kept, *STUB).code == 0
    assert cluster.run("submit", more, "--out", tmp_path / "whole", *STUB).code == 0
    assert masks_in(out) == masks_in(tmp_path / "whole")
    (report,) = (json.loads(path.read_text()) for path in (out / "videos").iterdir())
    assert report["checkpoints"]["resumed_after"] == 4
    (folder,) = (out / "checkpoints").iterdir()
    assert folder.name == report["key"], "those of the old rows are gone"
    assert run("verify", out).code == 0
