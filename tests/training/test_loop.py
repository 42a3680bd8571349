"""The training loop: rates, frozen parts, precision, checkpoints, exact resume, curves and evaluation."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rts_batch.errors import SettingsError, TrainingError
from rts_batch.model.rts import RTS
from rts_batch.training import optimisation
from rts_batch.training.checkpoints import load_state, save_state, state_files
from rts_batch.training.clips.batches import Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.forward import rts_forward
from rts_batch.training.loop import train
from rts_batch.training.objectives import Loss, build_network, objective_of, rts_objective
from rts_batch.training.optimisation import build_optimizer, rate_factor
from rts_batch.training.run import trained_weights
from rts_batch.training.settings import (
    CONFIGURATIONS,
    LWL_STAGE1,
    LWL_STAGE2,
    NO_CONDITIONING,
    PAPER,
    STA_TRAINING,
    TrainSettings,
)
from tests.support.training_tiny import SETTINGS, TINY, TINY_STA, losses_of, stream, trainer

pytestmark = pytest.mark.training

# ---- the optimiser --------------------------------------------------------------------------------------------------


def rates_of(settings: TrainSettings) -> dict[str, float]:
    """Learning rate of every trained parameter, by name."""
    with torch.device("meta"):
        model = build_network(settings)
        optimizer = build_optimizer(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}


def test_the_paper_s_rates() -> None:
    rates = rates_of(PAPER)
    assert rates["feature_extractor.layer2.0.conv1.weight"] == 4e-5
    assert rates["feature_extractor.layer4.2.bn3.bias"] == 4e-5
    assert rates["target_model.filter_optimizer.residual_module.filter_reg"] == 8e-5
    assert rates["label_encoder.samp_w_pred.weight"] == 8e-5
    assert rates["decoder.RRB1.layer2.bblock.1.weight"] == 8e-5
    assert rates["clf_encoder.conv_block.0.weight"] == 2e-4
    assert rates["classifier.filter_initializer.filter_conv.bias"] == 2e-4
    frozen = {name for name, _ in RTS(PAPER.model).named_parameters()} - set(rates)  # type: ignore[arg-type]
    assert {name.split(".")[1] for name in frozen} == {"conv1", "bn1", "layer1"}
    assert all(name.startswith("feature_extractor.") for name in frozen)


def test_the_other_configurations_rates() -> None:
    assert not any(name.startswith("clf_encoder") for name in rates_of(NO_CONDITIONING))
    stage1, stage2 = rates_of(LWL_STAGE1), rates_of(LWL_STAGE2)
    assert not any(name.startswith(("feature_extractor", "classifier", "clf_encoder")) for name in stage1)
    assert stage1["target_model.filter_optimizer.residual_module.filter_reg"] == 1e-4
    assert stage1["target_model.feature_extractor.0.weight"] == 2e-5
    assert stage1["label_encoder.res1.conv1.weight"] == 2e-4
    assert set(stage2) - set(stage1) == {n for n in rates_of(PAPER) if n.startswith("feature_extractor")}
    assert set(stage2.values()) == {2e-5}
    sta = rates_of(STA_TRAINING)
    assert sta["bbox_encoder.res3.conv1.weight"] == 2e-4
    assert sta["target_model_segm.filter_optimizer.residual_module.filter_reg"] == 1e-4
    assert not any(name.startswith("feature_extractor") for name in sta)


def test_rates_fall_after_the_published_epochs() -> None:
    def in_epoch(number: int) -> float:
        return rate_factor(PAPER, (number - 1) * PAPER.iterations_per_epoch)

    assert [in_epoch(number) for number in (1, 25, 26, 115, 116, 160, 161, 200)] == pytest.approx(
        [1, 1, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008]
    )


def test_warm_up_and_cosine() -> None:
    settings = dataclasses.replace(SETTINGS, schedule="cosine", warmup_iterations=2, epochs=4)
    assert [rate_factor(settings, i) for i in range(8)][:3] == [0.5, 1.0, 1.0]
    assert rate_factor(settings, 5) == pytest.approx(0.5)
    assert 0 < rate_factor(settings, 7) < 0.1


def test_a_rate_for_nothing_is_refused() -> None:
    settings = dataclasses.replace(SETTINGS, learning_rates={"": 1e-3, "feature_extractr": 0.0})
    with pytest.raises(SettingsError, match="'feature_extractr', but no parameter's name begins so"):
        build_optimizer(build_network(settings), settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rules": "both"}, "rules is 'both'; expected one of code, paper"),
        ({"batch": 0}, "batch is 0; expected a whole number above 0"),
        ({"ema": 1.5}, "ema is 1.5"),
        ({"learning_rates": {"": 0.0}}, "at least one rate above 0"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        dataclasses.replace(PAPER, **changes)


def test_settings_from_a_dictionary() -> None:
    settings = TrainSettings.from_dict({"batch": 3, "model": {"feature_dim": 8}, "clips": {"flip": 0.0}})
    assert (settings.batch, settings.model.feature_dim, settings.clips.flip, settings.epochs) == (3, 8, 0.0, 200)
    assert TrainSettings.from_dict({"model": {"kind": "sta"}}, base=PAPER).model == STA_TRAINING.model
    with pytest.raises(SettingsError, match="have no 'epoch'; valid are batch"):
        TrainSettings.from_dict({"epoch": 3})
    with pytest.raises(SettingsError, match="clips have no 'gap'"):
        TrainSettings.from_dict({"clips": {"gap": 3}})
    for name, configuration in CONFIGURATIONS.items():
        assert configuration.name == name
        objective_of(configuration)


# ---- steps ----------------------------------------------------------------------------------------------------------


def test_frozen_parts_and_statistics_stay(tmp_path: Path) -> None:
    run = trainer(dataclasses.replace(SETTINGS, learning_rates={"": 1e-2, "feature_extractor": 0.0, "decoder.TSE": 0}))
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    batches = stream(tmp_path).batches()
    for _ in range(2):
        run.step(next(batches))
    changed = {key for key, value in run.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert not any(key.startswith(("feature_extractor.", "decoder.TSE.")) for key in changed)
    assert not any("running_" in key or "num_batches" in key for key in changed)
    assert not any(key.startswith("clf_encoder.samp_w_pred") for key in changed)  # no gradient (spec §7)
    assert any(key.startswith("decoder.RRB1.layer2.bblock.1") for key in changed)  # BatchNorm's affine part learns


KINDS: dict[str, dict[str, Any]] = {
    "rts": {},
    "lwl": {"localisation": "off"},
    "beside": {"localisation": "beside"},
    "paper": {"rules": "paper"},
    "sta": {"objective": "sta", "model": TINY_STA},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_training_descends(tmp_path: Path, kind: str) -> None:
    settings = dataclasses.replace(SETTINGS, learning_rates={"": 3e-3}, epochs=100, step_epochs=(), **KINDS[kind])
    if kind == "sta":
        clips = dataclasses.replace(settings.clips, train_frames=3, test_frames=0, rotation=0.0, zoom=0.0)
        settings = dataclasses.replace(settings, clips=clips)
    run = trainer(settings)
    batch = next(stream(tmp_path, settings).batches())
    losses = [float(run.step(batch)["loss"]) for _ in range(8)]
    assert min(losses[-3:]) < 0.985 * losses[0]


def test_training_finds_the_target(tmp_path: Path) -> None:
    """Clips seen again and again are segmented in the end, from random weights (LWL's first stage in small)."""
    rates = {"": 1e-3, "feature_extractor": 0.0}  # at three times that, rounding decides how long it takes
    settings = dataclasses.replace(SETTINGS, learning_rates=rates, epochs=100, step_epochs=(), localisation="off")
    run = trainer(settings)
    batch = next(stream(tmp_path, settings).batches())
    calibrate(run.model, batch)
    found = [float(run.step(batch)["jaccard"])]
    while found[-1] <= 0.5 and len(found) < 150:
        found.append(float(run.step(batch)["jaccard"]))
    assert found[0] < 0.2
    assert found[-1] > 0.5


def calibrate(model: nn.Module, batch: Batch) -> None:
    """Gives random weights the BatchNorm statistics of a batch: trained ones come with theirs."""

    def measure(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        layer.running_var.copy_(inputs[0].var((0, 2, 3)))
        return type(layer).forward(layer, *inputs)

    hooks = [m.register_forward_hook(measure) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        rts_forward(model, batch)
    for hook in hooks:
        hook.remove()


def test_bf16_keeps_learners_and_losses_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "multiplies_bfloat16", lambda device: True)
    batch = next(stream(tmp_path).batches())
    full = trainer()
    mixed = trainer(dataclasses.replace(SETTINGS, precision="bf16"))
    seen: list[tuple[torch.dtype, ...]] = []
    learner = mixed.model.target_model.filter_optimizer
    learner.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(x.dtype for x in inputs[:4])))
    prediction = rts_forward(mixed.model, batch)
    assert seen == [(torch.float32,) * 4]
    assert prediction.logits.dtype == torch.float32
    expected = rts_forward(full.model, batch).logits
    difference = (prediction.logits - expected).norm() / expected.norm()
    assert 0 < difference.item() < 0.1
    assert float(mixed.step(batch)["loss"]) == pytest.approx(float(full.step(batch)["loss"]), rel=0.05)


