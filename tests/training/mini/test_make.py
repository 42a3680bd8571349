"""Making the embedded weights: its stages, what it leaves behind, and how its seeds are compared."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from rts_batch.config import RTS_MINI, STA_MINI, TRACKER_RTS_MINI
from rts_batch.errors import TrainingError
from rts_batch.training.clips.stills.whole_frames import WholeFrameClips
from rts_batch.training.mini import make as make_mini
from rts_batch.training.mini import runs
from rts_batch.training.mini import stages as mini_stages
from rts_batch.training.mini.recipe import BACKBONE_MEMBER, BOX_LOOSENESS, drawn_boxes
from rts_batch.weights.registry import load_weights
from tests.support.training_layouts import write_stills

pytestmark = pytest.mark.training


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small crops, frames and batches, one batch of held-out clips, a backbone of random weights."""
    small = dataclasses.replace(TRACKER_RTS_MINI, crop_size=(96, 160))
    monkeypatch.setattr(make_mini, "TRACKER_RTS_MINI", small)
    monkeypatch.setattr(make_mini, "SMALL_CROP", (64, 96))
    monkeypatch.setattr(make_mini, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(make_mini, "RUN_VALIDATION_BATCHES", 1)
    monkeypatch.setattr(make_mini, "WholeFrameClips", partial(WholeFrameClips, size=(176, 304), frames=3))
    monkeypatch.setattr(make_mini, "LONG_FRAMES", 3)
    monkeypatch.setattr(make_mini, "SMALL_REGION", small.crop_size)
    for name in ("SMALL_TRACKER", "TRACKER_RTS_MINI"):
        monkeypatch.setattr(runs, name, small)
    for name in ("MINI_HEADS", "MINI", "MINI_RUNS", "MINI_WIDE", "MINI_LONG", "MINI_STA"):
        stage = getattr(mini_stages, name)
        monkeypatch.setattr(mini_stages, name, dataclasses.replace(stage, epochs=1, batch=1, iterations=2))
    monkeypatch.setattr(make_mini, "load_imagenet_features", lambda network, path: None)


def test_every_stage_finds_its_objective_in_a_process_that_only_makes_weights() -> None:
    code = (
        "from rts_batch.training.mini import make\n"
        "from rts_batch.training.objectives import objective_of\n"
        "for stage in make.stages(): objective_of(stage)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("quick")
def test_six_stages_make_one_weights_file(tmp_path: Path) -> None:
    stills = write_stills(tmp_path)
    out = tmp_path / "out"
    (out / "imagenet").mkdir(parents=True)
    (out / "imagenet" / Path(BACKBONE_MEMBER).name).touch()  # so that nothing is downloaded
    with pytest.raises(TrainingError, match="no stage has"):
        mini_stages.export(out)

    recipe = mini_stages.stages(seed=3, steps_scale=1 / 1000)
    assert [stage.total_iterations for stage in recipe] == [1, 2, 1, 1, 1, 2]
    path = make_mini.make_mini([stills], out, seed=3, steps_scale=1 / 1000, loaders=0)
    weights = load_weights(path)
    assert (weights.config, weights.sta.config) == (RTS_MINI, STA_MINI)
    assert "seed 3, 0.001 times" in weights.metadata["provenance"]
    for stage in recipe:
        assert len((out / stage.name / "evaluation.csv").read_text().splitlines()) == 2
    backbone = {key: value for key, value in weights.state.items() if key.startswith("feature_extractor.")}
    assert all(torch.equal(weights.sta.state[key], value) for key, value in backbone.items())

    # What an unfinished training has got to: without a box head, and then from earlier stages alone.
    (out / recipe.box.name / "best.pt").unlink()
    trained = load_weights(mini_stages.export(out, seed=3, steps_scale=1 / 1000))
    assert trained.sta is None
    prints = {weights.fingerprint, trained.fingerprint}
    for stage in (recipe.long, recipe.wide, recipe.runs, recipe.crops):
        (out / stage.name / "best.pt").unlink()
        earlier = load_weights(mini_stages.export(out, seed=3, steps_scale=1 / 1000))
        prints.add(earlier.fingerprint)
    assert len(prints) == 6
    kept, moved = "feature_extractor.features.2.conv.1.0.weight", "decoder.project.conv1.weight"
    assert torch.equal(earlier.state[kept], trained.state[kept])
    assert not torch.equal(earlier.state[moved], trained.state[moved])


@pytest.mark.usefixtures("quick")
def test_a_training_goes_on_from_weights_and_can_be_stopped(tmp_path: Path) -> None:
    stills = write_stills(tmp_path)
    shipped = load_weights("rts-mini")
    start = Path(make_mini.__file__).parents[2] / "weights" / "data" / "rts-mini.safetensors"
    make = partial(make_mini.make_mini, [stills], tmp_path / "out", start=start, steps_scale=1 / 10, loaders=0)
    with pytest.raises(TrainingError, match="no stage has"):  # stopped before the first evaluation
        make(stop=lambda: True)
    assert (tmp_path / "out" / "mini-runs" / "state-00000001.pt").exists()
    weights = load_weights(make(stop=lambda: len(list((tmp_path / "out").glob("mini-sta/*"))) > 0))
    assert f"from the weights {shipped.fingerprint[:12]}" in weights.metadata["provenance"]
    layer = "decoder.project.conv1.weight"
    assert 0 < float((weights.state[layer] - shipped.state[layer]).abs().max()) < 0.1
    # Before its own stage, the box head that the training began with, on the tracker's backbone.
    (tmp_path / "out" / "mini-sta" / "best.pt").unlink(missing_ok=True)
    begun = load_weights(mini_stages.export(tmp_path / "out", start=start))
    assert begun.sta is not None
    assert shipped.sta is not None
    assert torch.equal(begun.sta.state[layer], shipped.sta.state[layer])
    moved = next(key for key in begun.state if key.startswith("feature_extractor.features.17.") and "weight" in key)
    assert torch.equal(begun.sta.state[moved], begun.state[moved])


def test_the_box_head_meets_loose_and_tight_boxes() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([40.0, 30.0, 100.0, 60.0]).expand(1, 400, 4)
    drawn = drawn_boxes(boxes)
    factors = drawn[0, :, 2:] / boxes[0, :, 2:]
    assert 0.95 < float(factors.mean()) < 1.05
    assert float((factors - 1).abs().max()) < BOX_LOOSENESS + 0.1
    assert 0.2 < float(((factors - 1).abs().amax(-1) > 0.06).float().mean()) < 0.6
    centres = drawn[0, :, :2] + 0.5 * drawn[0, :, 2:]
    assert float((centres - torch.tensor([90.0, 60.0])).abs().max()) < 12


def test_every_seed_and_stage_draws_its_own() -> None:
    stages = [stage for seed in range(3) for stage in mini_stages.stages(seed=seed)]
    assert len({stage.seed for stage in stages}) == len(stages)
    assert [stage.total_iterations for stage in stages[:6]] == [500, 2400, 3050, 1275, 625, 1800]
    assert [stage.total_iterations for stage in mini_stages.stages(steps_scale=2)] == [
        1000,
        4800,
        6100,
        2550,
        1250,
        3600,
    ]
