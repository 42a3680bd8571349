"""A label that is mended by a further row: the real command, a real local Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch import read_masks
from tests.support.running import STUB, run, write_manifest
from tests.support.videos import make_video

pytestmark = pytest.mark.ray

BOX = [30, 30, 20, 20]


def masks_in(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "masks").iterdir()}


def test_a_corrected_video_is_tracked_again_and_no_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", 8)
    rows = [{"video": str(tmp_path / f"{name}.mp4"), "video_id": name, "box": BOX} for name in ("a", "b")]
    out, first = tmp_path / "run", write_manifest(tmp_path / "first.jsonl", rows)
    assert run("submit", first, "--out", out, *STUB).code == 0
    before = masks_in(out)

    more = write_manifest(tmp_path / "more.jsonl", [*rows, {**rows[0], "frame": 5, "box": [60, 40, 20, 20]}])
    refused = run("submit", more, "--out", out, *STUB)
    assert refused.code == 11
    assert "--redo-changed tracks those videos again" in refused.err
    assert masks_in(out) == before
    planned = run("plan", more, "--out", out, "--redo-changed", *STUB)
    assert "videos   1 to do, 1 of 2 done" in planned.out
    assert "again    1 that were done with other rows: a" in planned.out
    assert masks_in(out) == before

    outcome = run("submit", more, "--out", out, "--redo-changed", "--json", *STUB)
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
