"""Networks made ready for inference against the plain ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rts_batch.config import RTS50, RTS_MINI, TRACKER_RTS_MINI, ModelConfig, StaConfig
from rts_batch.masks import Marking
from rts_batch.model.fast import learner
from rts_batch.model.fast.compiled_network import CompiledRTS
from rts_batch.model.fast.learner import Samples, border, fit, scores_of
from rts_batch.model.fast.networks import fast, upsample
from rts_batch.model.fast.packed import PackedConv
from rts_batch.model.learner import apply_filter
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.model.target_model import TargetModel
from rts_batch.tracking.fast import FastTracker, fast_tracker
from rts_batch.tracking.region import place_region
from rts_batch.tracking.scene import Scene
from rts_batch.tracking.tracker import Tracker
from rts_batch.weights.registry import build_model, build_sta, load_weights
from tests.support.parity_data import golden_fill, iou, synthetic_frame

pytestmark = pytest.mark.networks


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=["openvino", "packed"])
def engine(request, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two that may run a network on a CPU."""
    monkeypatch.setenv("RTS_BATCH_CPU_ENGINE", request.param)
    return request.param


def restless(network):
    """Gives every BatchNorm statistics that matter."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 2e-4) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("config", [RTS50, RTS_MINI], ids=["rts50", "rts-mini"])
def test_the_fast_network_is_the_plain_one_up_to_rounding(config: ModelConfig, engine: str) -> None:
    torch.manual_seed(0)
    plain = restless(RTS(config))
    if config is RTS50:
        plain.load_state_dict(golden_fill("rts50"))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    quick = fast(plain)
    assert isinstance(quick, CompiledRTS) == (engine == "openvino")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())

    crop = 255 * torch.rand(2, 3, 96, 160)
    ours, theirs = quick.extract(crop), plain.extract(crop)
    for name, value in theirs.maps.items():
        assert_close(ours.maps[name], value)
    assert_close(ours.segmentation, theirs.segmentation)
    assert_close(ours.localisation, theirs.localisation)
    assert_close(quick.segmentation_features(crop), theirs.segmentation)
    assert_close(quick.localisation_features(crop), theirs.localisation)
    assert torch.equal(quick.extract(crop[1:]).segmentation, ours.segmentation[1:]), "a sample depends on no other"
    mask = torch.rand(2, 1, 96, 160)
    for encoded, expected in zip(quick.label_encoder(mask), plain.label_encoder(mask), strict=True):
        assert_close(encoded, expected)
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


@pytest.mark.parametrize("onednn", [True, False], ids=["oneDNN", "no oneDNN"])
def test_the_shipped_networks_give_the_same_masks(onednn: bool, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)  # PyTorch for macOS has none
    weights = load_weights("rts-mini")
    plain, sta = build_model(weights, "cpu"), build_sta(weights, "cpu")
    assert sta is not None
    assert onednn == any(isinstance(module, PackedConv) for module in fast(sta).modules())
    image, box = 255 * torch.rand(1, 1, 3, 96, 160), torch.tensor([[[40.0, 20.0, 60.0, 50.0]]])
    assert_close(fast(plain).extract(image[0]).segmentation, plain.extract(image[0]).segmentation)
    assert_close(fast(sta)(image, box)[1], sta(image, box)[1])


@pytest.mark.parametrize("size", [(24, 40), (48, 80), (37, 61)])
def test_upsampling_by_matrices_is_bicubic(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, 24, 40)
    theirs = torch.nn.functional.interpolate(image, size, mode="bicubic", align_corners=False)
    torch.testing.assert_close(upsample(image, size), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 65), (64, 96)])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_packed_convolution_takes_any_size_and_batch(size: tuple[int, int], batch: int) -> None:
    conv = torch.nn.Conv2d(8, 24, 3, stride=2, padding=1)
    packed, bounded = PackedConv(conv, torch.nn.ReLU), PackedConv(conv, torch.nn.ReLU6)
    packed(torch.randn(1, 8, 48, 80))
    x = torch.randn(batch, 8, *size)
    plain = conv(x)
    assert_close(packed(x), plain.clamp(0))
    assert_close(bounded(9 * x), conv(9 * x).clamp(0, 6))
    added = torch.randn_like(plain)
    assert_close(packed(x, added), (plain + added).clamp(0))
    assert torch.equal(packed(x)[-1:], packed(x[-1:].clone())), "a sample's result must not depend on its companions"


def test_a_packed_convolution_rounds_to_bfloat16_where_onednn_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """On processors without AVX-512 it refuses bfloat16."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    conv, x = torch.nn.Conv2d(8, 24, 3, padding=1).bfloat16(), torch.randn(2, 8, 9, 13).bfloat16()
    plain = conv.float()(x.float())
    packed = PackedConv(conv.bfloat16(), torch.nn.ReLU)
    assert torch.equal(packed(x), packed(x.float()).bfloat16())
    assert_close(packed(x).float(), plain.clamp(0), 0.004)
    added = torch.randn_like(plain).bfloat16()
    assert_close(packed(x, added).float(), (plain + added).clamp(0), 0.004)


