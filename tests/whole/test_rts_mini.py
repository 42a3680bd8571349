"""What `rts-mini` adds to the paper's network and tracker, and the weights that ship."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rts_batch.config import RTS50, RTS_MINI, STA_MINI, TRACKER_RTS50, TRACKER_RTS_MINI, ModelConfig, TrackerConfig
from rts_batch.masks import jaccard
from rts_batch.model.fast.networks import fold_batchnorm
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.tracking.tracker import Tracker
from rts_batch.tracking.warps import warped_crops
from rts_batch.training.clips.batches import Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.mini.recipe import MINI, MINI_STA, unfolded_state, usual_key
from rts_batch.training.objectives import objective_of
from rts_batch.training.optimisation import build_optimizer
from rts_batch.weights.registry import DATA, build_model, build_sta, load_weights

SMALL = (96, 160)


@pytest.fixture(scope="module")
def model() -> RTS:
    torch.manual_seed(0)
    return RTS(RTS_MINI)


def scene(frames: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A textured square moving over a textured background."""
    rng = np.random.default_rng(0)
    background = cv2.resize(rng.integers(0, 256, (24, 40, 3), np.uint8), (320, 192))
    texture = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_NEAREST)
    images, masks = [], []
    for t in range(frames):
        image, mask = background.copy(), np.zeros((192, 320), bool)
        x, y = 100 + 4 * t, 70 + 2 * t
        image[y : y + 48, x : x + 48] = texture
        mask[y : y + 48, x : x + 48] = True
        images.append(image)
        masks.append(mask)
    return images, masks


