"""Official checkpoints: every layout loads, nothing in them runs, and damage is named."""

from __future__ import annotations

import copyreg
import dataclasses
import io
import os
import pickle
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rts_batch.config import RTS50, StaConfig
from rts_batch.errors import WeightsError
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.weights.inert_pickle import read_pickle
from rts_batch.weights.layout import Layout, check_layout, infer_config, network_layout
from rts_batch.weights.official import load_checkpoint, open_checkpoint
from rts_batch.weights.pickled import Record
from tests.support.checkpoint_files import (
    RTS_OPTIONS,
    STA_OPTIONS,
    net_instructions,
    save_official,
    text,
    write_legacy,
    write_with,
    write_zip,
)
from tests.support.parity_data import official_shapes

NET = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}
OPTIONS = {"rts50": RTS_OPTIONS, "sta": STA_OPTIONS}


def read_all(path: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint(path) as checkpoint:
        return {key: checkpoint.read(key) for key in checkpoint.net}


def assert_is_net(state: dict[str, torch.Tensor]) -> None:
    assert state.keys() == NET.keys()
    assert all(torch.equal(state[key], value) and state[key].dtype == value.dtype for key, value in NET.items())


def official_layout(name: str) -> Layout:
    return {
        key: (shape, torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
        for key, shape in official_shapes(name).items()
    }


# The official networks


@pytest.mark.parametrize("name", ["rts50", "sta"])
def test_official_key_lists_load_with_no_missing_and_no_unexpected_key(name: str) -> None:
    network = RTS(RTS50) if name == "rts50" else STA(StaConfig())
    state = {key: torch.full(shape, 0.5, dtype=dtype) for key, (shape, dtype) in official_layout(name).items()}
    result = network.load_state_dict(state, strict=False)
    assert result.missing_keys == []
    assert result.unexpected_keys == []
    assert network_layout(network.config) == official_layout(name)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("name", "net_type", "package"),
    [
        ("rts50", "RTSNet", "ltr.admin"),
        ("sta", "STANet", "dlframework.common.utils"),
    ],
)
@pytest.mark.long
def test_official_container_loads(tmp_path: Path, name: str, net_type: str, package: str, legacy: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    net = {
        key: torch.rand(shape, generator=generator) if dtype.is_floating_point else torch.tensor(3)
        for key, (shape, dtype) in official_layout(name).items()
    }
    path = save_official(
        tmp_path / f"{name}.pth", net, options=OPTIONS[name], net_type=net_type, package=package, legacy=legacy
    )
    network = load_checkpoint(path)
    assert network.config == (RTS50 if name == "rts50" else StaConfig())
    assert network.state.keys() == net.keys()
    assert all(torch.equal(network.state[key], value) for key, value in net.items())
    assert f"net_type '{net_type}', epoch 200" in network.origin


def test_published_options_are_read_and_foreign_objects_stay_inert(tmp_path: Path) -> None:
    path = save_official(tmp_path / "x.pth", NET, options={**RTS_OPTIONS, "scale": np.float32(0.5), "odd": {1}})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.net_type == "RTSNet"
        assert checkpoint.options.items() >= RTS_OPTIONS.items()
        assert checkpoint.options["scale"] == 0.5
        assert isinstance(checkpoint.options["odd"], Record)


@pytest.mark.parametrize(
    "changes",
    [
        {"feature_dim": 24, "decoder_dims": (10, 8, 6, 4)},
        {"num_filters": 5, "label_encoder_dims": (3, 4, 7)},
    ],
    ids=str,
)
def test_dimensions_are_read_off_the_shapes(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(RTS50, **changes)
    shapes = {key: shape for key, (shape, _) in network_layout(config).items()}
    assert infer_config(shapes, {}, "x") == dataclasses.replace(config, name="rts50-like")
    if "label_encoder_dims" in changes:
        changes = {**changes, "label_encoder_dims": (3, 4, 7, 9)}
    sta = StaConfig(**changes, iterations=4)
    shapes = {key: shape for key, (shape, _) in network_layout(sta).items()}
    assert infer_config(shapes, {"optim_iter": 4}, "x") == sta


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("rts50", "filter_size", 5),
        ("rts50", "clf_hinge_threshold", "0.05"),
        ("sta", "filter_size", 1),
        ("sta", "optim_iter", 0),
        ("sta", "optim_iter", True),
        ("sta", "label_encoder_dims", (16, 32, 64)),
        ("sta", "use_bn_in_label_enc", True),
    ],
)
def test_unsupported_option_is_named(name: str, option: str, value: object) -> None:
    with pytest.raises(WeightsError, match=option):
        infer_config(official_shapes(name), {**OPTIONS[name], option: value}, "x")


def test_file_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"neither an RTS network .* its first tensor is 'w'"):
        load_checkpoint(save_official(tmp_path / "x.pth", NET))