def test_a_processor_without_bf16_trains_in_float32_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(optimisation, "multiplies_bfloat16", lambda device: False)
    batch = next(stream(tmp_path).batches())
    mixed = trainer(dataclasses.replace(SETTINGS, precision="bf16"))
    assert caplog.messages == ["this cpu has no bfloat16: the training computes in float32"]
    assert torch.equal(rts_forward(mixed.model, batch).logits, rts_forward(trainer().model, batch).logits)


def test_refinement_begins_with_the_second_test_frame(tmp_path: Path) -> None:
    batch = next(stream(tmp_path).batches())
    model = trainer().model
    with torch.no_grad():
        code = rts_forward(model, batch, rules="code").logits
        paper = rts_forward(model, batch, rules="paper").logits
        without = rts_forward(model, batch, rules="paper", refinement_iterations=0).logits
    torch.testing.assert_close(paper[0], code[0])
    torch.testing.assert_close(without, code)
    assert not torch.allclose(paper[1:], code[1:])


def test_refinement_hands_each_frame_its_previous_mask(tmp_path: Path) -> None:
    batch = next(stream(tmp_path).batches())
    torch.manual_seed(0)
    model = RTS(dataclasses.replace(TINY, previous_mask=True))
    with torch.no_grad():
        blank = dataclasses.replace(batch, previous=torch.zeros_like(batch.masks))
        known = dataclasses.replace(batch, previous=batch.masks)
        code = rts_forward(model, known, rules="code").logits
        without = rts_forward(model, known, rules="paper", refinement_iterations=0).logits
        other = rts_forward(model, blank, rules="paper", refinement_iterations=0).logits
    torch.testing.assert_close(without, code)
    assert not torch.allclose(without, other)


