"""Making the embedded weights: its stages, what it leaves behind, and how its seeds are compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks import rts_mini_seeds
from rts_batch.config import RTS_MINI, STA_MINI, TRACKER_RTS_MINI
from rts_batch.errors import TrainingError
from rts_batch.training.mini import make as make_mini
from rts_batch.training.mini.recipe import BACKBONE_MEMBER
from rts_batch.weights.registry import load_weights
from tests.support.training_layouts import write_stills


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small crops, one batch of held-out clips, a backbone of random weights."""
    small = dataclasses.replace(TRACKER_RTS_MINI, crop_size=(96, 160))
    monkeypatch.setattr(make_mini, "TRACKER_RTS_MINI", small)
    monkeypatch.setattr(make_mini, "SMALL_CROP", (64, 96))
    monkeypatch.setattr(make_mini, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(make_mini, "load_imagenet_features", lambda network, path: None)


@pytest.mark.usefixtures("quick")
def test_three_stages_make_one_weights_file(tmp_path: Path) -> None:
    stills = write_stills(tmp_path)
    out = tmp_path / "out"
    (out / "imagenet").mkdir(parents=True)
    (out / "imagenet" / Path(BACKBONE_MEMBER).name).touch()  # so that nothing is downloaded
    with pytest.raises(TrainingError, match="no stage has"):
        make_mini.export(out)

    heads, mini, box = make_mini.stages(seed=3, steps_scale=1 / 1000)
    assert [stage.total_iterations for stage in (heads, mini, box)] == [1, 2, 1]
    path = make_mini.make_mini(stills, out, seed=3, steps_scale=1 / 1000, loaders=0)
    weights = load_weights(path)
    assert (weights.config, weights.sta.config) == (RTS_MINI, STA_MINI)
    assert "seed 3, 0.001 times" in weights.metadata["provenance"]
    for stage in (heads, mini, box):
        assert len((out / stage.name / "evaluation.csv").read_text().splitlines()) == 2
    backbone = {key: value for key, value in weights.state.items() if key.startswith("feature_extractor.")}
    assert all(torch.equal(weights.sta.state[key], value) for key, value in backbone.items())

    # What an unfinished training has got to: without a box head, and then from the first stage alone.
    (out / box.name / "best.pt").unlink()
    trained = load_weights(make_mini.export(out, seed=3, steps_scale=1 / 1000))
    assert trained.sta is None
    assert trained.fingerprint != weights.fingerprint
    (out / mini.name / "best.pt").unlink()
    first = load_weights(make_mini.export(out, seed=3, steps_scale=1 / 1000))
    assert first.fingerprint != trained.fingerprint
    kept, moved = "feature_extractor.features.2.conv.1.0.weight", "decoder.project.conv1.weight"
    assert torch.equal(first.state[kept], trained.state[kept])
    assert not torch.equal(first.state[moved], trained.state[moved])


def test_every_seed_and_stage_draws_its_own() -> None:
    stages = [stage for seed in range(3) for stage in make_mini.stages(seed=seed)]
    assert len({stage.seed for stage in stages}) == len(stages)
    assert [stage.total_iterations for stage in stages[:3]] == [500, 2400, 600]
    assert [stage.total_iterations for stage in make_mini.stages(steps_scale=1.5)] == [750, 3600, 900]


def test_the_held_out_pictures_choose_the_seed() -> None:
    def scored(mask: float, box: float) -> dict:
        return {"mask": {"jaccard": mask, "wrong_object": 0.1}, "box": {"jaccard": box, "wrong_object": 0.1}}

    assert rts_mini_seeds.prefer({"0": scored(0.7, 0.5), "1": scored(0.65, 0.6), "2": scored(0.6, 0.6)}) == "1"


def test_a_stage_is_summed_up_from_its_curves(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(
        "iteration,loss,seconds,seconds_waiting\n10,1,3,0.5\n20,1,1,0.1\n30,1,2,0.2\n", encoding="utf-8"
    )
    (tmp_path / "evaluation.csv").write_text("iteration,jaccard\n10,0.5\n20,0.75\n30,0.7\n", encoding="utf-8")
    assert rts_mini_seeds.stage_summary(tmp_path) == {
        "steps": 30,
        "minutes": 1.0,
        "seconds_per_step": 2.0,
        "seconds_waiting_for_clips": 0.2,
        "held_out_jaccard": 0.75,
        "best_step": 20,
    }