# Every key accounted for


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decoder.proj.layer3.0.weight"), "x: has no tensor 'decoder.proj.layer3.0.weight'$"),
        (
            lambda state: [state.pop(key) for key in list(state)[5:8]],
            r"has no tensor 'label_.*' \(2 more keys are at fault",
        ),
        (
            lambda state: state.update({"head.bias": ((3,), torch.float32)}),
            "'head.bias' that the network does not know",
        ),
        (lambda state: state.update({"module.\x1b[31m": ((3,), torch.float32)}), r"'module.\\x1b\[31m'"),
        (
            lambda state: state.update({"classifier.feature_extractor.0.weight": ((512, 1024, 1, 1), torch.float32)}),
            r"'classifier.feature_extractor.0.weight' has shape \[512, 1024, 1, 1\], expected \[512, 1024, 3, 3\]",
        ),
        (
            lambda state: state.update({"feature_extractor.bn1.bias": ((64,), torch.float64)}),
            "'feature_extractor.bn1.bias' has dtype float64, expected float32",
        ),
        (
            lambda state: state.update({"feature_extractor.bn1.num_batches_tracked": ((), torch.float32)}),
            "num_batches_tracked' has dtype float32, expected int64",
        ),
    ],
)
def test_layout_fault_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    found = dict(official_layout("rts50"))
    change(found)
    with pytest.raises(WeightsError, match=message):
        check_layout(found, network_layout(RTS50), "x")


# Containers


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def small_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_official(tmp_path / "small.pth", NET, options=RTS_OPTIONS, legacy=request.param)


def test_small_container_loads(small_file: Path) -> None:
    assert_is_net(read_all(small_file))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool])
