"""A run's folder that an earlier version left unfinished is gone on with, and serves everything that reads runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import rts_batch
from rts_batch.export.run import export_run
from rts_batch.manifest import read_manifest
from rts_batch.manifest.formats import FOLDER_KEY
from rts_batch.review.report import review_run
from rts_batch.runs.verification import verify_run
from rts_batch.worker.checkpoints import read_latest
from rts_batch.worker.rts import RtsFactory
from rts_batch.worker.tracker import find_factory
from tests.support.running import run

FIXTURE = Path(__file__).parents[1] / "support" / "fixtures" / "earlier-run"
CHECKPOINT = 16
"""The last frame of which the checkpoint knows; the video has 24."""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The run's folder; its manifest says that the videos are where the test has put them."""
    shutil.copytree(FIXTURE, tmp_path / "earlier")
    manifest = tmp_path / "earlier" / "run" / "manifest.parquet"
    table = pq.read_table(manifest, use_threads=False)
    pq.write_table(table.replace_schema_metadata({FOLDER_KEY: str(tmp_path / "earlier").encode()}), manifest)
    return tmp_path / "earlier" / "run"


def test_the_trackers_earlier_name_is_found() -> None:
    record = json.loads((FIXTURE / "run" / "run.json").read_text())
    assert record["settings"]["tracker"] == "rts_batch.actors.rts:RtsFactory"
    assert find_factory(record["settings"]["tracker"]) is RtsFactory


def test_its_checkpoint_is_read(earlier: Path) -> None:
    task = next(task for task in read_manifest(str(earlier / "manifest.parquet")).tasks if task.video_id == "long")
    checkpoint = read_latest(str(earlier / "checkpoints" / task.key))
    assert checkpoint is not None
    assert (checkpoint.frame, checkpoint.count, checkpoint.warnings) == (CHECKPOINT, CHECKPOINT + 1, ())
    assert [row.frame for row in checkpoint.rows(task, 64, 96)] == list(range(CHECKPOINT + 1))


def test_what_is_finished_is_read_checked_exported_and_reviewed(earlier: Path, tmp_path: Path) -> None:
    video = rts_batch.read_masks(str(earlier)).video("two")
    assert (video.frames_total, list(video.targets), video.size) == (10, [1, 2], (64, 96))
    first, *others = video.frames()
    assert {key: int(mask.sum()) for key, mask in first.masks().items()} == {1: 329, 2: 248}
    assert {row.state for frame in others for row in frame.rows} == {"uncertain"}
    assert [check.problems for check in verify_run(str(earlier))] == [()]
    export_run(str(earlier), str(tmp_path / "davis"), "davis")
    assert len(list((tmp_path / "davis").rglob("*.png"))) == 10
    summary = review_run(str(earlier), str(tmp_path / "review"))
    assert (summary.videos, summary.left_out) == (1, [])


@pytest.mark.ray
def test_the_run_is_gone_on_with_from_its_checkpoint(earlier: Path) -> None:
    finished = {path.name: path.read_bytes() for path in (earlier / "masks").iterdir()}
    outcome = run("resume", earlier, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.summary["done"], outcome.summary["already_done"]) == (2, 1)
    for name, content in finished.items():
        assert (earlier / "masks" / name).read_bytes() == content
    (then,) = (FIXTURE / "then").iterdir()
    report = json.loads((earlier / "videos" / f"{then.stem}.json").read_text())
    assert report["checkpoints"]["resumed_after"] == CHECKPOINT
    assert [check.problems for check in verify_run(str(earlier))] == [(), ()]
    rows = list(rts_batch.read_masks(str(earlier)).video("long").rows())
    (earlier / "masks" / then.name).write_bytes(then.read_bytes())
    rows_then = list(rts_batch.read_masks(str(earlier)).video("long").rows())
    assert rows[: CHECKPOINT + 1] == rows_then[: CHECKPOINT + 1]
    assert len(rows) == len(rows_then) == 24
    for row, row_then in zip(rows, rows_then, strict=True):
        # Not the same bytes: another processor or version of a library adds up in another order.
        mask, mask_then = row.mask(), row_then.mask()
        assert np.sum(mask & mask_then) / np.sum(mask | mask_then) > 0.9