@pytest.mark.parametrize("arranged", [learner.Convolution, learner.Taps], ids=["on a CPU", "on a GPU"])
def test_the_fast_learner_takes_the_plain_ones_steps(arranged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        learner, "_arranged", lambda features, filters, width: arranged(features, filters.shape[-1], width)
    )
    torch.manual_seed(0)
    model = TargetModel(0, 24, 5, 3)
    features, tau = torch.randn(6, 24, 7, 11), 0.1 * torch.randn(1, 5, 24, 3, 3)
    labels, weights = torch.rand(6, 5, 7, 11), torch.rand(6, 5, 7, 11)
    theirs = model.learn(features[:, None], labels[:, None], weights[:, None], iterations=4, start=tau)[-1]
    pixels = border(features, 3).transpose(1, 2)
    scores = scores_of(pixels, tau, 11)

    def inner(bordered: torch.Tensor) -> torch.Tensor:
        return bordered.unflatten(-1, (9, 13))[..., 1:-1, 1:-1]

    assert_close(inner(scores), apply_filter(features[:, None], tau)[:, 0])
    ours, followed = fit(
        tau,
        Samples(pixels, border(labels, 3), border(weights, 3), scores),
        width=11,
        reg=torch.tensor([0.01]),
        iterations=4,
    )
    assert_close(ours, theirs)
    assert_close(inner(followed), apply_filter(features[:, None], theirs)[:, 0])


# ---- whole trackers ------------------------------------------------------------------------------------------------

Clip = list[tuple[np.ndarray, np.ndarray]]
"""Frames and the target's masks in them."""

SMALL = replace(TRACKER_RTS_MINI, crop_size=(96, 160), not_found_threshold=0.0, init_iterations=8, dense_frames=20)


@pytest.fixture(scope="module")
def frames() -> Clip:
    return [synthetic_frame(96, 128, index) for index in range(26)]


@pytest.fixture(scope="module")
def networks() -> tuple[RTS, RTS]:
    plain = build_model(load_weights("rts-mini"), "cpu")
    return plain, fast(plain)


@pytest.mark.parametrize("rules", ["code", "paper"])
def test_the_fast_tracker_gives_the_plain_ones_masks(networks: tuple[RTS, RTS], frames: Clip, rules) -> None:
    plain, quick = networks
    # Small memories: samples are replaced, and score maps computed afresh.
    config = replace(SMALL, rules=rules, memory_size=12, localisation_memory_size=8)
    theirs, ours = Tracker(plain, config), fast_tracker(quick, config)
    for tracker in (theirs, ours):
        tracker.start(frames[0][0], mask=frames[0][1])
    for number, (frame, mask) in enumerate(frames[1:], start=2):
        if number == 15:
            expected, found = theirs.correct(frame, mask=mask), ours.correct(frame, mask=mask)
        else:
            expected, found = theirs.step(frame), ours.step(frame)
        assert iou(found.mask, expected.mask) >= 0.999, number
        assert found.state == expected.state
        assert_close(ours.segmentation.tau, theirs.segmentation.tau, 1e-3)


