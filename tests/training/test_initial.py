"""Initial weights from Detectron's Mask R-CNN and from LWL checkpoints, whole, damaged and hostile."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rts_batch.config import RTS50, RTS_MINI, STA_MINI, ModelConfig
from rts_batch.errors import WeightsError
from rts_batch.model.backbones import ResNet50
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.training.checkpoints import TrainingState
from rts_batch.training.initial import load_backbone, load_network
from rts_batch.weights.registry import load_weights, save_weights
from tests.support.checkpoint_files import RTS_OPTIONS, save_official

SMALL = ModelConfig(name="small", feature_dim=8, num_filters=4, label_encoder_dims=(4, 4, 4), decoder_dims=(8, 8, 8, 8))


@functools.cache
def affine_backbone(seed: int = 0) -> ResNet50:
    """A backbone whose BatchNorms are affine maps, as Detectron's are; made once, and changed by nobody."""
    torch.manual_seed(seed)
    backbone = ResNet50().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_var.fill_(1 - module.eps)
    return backbone


def blob_name(key: str) -> str:
    """`layer1.0.bn2.bias` → `res2_0_branch2b_bn_b`."""
    *place, module, leaf = key.split(".")
    kind = {"weight": "_w", "bias": "_b"}[leaf]
    if "downsample" in place:
        layer, block, _ = place
        return f"res{int(layer[-1]) + 1}_{block}_branch1" + (kind if module == "0" else f"_bn{kind}".replace("w", "s"))
    if not place:
        return "conv1_w" if module == "conv1" else "res_conv1_bn" + ("_s" if leaf == "weight" else "_b")
    layer, block = place
    branch = f"res{int(layer[-1]) + 1}_{block}_branch2{'abc'[int(module[-1]) - 1]}"
    return branch + (kind if module.startswith("conv") else "_bn" + ("_s" if leaf == "weight" else "_b"))


def blobs_of(backbone: ResNet50) -> dict[str, np.ndarray]:
    parameters = {blob_name(key): value.detach().numpy() for key, value in backbone.named_parameters()}
    others = {"conv1_w_momentum": np.zeros(3, np.float32), "fpn_inner_res5_2_sum_w": np.ones((2, 2), np.float32)}
    return {**parameters, **others}


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 does, in which Detectron's files were made: as a string of eight-bit characters."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def write_detectron(path: Path, blobs: dict[str, Any], *, protocol: int | None = None) -> Path:
    content = {"blobs": blobs, "cfg": "MODEL: {}"}
    with path.open("wb") as file:
        if protocol is None:
            Python2Pickler(file, 2).dump(content)
        else:
            pickle.dump(content, file, protocol=protocol)
    return path


def assert_same_maps(model: RTS, backbone: ResNet50) -> None:
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model.feature_extractor(image), backbone(image)
    for layer, values in theirs.items():
        torch.testing.assert_close(ours[layer], values, rtol=1e-5, atol=1e-5 * float(values.abs().max()))


@pytest.mark.long
@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_detectron_blobs(tmp_path: Path, protocol: int | None) -> None:
    backbone = affine_backbone()
    path = write_detectron(tmp_path / "model_final.pkl", blobs_of(backbone), protocol=protocol)
    model = RTS(SMALL)
    load_backbone(model, path)
    assert_same_maps(model, backbone)


@pytest.mark.long
@pytest.mark.parametrize("prefix", ["", "module.backbone.body.", "feature_extractor."])
def test_converted_state_dicts(tmp_path: Path, prefix: str) -> None:
    backbone = affine_backbone(1)
    state = {prefix + key: value for key, value in backbone.state_dict().items() if "num_batches" not in key}
    state[prefix + "fc.weight"] = torch.zeros(3)
    torch.save({"model": state} if prefix else state, tmp_path / "r50.pth")
    model = RTS(SMALL)
    load_backbone(model, tmp_path / "r50.pth")
    assert_same_maps(model, backbone)


@pytest.mark.long
@pytest.mark.parametrize("name", ["mine.safetensors", "best.pt", "state-000000006.pt", "rts-mini"])
def test_the_backbone_of_a_tracker_of_ours(tmp_path: Path, name: str) -> None:
    """As a box head needs it that is to go with a tracker which was trained further: it was called a damaged pickle."""
    shipped = load_weights("rts-mini")
    tracker = RTS(shipped.config)
    tracker.load_state_dict(shipped.state)
    if name != "rts-mini":
        torch.nn.init.constant_(next(tracker.feature_extractor.parameters()), 0.25)
    state, path = tracker.state_dict(), tmp_path / name
    if name == "mine.safetensors":
        save_weights(dataclasses.replace(shipped, state=state), path)
    elif name == "best.pt":
        torch.save(state, path)
    elif name.startswith("state"):
        torch.save(vars(TrainingState(6, {}, state, {}, None, None)), path)
    box_head = STA(STA_MINI)
    load_backbone(box_head, path if path.exists() else name)
    for key, value in box_head.feature_extractor.state_dict().items():
        assert torch.equal(value, tracker.feature_extractor.state_dict()[key]), key


