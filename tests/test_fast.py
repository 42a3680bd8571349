"""Networks made ready for inference against the plain ones."""

from __future__ import annotations

import pytest
import torch

from rts_batch.config import RTS50, RTS_MINI, ModelConfig, StaConfig
from rts_batch.model.fast import fast, upsample
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.model.weights import build_model, build_sta, load_weights
from tests.parity_data import golden_fill


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def restless(network):
    """Gives every BatchNorm statistics that matter."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 2e-4 * theirs.norm()


@pytest.mark.parametrize("config", [RTS50, RTS_MINI], ids=["rts50", "rts-mini"])
def test_the_fast_network_is_the_plain_one_up_to_rounding(config: ModelConfig) -> None:
    torch.manual_seed(0)
    plain = restless(RTS(config))
    if config is RTS50:
        plain.load_state_dict(golden_fill("rts50"))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    quick = fast(plain)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())

    crop = 255 * torch.rand(2, 3, 96, 160)
    ours, theirs = quick.extract(crop), plain.extract(crop)
    for name, value in theirs.maps.items():
        assert_close(ours.maps[name], value)
    assert_close(ours.segmentation, theirs.segmentation)
    assert_close(ours.localisation, theirs.localisation)
    tau = 0.05 * torch.randn(2, *plain.target_model.filter_shape)
    scores = torch.rand(1, 2, theirs.localisation.shape[-2] + 1, theirs.localisation.shape[-1] + 1)
    logits = [
        network.segment(found.segmentation[None], found.maps, tau, scores)
        for network, found in ((quick, ours), (plain, theirs))
    ]
    assert_close(*logits)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, before[name]), f"the plain network's {name} has changed"


def test_the_fast_sta_is_the_plain_one_up_to_rounding() -> None:
    plain = STA(StaConfig())
    plain.load_state_dict(golden_fill("sta"))
    image, box = 255 * torch.rand(1, 1, 3, 96, 160), torch.tensor([[[40.0, 20.0, 60.0, 50.0]]])
    for ours, theirs in zip(fast(plain)(image, box), plain(image, box), strict=True):
        assert_close(ours, theirs)


def test_the_shipped_networks_give_the_same_masks() -> None:
    weights = load_weights("rts-mini")
    plain, sta = build_model(weights, "cpu"), build_sta(weights, "cpu")
    assert sta is not None
    image, box = 255 * torch.rand(1, 1, 3, 96, 160), torch.tensor([[[40.0, 20.0, 60.0, 50.0]]])
    assert_close(fast(plain).extract(image[0]).segmentation, plain.extract(image[0]).segmentation)
    assert_close(fast(sta)(image, box)[1], sta(image, box)[1])


@pytest.mark.parametrize("size", [(24, 40), (48, 80), (37, 61)])
def test_upsampling_by_matrices_is_bicubic(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, 24, 40)
    theirs = torch.nn.functional.interpolate(image, size, mode="bicubic", align_corners=False)
    torch.testing.assert_close(upsample(image, size), theirs, rtol=1e-5, atol=1e-5)