def test_the_decoder_sees_no_scores_without_conditioning(tmp_path: Path) -> None:
    batch = next(stream(tmp_path).batches())
    run = trainer(dataclasses.replace(SETTINGS, localisation="beside"))
    rts_objective(run.model, batch, run.settings, Workers()).total.backward()
    grads = {name: p.grad for name, p in run.model.named_parameters()}
    assert all(grad is None for name, grad in grads.items() if name.startswith("clf_encoder."))
    assert grads["classifier.filter_initializer.filter_conv.weight"] is not None


# ---- resume ---------------------------------------------------------------------------------------------------------

EVERYTHING = dataclasses.replace(SETTINGS, ema=0.9, clip_norm=1.0, weight_decay=0.01, warmup_iterations=2)


def noisy_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """Draws from PyTorch's random state within the step, as dropping an input does."""
    noise = torch.randn_like(batch.images)
    return rts_objective(model, dataclasses.replace(batch, images=batch.images + noise), settings, workers)


def assert_equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert set(first) == set(second)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    """Stopped at a checkpoint and between two of them; the weights, the optimiser and the curves."""

    def run(folder: Path, stop_at: int | None) -> str:
        made = trainer(EVERYTHING, objective=noisy_objective)
        clips = stream(tmp_path / "data", EVERYTHING)
        return train(made, clips, folder, stop=lambda: made.iteration == stop_at)

    assert run(tmp_path / "whole", None) == "finished"
    assert run(tmp_path / "parts", stop_after) == "stopped"
    assert run(tmp_path / "parts", 5) == "stopped"
    assert run(tmp_path / "parts", None) == "finished"
    whole, parts = (load_state(state_files(tmp_path / name)[-1]) for name in ("whole", "parts"))
    assert whole.iteration == parts.iteration == 6
    assert_equal_states(whole.model, parts.model)
    assert whole.average is not None
    assert parts.average is not None
    assert_equal_states(whole.average, parts.average)
    for key, entry in whole.optimizer["state"].items():
        assert_equal_states(entry, parts.optimizer["state"][key])
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "parts")