def batch(frames: int, train_frames: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(frames, 2, *SMALL)
    masks[..., 30:60, 50:90] = 1
    return Batch(
        255 * torch.rand(frames, 2, 3, *SMALL, generator=generator),
        masks,
        torch.tensor([50.0, 30.0, 40.0, 30.0]).expand(frames, 2, 4).clone(),
        train_frames,
        masks.clone(),
    )


def test_the_papers_network_has_none_of_it() -> None:
    assert (RTS50.neck_dim, RTS50.previous_mask, RTS50.upsampling) == (0, False, "bicubic")
    assert TRACKER_RTS50.initial_warps == ()


def test_settings_survive_json() -> None:
    import json

    assert TrackerConfig.from_dict(json.loads(json.dumps(TRACKER_RTS_MINI.to_dict()))) == TRACKER_RTS_MINI
    assert ModelConfig.from_dict(json.loads(json.dumps(RTS_MINI.to_dict()))) == RTS_MINI


def test_the_previous_mask_reaches_the_decoder(model: RTS) -> None:
    images = batch(1, 1).images
    features = model.extract(images[0])
    x_s = features.segmentation[None]
    tau = torch.randn(2, RTS_MINI.num_filters, RTS_MINI.feature_dim, 3, 3, generator=torch.Generator().manual_seed(0))
    none, zero, some = (
        model.segment(x_s, features.maps, tau, None, previous_mask=previous)
        for previous in (None, torch.zeros(1, 2, *SMALL), batch(1, 1).masks)
    )
    assert torch.equal(none, zero)
    assert not torch.allclose(zero, some)


def test_warped_crops_scale_and_mirror_about_the_target() -> None:
    mask = torch.zeros(96, 160)
    mask[30:50, 40:80] = 1
    crop = torch.arange(160.0).expand(1, 3, 96, 160).clone()
    crops, masks = warped_crops(crop, mask, ((0.5, False), (2.0, False), (1.0, True)))
    areas = masks.sum((1, 2)) / mask.sum()
    assert areas.tolist() == pytest.approx([0.25, 4.0, 1.0], rel=0.05)
    for warped in masks:
        rows, columns = warped.nonzero().double().mean(0).tolist()
        assert rows == pytest.approx(39.5, abs=0.6)
        assert columns == pytest.approx(59.5, abs=0.6)
    # Mirrored about column 59.5: what was at 50 is at 69.
    assert crops[2, 0, 40, 69] == pytest.approx(50, abs=0.01)
    assert crops[0, 0, 40, 69] == pytest.approx(59.5 + 2 * 9.5, abs=0.01)


def test_an_empty_mask_has_no_warped_copies() -> None:
    crops, masks = warped_crops(torch.zeros(1, 3, 96, 160), torch.zeros(96, 160), ((0.5, False),))
    assert (len(crops), len(masks)) == (0, 0)


@pytest.mark.long
def test_warped_samples_join_the_first_memory(model: RTS) -> None:
    images, masks = scene(2)
    with_warps = Tracker(model, TRACKER_RTS_MINI)
    without = Tracker(model, dataclasses.replace(TRACKER_RTS_MINI, initial_warps=()))
    for tracker in (with_warps, without):
        tracker.start(images[0], mask=masks[0])
    assert with_warps.segmentation.memory.initial_count == 1 + len(TRACKER_RTS_MINI.initial_warps)
    assert without.segmentation.memory.initial_count == 1
    assert not torch.allclose(with_warps.segmentation.tau, without.segmentation.tau)


def test_folding_batchnorm_changes_nothing_and_comes_undone() -> None:
    torch.manual_seed(1)
    network = RTS(RTS_MINI)
    for module in network.feature_extractor.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    crop = 255 * torch.rand(1, 3, *SMALL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network.extract(crop).segmentation
        keys = set(network.state_dict())
        fold_batchnorm(network.feature_extractor)
        folded = network.extract(crop).segmentation
        again = RTS(RTS_MINI)
        again.load_state_dict(unfolded_state(network))
        after = again.extract(crop).segmentation
    assert set(again.state_dict()) == keys
    torch.testing.assert_close(folded, before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mini", "mini-sta"])
def test_the_objectives_teach_every_trained_weight(name: str) -> None:
    torch.manual_seed(2)
    settings = MINI if name == "mini" else MINI_STA
    network = RTS(RTS_MINI) if name == "mini" else STA(STA_MINI)
    build_optimizer(network, settings)
    loss = objective_of(settings)(network, batch(2, 1), settings, Workers.current())
    loss.total.backward()  # type: ignore[no-untyped-call]
    silent = [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None]
    # H's weight head and STA's context-free one are never read (spec rts-training §7).
    assert all("samp_w_pred" in key for key in silent), silent
    frozen = [key for key, value in network.named_parameters() if not value.requires_grad]
    assert frozen
    assert all(key.startswith("feature_extractor.features.") for key in frozen)


def test_keys_of_the_imagenet_features() -> None:
    assert usual_key("features.0.0.weight") == "features.0.0.weight"
    assert usual_key("features.1.conv.3.weight") == "features.1.conv.1.weight"
    assert usual_key("features.1.conv.1.running_var") == "features.1.conv.0.1.running_var"
    assert usual_key("features.9.conv.6.weight") == "features.9.conv.2.weight"
    assert usual_key("features.9.conv.4.bias") == "features.9.conv.1.1.bias"


def test_the_shipped_weights_load_and_are_small() -> None:
    weights = load_weights("rts-mini")
    assert weights.config == RTS_MINI
    assert weights.sta is not None
    assert (DATA / "rts-mini.safetensors").stat().st_size <= 12_000_000


@pytest.mark.long
@pytest.mark.parametrize(("start", "least"), [("mask", 0.5), ("box", 0.5)])
def test_the_shipped_weights_track(davis_folder: Path, start: str, least: float) -> None:
    """Every third frame of a sequence's first thirty, so that it is quick: far above what luck would give."""
    weights = load_weights("rts-mini")
    paths = sorted((davis_folder / "Annotations" / "480p" / "blackswan").glob("*.png"))[:30:3]
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in paths]
    images = [
        np.ascontiguousarray(
            cv2.imread(str(davis_folder / "JPEGImages" / "480p" / "blackswan" / f"{path.stem}.jpg"))[..., ::-1]
        )
        for path in paths
    ]
    tracker = Tracker(build_model(weights), weights.tracker_config, sta=build_sta(weights))
    x, y, w, h = (float(value) for value in cv2.boundingRect(masks[0].astype(np.uint8)))
    tracker.start(images[0], mask=masks[0] if start == "mask" else None, box=(x, y, w, h))
    scores = [jaccard(tracker.step(image).mask, mask) for image, mask in zip(images[1:], masks[1:], strict=True)]
    assert np.mean(scores) > least