def test_storages_of_every_kind(tmp_path: Path, dtype: torch.dtype, legacy: bool) -> None:
    net = {"w": torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)}
    assert torch.equal(read_all(save_official(tmp_path / "x.pth", net, legacy=legacy))["w"], net["w"])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_views_parameters_and_empty_tensors(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    net = {
        "transposed": base.T,
        "row": base[2],
        "steps": base[:, 1::2],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "padding": torch.zeros(100),
    }
    state = read_all(save_official(tmp_path / "x.pth", net, legacy=legacy))
    for key, value in net.items():
        assert torch.equal(state[key], value.detach()), key
        assert state[key].is_contiguous()


def test_values_outlive_the_file(small_file: Path) -> None:
    state = read_all(small_file)
    small_file.unlink()
    assert_is_net(state)


def test_cuda_storages_are_read_to_the_cpu(tmp_path: Path) -> None:
    instructions, storages = net_instructions(NET)
    moved = instructions.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    moved = moved.replace(text("cpu"), text("cuda:3"))
    assert moved != instructions
    path = write_zip(tmp_path / "x.pth", b"\x80\x02}" + text("net") + moved + b"s.", storages)
    assert_is_net(read_all(path))


def test_net_alone_is_enough(tmp_path: Path) -> None:
    torch.save({"net": NET}, tmp_path / "x.pth")
    assert_is_net(read_all(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "byte 0 begins neither"),
        (b"\x80\x02}.", "begins neither a zip file nor a pickle of torch.save"),
        (b"PK\x03\x04 and no more", "its directory, before byte 16, is missing"),
    ],
    ids=["empty", "text", "pickle", "zip"],
)
def test_no_checkpoint_at_all(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model": NET}, "no entry 'net' .it has 'model'"),
        ([1, 2], "no entry 'net' .it has no dictionary"),
        ({"net": [torch.ones(2)]}, "'net' is not a dictionary of tensors"),
        ({"net": {}}, "'net' is not a dictionary of tensors"),
        ({"net": {"a": 3}}, r"net\['a'\] is not a tensor but a int"),
        ({"net": {"a": np.float64(3)}}, r"net\['a'\] is not a tensor but a Record .made by 'numpy.*scalar'"),
        ({"net": {3: torch.ones(2)}}, "net has a key 3 that is no text"),
    ],
    ids=str,
)
def test_wrong_contents_are_named(tmp_path: Path, entries: object, message: str) -> None:
    torch.save(entries, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(tmp_path / "x.pth")


def test_legacy_file_cut_short_names_the_byte(tmp_path: Path) -> None:
    path = save_official(tmp_path / "x.pth", {"w": torch.ones(1000)}, legacy=True)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(
        WeightsError, match=rf"ends at byte {len(data) - 100}, but storage '\d+' takes bytes \d+ to \d+"
    ):
        open_checkpoint(path)
    path.write_bytes(data[:300])
    with pytest.raises(WeightsError, match=r"the pickle is damaged at byte \d+"):
        open_checkpoint(path)


def test_damaged_zip_entry_is_named(tmp_path: Path) -> None:
    path = save_official(tmp_path / "x.pth", {"w": torch.full((1000,), 0.123)})
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(0.123).tobytes() * 20) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"entry 'x/data/\d+' is damaged .Bad CRC-32.* .tensor 'w'"):
        read_all(path)


@pytest.mark.parametrize(
    ("storages", "message"),
    [
        ({}, "entry 'archive/data/0' is missing.*tensor 'w'"),
        ({"0": b"\0" * 20}, "storage '0' has 20 bytes, its pickle says 24.*tensor 'w'"),
    ],
    ids=["missing", "short"],
)
def test_storage_that_is_not_as_described(tmp_path: Path, storages: dict[str, bytes], message: str) -> None:
    instructions, _ = net_instructions({"w": NET["w"]})
    padded = {**storages, "padding": b"\0" * 100}
    path = write_zip(tmp_path / "x.pth", b"\x80\x02}" + text("net") + instructions + b"s.", padded)
    with pytest.raises(WeightsError, match=message):
        read_all(path)