def test_a_restored_fast_tracker_goes_on_bit_for_bit(networks: tuple[RTS, RTS], frames: Clip) -> None:
    config = replace(SMALL, memory_size=12, localisation_memory_size=8)
    scene = Scene(networks[1], config, single=True, tracker=fast_tracker)
    scene.step(frames[0][0], {1: Marking(mask=frames[0][1])})
    for frame, _ in frames[1:9]:
        scene.step(frame)
    snapshot = scene.snapshot()
    fresh = Scene(networks[1], config, single=True, tracker=fast_tracker)
    fresh.restore(snapshot)
    for frame, _ in frames[9:22]:
        ours, theirs = fresh.step(frame)[1], scene.step(frame)[1]
        assert np.array_equal(ours.mask, theirs.mask)
        assert (ours.score, ours.confidence) == (theirs.score, theirs.confidence)
    assert torch.equal(fresh.trackers[1].segmentation.tau, scene.trackers[1].segmentation.tau)


def test_a_fast_tracker_starts_anew_with_nothing_of_the_target_before(networks: tuple[RTS, RTS], frames: Clip) -> None:
    def masks(tracker: Tracker) -> list[np.ndarray]:
        (first, mask), *later = frames[:3]
        return [tracker.start(first, mask=mask).mask, *(tracker.step(frame).mask for frame, _ in later)]

    used = fast_tracker(networks[1], SMALL)
    masks(used)
    for again, fresh in zip(masks(used), masks(fast_tracker(networks[1], SMALL)), strict=True):
        assert np.array_equal(again, fresh)


def test_bfloat16_stays_close_and_keeps_the_learners_in_float32(
    networks: tuple[RTS, RTS], frames: Clip, engine: str
) -> None:
    half = fast(networks[0], profile="bf16")
    exact, rounded = fast_tracker(networks[1], SMALL), fast_tracker(half, SMALL)
    exact.start(frames[0][0], mask=frames[0][1])
    overlaps = []
    for frame, _ in frames[1:8]:
        rounded.restore(exact.snapshot())
        overlaps.append(iou(exact.step(frame).mask, rounded.step(frame).mask))
    assert np.mean(overlaps) >= 0.98  # the gate of `make bench-profiles` is 0.99, on real clips
    found = half.extract(torch.rand(1, 3, 96, 160))
    assert found.maps["layer3"].dtype == (torch.bfloat16 if engine == "packed" else torch.float32)
    for values in (found.segmentation, found.localisation, rounded.segmentation.tau, rounded.localisation.kappa):
        assert values.dtype == torch.float32
    assert {values.dtype for values in rounded.segmentation.memory.slots.values()} == {torch.float32}


def test_bfloat16_reaches_every_convolution_of_the_papers_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTS_BATCH_CPU_ENGINE", "packed")
    torch.manual_seed(0)
    plain = restless(RTS(RTS50))
    plain.load_state_dict(golden_fill("rts50"))
    crop = 255 * torch.rand(1, 3, 96, 160)
    ours, theirs = fast(plain, profile="bf16").extract(crop), plain.extract(crop)
    for name, value in theirs.maps.items():
        assert ours.maps[name].dtype == torch.bfloat16
        assert_close(ours.maps[name].float(), value, 0.05)
    assert_close(ours.segmentation, theirs.segmentation, 0.05)
    assert_close(ours.localisation, theirs.localisation, 0.05)


@pytest.mark.parametrize("factor", [0.37, 1.0, 1.5396, 3.3])
def test_a_fast_tracker_resizes_as_the_plain_one_does(factor: float) -> None:
    values = torch.randn(48, 80, generator=torch.Generator().manual_seed(0))
    assert_close(FastTracker._enlarge(values, factor), Tracker._enlarge(values, factor), 1e-4)


def test_a_fast_tracker_sees_what_the_plain_one_sees(networks: tuple[RTS, RTS], frames: Clip) -> None:
    plain, quick = Tracker(networks[0], SMALL), fast_tracker(networks[1], SMALL)
    image = torch.from_numpy(frames[0][0]).permute(2, 0, 1)
    for size in ((50.0, 83.0), (96.0, 128.0), (192.0, 320.0)):  # inside, the whole frame, beyond it and strided
        region = place_region(torch.tensor([40.0, 60.0]), torch.tensor(size), (96, 128), SMALL.crop_size)
        expected, found = plain._crop(image, region), quick._crop(image, region)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 0.02