@pytest.mark.long
def test_incomplete_and_wrong_backbones_are_named(tmp_path: Path) -> None:
    model = RTS(SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    blobs = blobs_of(affine_backbone())
    missing = {name: value for name, value in blobs.items() if name != "res4_3_branch2b_bn_s"}
    with pytest.raises(WeightsError, match=r"a\.pkl: has no 'layer3\.3\.bn2\.weight'"):
        load_backbone(model, write_detectron(tmp_path / "a.pkl", missing))
    blobs["conv1_w"] = blobs["conv1_w"][:5]
    with pytest.raises(WeightsError, match=r"'conv1\.weight' has shape \[5, 3, 7, 7\], expected \[64, 3, 7, 7\]"):
        load_backbone(model, write_detectron(tmp_path / "b.pkl", blobs))
    blobs["conv1_w"] = np.arange(3)
    with pytest.raises(WeightsError, match=r"blob 'conv1_w' is an array of 'i8', expected floating-point"):
        load_backbone(model, write_detectron(tmp_path / "c.pkl", blobs))
    with pytest.raises(WeightsError, match="without Detectron's blobs of a ResNet"):
        load_backbone(model, write_detectron(tmp_path / "d.pkl", {"other": np.zeros(3)}))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_backbone(model, tmp_path / "absent.pkl")
    (tmp_path / "e.pkl").write_bytes(pickle.dumps(blobs, protocol=2)[:-1000])
    with pytest.raises(WeightsError, match="damaged at byte"):
        load_backbone(model, tmp_path / "e.pkl")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.target),))

    def __init__(self, target: str) -> None:
        self.target = target


@pytest.mark.long
def test_no_pickle_is_run(tmp_path: Path) -> None:
    target, model = tmp_path / "touched", RTS(SMALL)
    plain = write_detectron(tmp_path / "evil.pkl", {"conv1_w": Hostile(str(target))})
    with pytest.raises(WeightsError, match="blob 'conv1_w' is no NumPy array"):
        load_backbone(model, plain)
    torch.save({"conv1.weight": Hostile(str(target))}, tmp_path / "evil.pth")
    for load in (load_backbone, load_network):
        with pytest.raises(WeightsError):
            load(model, tmp_path / "evil.pth")
    assert not target.exists()


def without_localisation(state: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict(
        (key, value) for key, value in state.items() if not key.startswith(("clf_encoder.", "classifier."))
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.long
def test_an_lwl_checkpoint_leaves_the_localisation_branch_fresh(tmp_path: Path, legacy: bool) -> None:
    torch.manual_seed(1)
    lwl, model = RTS(SMALL), RTS(SMALL)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    path = save_official(
        tmp_path / "lwl.pth",
        without_localisation(lwl.state_dict()),
        options=RTS_OPTIONS,
        net_type="LWLNet",
        legacy=legacy,
    )
    load_network(model, path)
    for key, value in model.state_dict().items():
        source = fresh if key.startswith(("clf_encoder.", "classifier.")) else lwl.state_dict()
        assert torch.equal(value, source[key]), key


@pytest.mark.long
def test_the_lwl_checkpoint_has_480_of_rts50_s_497_tensors() -> None:
    with torch.device("meta"):
        state = RTS(RTS50).state_dict()
    assert (len(state), len(without_localisation(state))) == (497, 480)


@pytest.mark.long
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save_official(tmp_path / "rts.pth", dict(RTS(SMALL).state_dict()), options=RTS_OPTIONS)
    with pytest.raises(WeightsError, match="more keys are at fault"):
        load_network(RTS(RTS_MINI), path)
    state = without_localisation(RTS(SMALL).state_dict())
    del state["decoder.project.conv2.bias"]
    with pytest.raises(WeightsError, match=r"has no 'decoder\.project\.conv2\.bias'$"):
        load_network(RTS(SMALL), save_official(tmp_path / "part.pth", state, options=RTS_OPTIONS))


@pytest.mark.long
def test_best_and_state_files_of_a_run_are_networks_too(tmp_path: Path) -> None:
    torch.manual_seed(2)
    ours, model = RTS(SMALL), RTS(SMALL)
    torch.save(ours.state_dict(), tmp_path / "best.pt")
    load_network(model, tmp_path / "best.pt")
    assert torch.equal(model.decoder.project.conv2.weight, ours.decoder.project.conv2.weight)
