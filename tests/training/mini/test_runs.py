"""Training on runs: the search follows the network's own masks, and what is not there is trained too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rts_batch.config import TRACKER_RTS_MINI
from rts_batch.model.rts import RTS
from rts_batch.training.clips.batches import Batch, Clip
from rts_batch.training.distributed import Workers
from rts_batch.training.mini import runs
from rts_batch.training.mini.recipe import MINI_RUNS
from rts_batch.training.objectives import Objective
from rts_batch.weights.registry import build_model, load_weights

SMALL = dataclasses.replace(TRACKER_RTS_MINI, crop_size=(96, 160))


def clip(*, centres: list[int | None]) -> Clip:
    """A disc on noise; None where it is away."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (160, 288, 3), np.uint8)
    y, x = np.mgrid[:160, :288]
    images, masks = [], []
    for centre in centres:
        mask = np.zeros((160, 288), bool) if centre is None else ((y - 80) ** 2 + (x - centre) ** 2 < 400)
        image = ground.copy()
        image[mask] = (230, 60, 40)
        images.append(image)
        masks.append(mask.astype(np.uint8))
    stacked = torch.from_numpy(np.stack(masks))
    boxes = [runs.box_of(mask.float()) for mask in stacked]
    return Clip(torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), stacked, torch.tensor(boxes), 1)


@pytest.fixture(scope="module")
def model() -> RTS:
    return build_model(load_weights("rts-mini"))


def test_the_search_follows_the_networks_own_masks(model: RTS) -> None:
    batch = Batch.of([clip(centres=[100, 110, 120, 130, 140]), clip(centres=[200, 190, 180, 170, 160])]).to("cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        run = runs.follow(model, batch, MINI_RUNS, hide_scores=False, config=SMALL)
    assert run.logits.shape == run.masks.shape == (4, 2, 96, 160)
    assert run.frame_jaccard.min() > 0.6
    first = run.masks[0].sum((-2, -1))
    assert all((masks.sum((-2, -1)) > 0.4 * first).all() for masks in run.masks)  # never out of sight


def test_an_absent_target_asks_for_empty_masks_and_low_scores(model: RTS) -> None:
    batch = Batch.of([clip(centres=[100, None, None])]).to("cpu")
    with torch.no_grad():
        run = runs.follow(model, batch, MINI_RUNS, hide_scores=False, config=SMALL)
    assert not run.masks.any()
    assert not run.labels.any()
    high, low = torch.full((1, 1, 4, 5), 0.8), torch.full((1, 1, 4, 5), 0.05)
    nothing, peak = torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 5)
    peak[0, 0, 2, 2] = 0.9
    assert runs.presence_loss(low, nothing) == 0
    assert runs.presence_loss(high, nothing) > 0.4
    assert runs.presence_loss(high, peak) == 0
    elsewhere = low.clone()
    elsewhere[0, 0, 0, 0] = 0.9
    assert runs.presence_loss(elsewhere, peak) > 0.2  # a look-alike's peak does not count as the target's


def test_a_search_that_misses_its_target_begins_anew() -> None:
    one = clip(centres=[60, 240])
    follower = runs.Follower.start(SMALL, one.masks[0].float(), one.boxes[0])
    here = one.masks[1].float()
    for _ in range(runs.PUT_BACK_AFTER - 1):
        follower.check(runs.shown_share(here > 0, follower.region()), here, one.boxes[1])
        assert abs(float(follower.state.position[1]) - 60) < 20
    follower.check(runs.shown_share(here > 0, follower.region()), here, one.boxes[1])
    assert abs(float(follower.state.position[1]) - 240) < 20
    assert follower.state.lost_mask


@pytest.mark.training
@pytest.mark.parametrize("objective", [runs.run_objective, runs.wide_objective, runs.long_objective])
def test_a_step_trains_every_part(objective: Objective) -> None:
    network = build_model(load_weights("rts-mini"))
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    batch = Batch.of([clip(centres=[100, 104, 108]), clip(centres=[150, None, 150])]).to("cpu")
    loss = objective(network, batch, MINI_RUNS, Workers())
    loss.total.backward()
    for name in (
        "classifier.filter_initializer.filter_conv.weight",
        "label_encoder.label_pred.0.weight",
        "decoder.project.conv2.weight",
    ):
        gradient = network.get_parameter(name).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    assert set(loss.parts) >= {"jaccard", "found", "rejected", "presence"}
