"""VOT's folders: what is made of them, and what a run on them scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rts_batch import read_masks
from rts_batch.cli.app import app
from rts_batch.errors import ResultsError, UsageError
from rts_batch.evaluation.layouts.vot import parse_region, vot_sequences
from rts_batch.evaluation.prepare import prepare
from rts_batch.evaluation.scoring import score
from rts_batch.manifest import read_manifest
from rts_batch.masks import decode_rle
from tests.support.cluster import SharedCluster
from tests.support.places import REPOSITORY
from tests.support.run_folders import write_plain_masks
from tests.support.running import STUB
from tests.support.vot_dataset import (
    ANCHORS,
    SIZE,
    make_dataset,
    masks_of,
    scripted_mask,
    to_region,
    truth,
)

GOLDEN = json.loads((REPOSITORY / "tests" / "support" / "fixtures" / "vot2020-st.json").read_text())


def test_masks_are_read_as_vot_writes_them() -> None:
    for mask in (truth("crab", 17), scripted_mask("bee", 209, 229), np.zeros(SIZE, bool)):
        assert (parse_region(to_region(mask), *SIZE) == mask).all()
    mask = parse_region("m-2,3,4,2,1,3,0,2", 6, 5)  # two columns left of the image, the last two pixels not written
    assert np.argwhere(mask).tolist() == [[3, 0], [3, 1]]
    for wrong, message in (
        ("3,4,10,10", "no mask"),
        ("m1,2", "whole numbers"),
        ("m0,0,2,2,5", "do not fit"),
        ("m0,0,2,2,-1,3", "do not fit"),
        ("m0,0,a,2,4", "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_region(wrong, 6, 5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("vot") / "sequences"
    make_dataset(root, images=False)
    return root


def test_every_anchor_is_a_video_of_the_manifest(dataset: Path, tmp_path: Path) -> None:
    prepared = prepare("vot2020-st", dataset.parent, str(tmp_path / "m.csv"))
    assert (prepared.sequences, prepared.targets, prepared.init) == (3, 13, "mask")
    with (tmp_path / "m.csv").open() as file:
        rows = {row["video_id"]: row for row in csv.DictReader(file)}
    forward, backward = rows["bee_00000209"], rows["bee_00000300"]
    fields = ("start", "end", "direction", "frame", "frames", "init")
    assert [forward[field] for field in fields] == ["209", "420", "forward", "209", "211", "mask"]
    assert [backward[field] for field in fields] == ["0", "301", "backward", "300", "301", "mask"]
    assert Path(backward["video"]) == dataset / "bee" / "color"
    rle = json.loads(backward["mask"])
    assert (decode_rle(rle["counts"].encode(), *rle["size"]) == truth("bee", 300)).all()
    tasks = {task.video_id: task for task in read_manifest(str(tmp_path / "m.csv")).tasks}
    assert (tasks["bee_00000300"].direction, tasks["bee_00000300"].end) == ("backward", 301)
    prepare("vot2020-st", dataset, str(tmp_path / "boxes.csv"), init="box")
    with (tmp_path / "boxes.csv").open() as file:
        assert next(row["box"] for row in csv.DictReader(file)).count(",") == 3


def write_vot_run(run: Path) -> None:
    """What a run of the manifest writes: rows in the order of the frames, also where they were tracked backward."""
    for sequence, anchors in ANCHORS.items():
        for anchor in anchors:
            found = dict(masks_of(sequence, anchor))
            first = min(found)
            masks = [found[first + offset] for offset in range(len(found))]
            write_plain_masks(run, f"{sequence}_{anchor:08d}", {1: masks}, {1: first})


@pytest.mark.long
def test_a_run_is_scored_as_the_toolkit_scores_it(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_vot_run(run)
    report = score("vot2020-st", dataset, str(run))
    assert report.measures == pytest.approx({name: GOLDEN[name] for name in ("eao", "accuracy", "robustness")})
    assert report.sequences["ant"]["robustness"] == pytest.approx((441 - 41) / 441)
    arguments = ["score", "vot2020-st", str(dataset), str(run), "--plots", str(tmp_path / "plots")]
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert f"| EAO | {100 * GOLDEN['eao']:.1f} |" in result.output
    assert "Expected average overlap on VOT2020-ST: 38.3" in (tmp_path / "plots" / "eao.svg").read_text()

    next((run / "masks").glob("crab_00000500-*")).unlink()
    with pytest.raises(ResultsError, match="lacks 1 of the 3 sequences of VOT2020-ST: crab"):
        score("vot2020-st", dataset, str(run))
    assert score("vot2020-st", dataset, str(run), partial=True).missing == ("crab",)
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--archive", "a.zip"])
    assert (result.exit_code, "takes no archive" in result.stderr) == (2, True)


@pytest.mark.ray
def test_the_job_tracks_forward_and_backward_and_scores(tmp_path: Path, cluster: SharedCluster) -> None:
    make_dataset(tmp_path / "data")
    (tmp_path / "data" / "list.txt").write_text("ant\n")
    arguments = ["vot2020-st", tmp_path / "data", "--out", tmp_path / "out", *STUB]
    program = [str(REPOSITORY / "jobs" / "evaluate.py")]
    outcome = cluster.run(*arguments, "--workers", 1, "--json", program=program)
    assert outcome.code == 0, outcome.err
    scores = json.loads(outcome.out.splitlines()[-1])
    assert set(scores["measures"]) == {"eao", "accuracy", "robustness"}
    assert 0 < scores["measures"]["robustness"] <= 1
    assert (tmp_path / "out" / "plots" / "eao.svg").exists()
    frames = {task.video_id: [] for task in read_manifest(str(tmp_path / "out" / "manifest.csv")).tasks}
    for video in read_masks(str(tmp_path / "out" / "run")):
        frames[video.video_id] = [row.frame for row in video.rows()]
    assert frames == {
        "ant_00000000": list(range(130)),
        "ant_00000050": list(range(50, 130)),
        "ant_00000100": list(range(101)),
        "ant_00000129": list(range(130)),
    }


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", images=False)
    folder = tmp_path / "data" / "ant"

    def refused(name: str, text: str, message: str) -> None:
        kept = (folder / name).read_text()
        (folder / name).write_text(text)
        with pytest.raises(UsageError, match=message):
            prepare("vot2020-st", tmp_path / "data", str(tmp_path / "m.csv"))
        (folder / name).write_text(kept)

    lines = (folder / "groundtruth.txt").read_text().splitlines()
    refused("groundtruth.txt", "\n".join(lines[:-1]), "129 lines, but .* holds 130")
    refused("groundtruth.txt", "\n".join(["1,2,3,4", *lines[1:]]), "ant/groundtruth.txt, line 1: .* no mask")
    refused("groundtruth.txt", "\n".join(["0", *lines[1:]]), "frame 0 is an anchor")
    refused("anchor.value", "1\n", "1 numbers for 130 frames")
    refused("anchor.value", "0\n" * 130, "marks no frame")
    refused("anchor.value", "x\n" * 130, "line 1: 'x'")
    (tmp_path / "data" / "list.txt").unlink()
    with pytest.raises(UsageError, match=r"list\.txt cannot be read"):
        vot_sequences(tmp_path / "data")