def test_rows_behind_the_last_checkpoint_are_dropped(tmp_path: Path) -> None:
    """A killed run has curves beyond its checkpoint; the resumed one writes those iterations once."""
    made = trainer()
    train(made, stream(tmp_path / "data"), tmp_path / "run", stop=lambda: made.iteration == 3)
    state_files(tmp_path / "run")[-1].unlink()
    (tmp_path / "run/state-00000009.pt.writing").write_bytes(b"half a checkpoint")
    train(trainer(), stream(tmp_path / "data"), tmp_path / "run")
    assert [iteration for iteration, _ in losses_of(tmp_path / "run")] == ["1", "2", "3", "4", "5", "6"]


def test_other_settings_and_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    made = trainer()
    train(made, stream(tmp_path / "data"), tmp_path / "run", stop=lambda: made.iteration == 2)
    other = trainer(dataclasses.replace(SETTINGS, segmentation_weight=1.0))
    with pytest.raises(TrainingError, match=r"segmentation_weight = 10\.0, not 1\.0"):
        train(other, stream(tmp_path / "data"), tmp_path / "run")
    longer = trainer(dataclasses.replace(SETTINGS, epochs=2, log_every=2))
    assert train(longer, stream(tmp_path / "data"), tmp_path / "run") == "finished"
    newest = state_files(tmp_path / "run")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(trainer(), stream(tmp_path / "data"), tmp_path / "run")


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    state = trainer().state()
    for iteration in range(5):
        save_state(tmp_path, dataclasses.replace(state, iteration=iteration), keep=2)
    assert [path.name for path in state_files(tmp_path)] == ["state-00000003.pt", "state-00000004.pt"]