def test_compressed_zip_is_refused(tmp_path: Path) -> None:
    bomb = {"0": b"\0" * (1 << 20)}
    path = write_zip(tmp_path / "x.pth", b"\x80\x02}.", bomb, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed"):
        open_checkpoint(path)


def test_big_endian_and_ambiguous_zips_are_refused(tmp_path: Path) -> None:
    path = write_with(tmp_path / "x.pth", NET)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", "big")
    with pytest.raises(WeightsError, match="big-endian"):
        open_checkpoint(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/data.pkl", "")
    with pytest.raises(WeightsError, match="2 entries"):
        open_checkpoint(path)


def tensor_instructions(shape: str, stride: str, offset: int = 0, numel: int = 6) -> bytes:
    """A tensor in protocol 0, with a shape, stride and offset that torch would not write."""
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{numel}\ntQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{shape}{stride}I00\nNtR".encode()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            tensor_instructions("(I2\nI4\nt", "(I4\nI1\nt"),
            r"of shape \[2, 4\] reaches beyond its storage '0' of 6 values",
        ),
        (tensor_instructions("(I2\nI3\nt", "(I3\nI1\nt", offset=1), "reaches beyond"),
        (tensor_instructions("(I2\nI2\nt", "(I3\nI9\nt"), "reaches beyond"),
        (tensor_instructions("(L1000000000000L\nt", "(I0\nt"), "reaches beyond"),
        (tensor_instructions("(I2\nI3\nt", "(I-3\nI1\nt"), "has an impossible shape, stride or offset"),
        (tensor_instructions("(I-2\nt", "(I1\nt"), "has an impossible shape"),
        (tensor_instructions("(I2\nt", "(I1\nI1\nt"), "has an impossible shape"),
        (tensor_instructions("(I2\nt", "(I1\nt", offset=-1), "has an impossible shape"),
        (tensor_instructions("(F2.0\nt", "(I1\nt"), "has an impossible shape"),
        (tensor_instructions("(" + "I1\n" * 60 + "t", "(" + "I1\n" * 60 + "t"), "has an impossible shape"),
        (tensor_instructions("(I2\nt", "(I1\nt", numel=-6), "lies in a storage of an unknown kind"),
        (tensor_instructions("(L" + "9" * 4000 + "L\nt", "(I1\nt"), "has an impossible shape"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(I1\ntR", "describes a tensor with too few values"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI1\nI1\nI1\ntR", "lies in a storage of an unknown kind"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:24],
)
def test_impossible_tensor_is_refused(tmp_path: Path, tensor: bytes, message: str) -> None:
    path = write_zip(tmp_path / "x.pth", b"}" + text("net") + b"}" + text("a") + tensor + b"ss.", {"0": b"\0" * 24})
    with pytest.raises(WeightsError, match=rf"net\['a'\] .*{message}"):
        read_all(path)


def test_many_tensors_of_one_storage_cannot_fill_the_memory(tmp_path: Path) -> None:
    tensor = tensor_instructions("(I100000\nt", "(I1\nt", numel=100_000)
    net = b"}(" + b"".join(text(f"t{index}") + tensor for index in range(100)) + b"u"
    path = write_zip(tmp_path / "x.pth", b"}" + text("net") + net + b"s.", {"0": b"\0" * 400_000})
    with pytest.raises(WeightsError, match=r"claim 40000000 bytes, the file has \d+"):
        open_checkpoint(path)


# Nothing runs


def code(target: Path) -> str:
    return f"open({str(target)!r}, 'w').close()"


class Reduced:
    """Pickles as a call of `function(*args)`, with `state` set on what it returns."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


def torch_bytes(target: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Reduced(exec, code(target)), buffer)
    return buffer.getvalue()


def instructions_of(value: object, protocol: int) -> bytes:
    pickled = pickle.dumps(value, protocol)
    if protocol >= 4:  # the frame's length would not fit once spliced
        return pickled[11:-1]
    return pickled.removeprefix(bytes([0x80, protocol]) if protocol >= 2 else b"")[:-1]


def quoted(target: Path) -> bytes:
    return f"S'touch {target}'\n".encode()


ATTACKS: dict[str, Callable[[Path], bytes]] = {
    **{
        f"exec, protocol {protocol}": lambda target, p=protocol: instructions_of(Reduced(exec, code(target)), p)
        for protocol in range(6)
    },
    "os.system": lambda target: instructions_of(Reduced(os.system, f"touch {target}"), 2),
    "open": lambda target: instructions_of(Reduced(open, str(target), "w"), 2),
    "os.mkdir": lambda target: instructions_of(Reduced(os.mkdir, str(target)), 4),
    "INST": lambda target: b"(" + quoted(target) + b"ios\nsystem\n",
    "OBJ": lambda target: b"(cos\nsystem\n" + quoted(target) + b"o",
    "NEWOBJ": lambda target: (  # tuple(map(exec, [code]))
        b"cbuiltins\ntuple\ncbuiltins\nmap\ncbuiltins\nexec\n(" + text(code(target)) + b"l\x86\x81\x85\x81"
    ),
    "Popen": lambda target: instructions_of(Reduced(subprocess.Popen, ["touch", str(target)]), 2),
    "getattr": lambda target: (  # getattr(__import__("os"), "system")("touch …")
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(" + quoted(target) + b"tR"
    ),
    "pickle in a pickle": lambda target: instructions_of(
        Reduced(pickle.loads, pickle.dumps(Reduced(exec, code(target)))), 2
    ),
    "torch.load in a pickle": lambda target: instructions_of(
        Reduced(torch.storage._load_from_bytes, torch_bytes(target)), 2
    ),
    "BUILD": lambda target: (  # partial(print), whose state makes it partial(exec, code), called
        b"cfunctools\npartial\n(cbuiltins\nprint\ntR(cbuiltins\nexec\n(" + text(code(target)) + b"t}Ntb(tR"
    ),
    "in a dictionary's key": lambda target: b"}" + instructions_of(Reduced(exec, code(target)), 2) + b"I1\ns",
    "extension registry": lambda target: b"\x82\xf0(" + text(code(target)) + b"tR",
}
PERSISTENT = "in a persistent id"
ATTACKS[PERSISTENT] = lambda target: instructions_of(Reduced(exec, code(target)), 2) + b"Q"


class Careless(pickle.Unpickler):
    def persistent_load(self, pid: object) -> object:
        return pid


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What an attack would create."""
    copyreg.add_extension("builtins", "exec", 0xF0)
    pickle.loads(b"\x82\xf0.")  # the registry's cache, which an Unpickler asks before its find_class
    try:
        yield tmp_path / "executed"
    finally:
        copyreg.remove_extension("builtins", "exec", 0xF0)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_on_a_careless_reader(name: str, target: Path) -> None:
    """Else the next test would show nothing."""
    assert not target.exists()
    result = Careless(io.BytesIO(b"\x80\x02" + ATTACKS[name](target) + b".")).load()
    if isinstance(result, subprocess.Popen):
        result.wait()
    assert target.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_run_and_a_complete_net_loads(name: str, target: Path, tmp_path: Path) -> None:
    path = write_with(tmp_path / "x.pth", NET, settings=ATTACKS[name](target))
    assert_is_net(read_all(path))
    assert not target.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_in_the_place_of_a_tensor(name: str, target: Path, tmp_path: Path) -> None:
    net = b"}" + text("w") + ATTACKS[name](target) + b"s"
    path = write_zip(tmp_path / "x.pth", b"\x80\x02}" + text("net") + net + b"s.", {"0": b"\0" * 24})
    with pytest.raises(WeightsError, match=r"net\['w'\] is not a tensor"):
        open_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_in_a_tensors_arguments(name: str, target: Path, tmp_path: Path) -> None:
    hooks = ATTACKS[name](target)
    tensor = tensor_instructions("(I2\nI3\nt", "(I3\nI1\nt").replace(b"NtR", hooks + b"tR")
    path = write_zip(
        tmp_path / "x.pth", b"\x80\x02}" + text("net") + b"}" + text("w") + tensor + b"ss.", {"0": b"\0" * 24}
    )
    assert torch.equal(read_all(path)["w"], torch.zeros(2, 3))
    assert not target.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.long
def test_attack_saved_by_torch(target: Path, tmp_path: Path, legacy: bool) -> None:
    evil = Reduced(exec, code(target), state={"x": Reduced(os.mkdir, str(target))})
    path = save_official(tmp_path / "x.pth", NET, legacy=legacy, extra={"settings": evil, "loader": {"a": [evil]}})
    assert_is_net(read_all(path))
    assert not target.exists()


def test_state_set_on_a_function_changes_nothing(tmp_path: Path) -> None:
    before = torch._utils._rebuild_tensor_v2.__defaults__
    attack = b"ctorch._utils\n_rebuild_tensor_v2\nN}S'__defaults__'\n(I1\nI2\nts\x86b"
    assert_is_net(read_all(write_with(tmp_path / "x.pth", NET, settings=attack)))
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_nested_tuples_cost_no_time(tmp_path: Path) -> None:
    """Hashing, comparing or printing these would take 2^60 steps."""
    bomb = b"(I1\nt" + b"2\x86" * 60
    start = time.perf_counter()
    path = write_with(tmp_path / "x.pth", NET, key=b"}" + bomb + b"I1\ns", value=bomb)
    assert_is_net(read_all(path))
    constructor = b"cltr\nC\n)R}S'kwds'\n}S'filter_size'\n" + bomb + b"ssb"
    with open_checkpoint(write_with(path, NET, constructor=constructor)) as checkpoint:
        assert "filter_size" in checkpoint.options
        with pytest.raises(WeightsError, match="'filter_size' is a tuple"):
            infer_config(official_shapes("rts50"), checkpoint.options, "x")
    assert time.perf_counter() - start < 10


@pytest.mark.long
@pytest.mark.parametrize(
    "deep",
    [b"N" + b"\x85" * 200_000, b"N" + b")R" * 200_000, b"]" * 200_000 + b"a" * 199_999, b"N" + b"\x85Q" * 200_000],
    ids=["tuples", "calls", "lists", "persistent ids"],
)
def test_deep_nesting_is_harmless(tmp_path: Path, deep: bytes) -> None:
    assert_is_net(read_all(write_with(tmp_path / "x.pth", NET, settings=deep)))


@pytest.mark.parametrize(("numels", "message"), [((6, 900), "the file ends at byte"), ((900, 6), "has 24 bytes")])
def test_storage_described_in_two_ways(tmp_path: Path, numels: tuple[int, int], message: str) -> None:
    first, second = (tensor_instructions("(I6\nt", "(I1\nt", numel=numel) for numel in numels)
    net = b"}" + text("a") + first + b"s" + text("b") + second + b"s"
    path = write_legacy(tmp_path / "x.pth", b"}" + text("net") + net + b"s.", {"0": (6, b"\0" * 24)})
    with pytest.raises(WeightsError, match=message):
        read_all(path)


def test_view_of_a_storage_as_old_files_have_it(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    tensor = tensor_instructions("(I3\nt", "(I1\nt").replace(b"tQ", b"(S'view'\nI2\nI4\nttQ")
    net = b"}" + text("a") + tensor + b"s"
    path = write_legacy(tmp_path / "x.pth", b"}" + text("net") + net + b"s.", {"0": (6, values.tobytes())})
    assert read_all(path)["a"].tolist() == [2, 3, 4]


def test_very_long_pickle_is_refused(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "x.pth", b"}" + b"\x8e" + (5 << 20).to_bytes(8, "little") + b"x" * (5 << 20) + b"0.", {}
    )
    with pytest.raises(WeightsError, match="longer than 4 MiB"):
        open_checkpoint(path)


# Damage of any kind


def error_of(read: Callable[[], object]) -> str | None:
    """Returns the message of a WeightsError; anything else comes through and fails the test."""
    try:
        read()
    except WeightsError as error:
        return str(error)
    return None


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_any_damage_gives_a_weights_error_or_a_net(small_file: Path, data: st.DataObject) -> None:
    content = bytearray(small_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)) | st.just(len(content)))]
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(content)
        file.flush()
        error = error_of(lambda: read_all(Path(file.name)))
    assert error is None or file.name in error


FRAGMENTS = [
    *(bytes([value]) for value in b"()].}abdehlopqrtsuRQ0120\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"),
    *(b"q\x00", b"h\x00", b"K\x05", b"I7\n", b"\x82\x01", b"cos\nsystem\n", b"ios\nsystem\n", b"X\x01\0\0\0a", b"N"),
    *(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"L9L\n", b"Fnan\n", b"S'x'\n", b"Pid\n"),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_any_instructions_are_read_or_refused(fragments: list[bytes]) -> None:
    error = error_of(lambda: read_pickle(io.BytesIO(b"".join(fragments) + b"."), "x"))
    assert error is None or "damaged at byte" in error