def test_a_loss_that_is_not_finite_stops_before_the_checkpoint(tmp_path: Path) -> None:
    def broken(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
        loss = rts_objective(model, batch, settings, workers)
        return Loss(loss.total * float("nan"), loss.parts) if made.iteration == 3 else loss

    made = trainer(dataclasses.replace(SETTINGS, log_every=100), objective=broken)
    with pytest.raises(TrainingError, match="the loss became nan"):
        train(made, stream(tmp_path / "data"), tmp_path / "run")
    assert [path.name for path in state_files(tmp_path / "run")] == ["state-00000002.pt"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The loss of the iteration is finite, its gradient is not, and the checkpoint would be that of this iteration."""

    def broken(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
        loss = rts_objective(model, batch, settings, workers)
        bias = model.decoder.project.conv2.bias
        root = ((bias - bias.detach()) ** 2).sum().sqrt()  # the value 0, with an infinite slope
        return Loss(loss.total + root, loss.parts) if made.iteration == 3 else loss

    settings = dataclasses.replace(SETTINGS, evaluate_every=2, best="score")
    made = trainer(settings, objective=broken)
    seen: list[int] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append(made.iteration)
        return {"score": float(made.iteration)}

    with pytest.raises(TrainingError, match="weights have values that are not finite after iteration 4"):
        train(made, stream(tmp_path / "data"), tmp_path / "run", evaluate=evaluate)
    assert seen == [2]
    assert [path.name for path in state_files(tmp_path / "run")] == ["state-00000002.pt"]
    assert all(value.isfinite().all() for value in torch.load(tmp_path / "run/best.pt", weights_only=True).values())


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_evaluation_sees_the_average_and_the_best_is_kept(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, ema=0.5, evaluate_every=2, best="score")
    made = trainer(settings)
    seen: list[Tensor] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert not torch.is_grad_enabled()
        seen.append(model.state_dict()["decoder.project.conv2.bias"].clone())
        return {"score": [0.2, 0.7, 0.5][len(seen) - 1]}

    train(made, stream(tmp_path / "data", settings), tmp_path / "run", evaluate=evaluate)
    assert made.average is not None
    torch.testing.assert_close(seen[-1], made.average.values["decoder.project.conv2.bias"])
    assert not torch.equal(seen[-1], made.model.state_dict()["decoder.project.conv2.bias"])
    best = torch.load(tmp_path / "run/best.pt", weights_only=True)
    assert torch.equal(best["decoder.project.conv2.bias"], seen[1])
    with (tmp_path / "run/evaluation.csv").open() as file:
        assert [row["score"] for row in csv.DictReader(file)] == ["0.2", "0.7", "0.5"]
    assert load_state(state_files(tmp_path / "run")[-1]).best == 0.7


def test_another_measure_begins_anew(tmp_path: Path) -> None:
    """The old measure's value is no bar, and what it kept is not exported any more."""
    values = iter([{"big": 5.0, "jaccard": 0.1}, {"big": 5.0, "jaccard": 0.2}, {"big": 5.0, "jaccard": 0.3}])
    settings = dataclasses.replace(SETTINGS, evaluate_every=2, best="big", epochs=1)

    def go_on(**changes: Any) -> tuple[Tensor, Tensor]:
        """Train on; return what is exported and what is newest."""
        changed = dataclasses.replace(settings, **changes)
        train(trainer(changed), stream(tmp_path / "data"), tmp_path / "run", evaluate=lambda model: next(values))
        newest = load_state(state_files(tmp_path / "run")[-1])
        key = "decoder.project.conv2.bias"
        return trained_weights(tmp_path / "run").state[key], newest.model[key]

    go_on()
    exported, newest = go_on(best="jaccard", epochs=2)
    assert torch.equal(exported, newest)
    assert load_state(state_files(tmp_path / "run")[-1]).best == 0.2
    exported, newest = go_on(best=None, epochs=3)
    assert torch.equal(exported, newest)


@pytest.mark.parametrize(
    ("measure", "kept"), [("loss", 2.0), ("lovasz_first", 2.0), ("localisation", 2.0), ("peak", 4.0)]
)
def test_of_losses_the_lowest_is_the_best(tmp_path: Path, measure: str, kept: float) -> None:
    settings = dataclasses.replace(SETTINGS, evaluate_every=2, best=measure)
    values = iter([4.0, 2.0, math.nan])
    made = trainer(settings)
    train(made, stream(tmp_path / "data"), tmp_path / "run", evaluate=lambda model: {measure: next(values)})
    assert made.best == kept


def test_an_unknown_measure_is_refused(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, evaluate_every=2, best="iou")
    with pytest.raises(TrainingError, match="best is 'iou', but the evaluation measures score"):
        train(trainer(settings), stream(tmp_path / "data"), tmp_path / "run", evaluate=lambda model: {"score": 1.0})


def test_the_data_may_not_end_early(tmp_path: Path) -> None:
    class Short:
        def batches(self, start: int):
            yield next(stream(tmp_path / "data").batches(start))

    with pytest.raises(TrainingError, match="the data ended after 1 of 6 iterations"):
        train(trainer(), Short(), tmp_path / "run")
